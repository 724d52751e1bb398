//! Checks disk, memory and descriptors of this machine.

use super::finding::{Finding, Findings};
use super::{Examined, Part};
use receipts_assembly::{AnswersFrom, connections};
use receipts_runtime::machine::{self, DiskKind, Memory};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const WRITABLE: &str = "disk.writable";
const CLOSED: &str = "disk.closed";
const FREE: &str = "disk.free";
const KIND: &str = "disk.kind";
const SAME: &str = "disk.same";
const MEMORY: &str = "memory.limit";
const DESCRIPTORS: &str = "descriptors.limit";

pub(super) const CHECKS: [&str; 7] = [WRITABLE, CLOSED, FREE, KIND, SAME, MEMORY, DESCRIPTORS];

/// Less free room than this stops checkpoints soon.
const FREE_MIN: u64 = 256 << 20;
/// Less is worth a warning.
const FREE_WANTED: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let settings = &examined.settings;
    if examined.part.folds() {
        disk(&settings.data_dir, findings);
        findings.add(memory(settings.projector.memory_bytes));
    } else {
        findings.skip(&CHECKS[..6], "this part keeps no data");
    }
    let answers = if examined.part == Part::Query { AnswersFrom::Peers } else { AnswersFrom::Itself };
    findings.add(match connections(settings, answers) {
        Ok(connections) => Finding::ok(DESCRIPTORS, format!("{connections} connections fit into the limit")),
        Err(failure) => Finding::problem(
            DESCRIPTORS,
            failure.detail(),
            "LimitNOFILE=65536 in the unit of systemd, or --ulimit nofile=65536 of docker",
        ),
    });
}

fn disk(path: &Path, findings: &mut Findings) {
    let shown = path.display();
    // The directory, or the one in which a start makes it.
    let existing = path.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let existing = existing.into_iter().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    findings.add(match writable(existing) {
        Ok(()) if existing == path => Finding::ok(WRITABLE, format!("{shown} can be written")),
        Ok(()) => Finding::ok(WRITABLE, format!("a start makes {shown}")),
        Err(why) => Finding::problem(
            WRITABLE,
            format!("{} cannot be written ({why}), and the data directory is {shown}", existing.display()),
            format!("chown $USER {}, or choose another --data-dir", existing.display()),
        ),
    });
    findings.add(match fs::metadata(path) {
        Err(_) => Finding::skipped(CLOSED, format!("{shown} is not made yet")),
        Ok(metadata) if metadata.mode() & 0o077 == 0 => Finding::ok(CLOSED, "only the owner may enter"),
        Ok(metadata) => Finding::warning(
            CLOSED,
            format!(
                "users other than the owner may enter {shown} (mode {:03o}), which holds ids and read times",
                metadata.mode() & 0o777
            ),
            format!("chmod 700 {shown}"),
        ),
    });
    let disk = match machine::disk(existing) {
        Ok(disk) => disk,
        Err(error) => {
            let why = format!("{} cannot be looked at: {error}", existing.display());
            return findings.skip(&[FREE, KIND, SAME], &why);
        }
    };
    let (free, held) = (disk.free_bytes, size_of(path));
    let detail = format!("{} MiB are free, and the data takes {} MiB", free / MIB, held / MIB);
    let remedy = format!("give {shown} a larger volume; du -sh {shown}/* shows what takes room");
    findings.add(match () {
        () if free < FREE_MIN => Finding::problem(FREE, format!("{detail}: checkpoints fail when it is full"), remedy),
        () if free < FREE_WANTED => Finding::warning(FREE, detail, remedy),
        () if free < held / 2 => {
            Finding::warning(FREE, format!("{detail}: `receipts rebuild` needs room for a second store"), remedy)
        }
        () => Finding::ok(FREE, detail),
    });
    findings.add(match disk.kind {
        DiskKind::Local => Finding::ok(KIND, "a local file system"),
        DiskKind::Memory => Finding::warning(
            KIND,
            format!("{shown} is in memory, so a restart of the machine folds the log from its beginning"),
            "choose a --data-dir on a disk",
        ),
        DiskKind::Network => Finding::warning(
            KIND,
            format!("{shown} is on a network file system, where locks and syncs may not do what the store counts on"),
            "choose a --data-dir on a local disk or a block volume",
        ),
    });
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let own = device(path);
    let others = ["store", "rebuild", "log"].into_iter().filter(|name| {
        let of = device(&path.join(name));
        of.is_some() && of != own
    });
    let others = others.map(|name| {
        Finding::problem(
            SAME,
            format!("{shown}/{name} is on another file system than {shown}, so a rebuilt store cannot be switched to"),
            format!("stop the service, move {name} into {shown}, or mount one volume at {shown}"),
        )
    });
    findings.add_all(SAME, others.collect(), "the data directory is on one file system");
}

/// Asks the system, which knows lists of rights and read-only mounts too.
fn writable(folder: &Path) -> Result<(), String> {
    if !folder.is_dir() {
        return Err("it is no directory".to_owned());
    }
    machine::may_write(folder).map_err(|error| error.to_string())
}

/// Returns the lengths of all files below a path, bytes.
pub(crate) fn size_of(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| size_of_entry(&entry)).sum()
}

/// Returns the length of a file, or of all files below a folder, bytes.
pub(crate) fn size_of_entry(entry: &fs::DirEntry) -> u64 {
    match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

fn memory(wanted: u64) -> Finding {
    let Some(Memory { bytes, bound }) = machine::memory() else {
        return Finding::skipped(MEMORY, "the system does not tell its memory");
    };
    let detail = format!("projector.memory_bytes is {} MiB, and {bound} {} MiB", wanted / MIB, bytes / MIB);
    let remedy = format!("set projector.memory_bytes to at most {} (half), or raise the limit", bytes / 2);
    match wanted {
        _ if wanted >= bytes => Finding::problem(MEMORY, format!("{detail}: the process is killed for it"), remedy),
        _ if wanted > bytes / 4 * 3 => {
            Finding::warning(MEMORY, format!("{detail}: the rest of the process needs memory too"), remedy)
        }
        _ => Finding::ok(MEMORY, detail),
    }
}
