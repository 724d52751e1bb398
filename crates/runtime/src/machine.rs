//! What the machine gives a process: room on a disk, the kind of its file system, and memory. Takes
//! nothing and changes nothing.

use rustix::fs::{Access, StatVfs, access, statfs, statvfs};
use std::io;
use std::path::Path;

/// The file system of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// All bytes.
    pub total_bytes: u64,
    /// Its kind, where that matters.
    pub kind: DiskKind,
}

/// The kinds of file systems that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// In memory: gone after a restart of the machine.
    Memory,
    /// On another machine.
    Network,
    /// Any other.
    Local,
}

/// The memory that a process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes.
    pub bytes: u64,
    /// What bounds it, for people: `the cgroup's memory.max`.
    pub bound: &'static str,
}

/// The magic numbers of statfs(2): tmpfs and ramfs; NFS, SMB2, CIFS, FUSE and Ceph.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
const NETWORK: [i64; 5] = [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x6573_5546, 0x00c3_6400];

/// Looks at the file system of an existing path.
///
/// # Errors
/// If the path cannot be looked at.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let StatVfs { f_frsize, f_blocks, f_bavail, .. } = statvfs(path)?;
    #[expect(clippy::useless_conversion, reason = "its type differs between platforms")]
    let magic = i64::from(statfs(path)?.f_type);
    let kind = match magic {
        magic if MEMORY.contains(&magic) => DiskKind::Memory,
        magic if NETWORK.contains(&magic) => DiskKind::Network,
        _ => DiskKind::Local,
    };
    let bytes = |blocks: u64| blocks.saturating_mul(f_frsize);
    Ok(Disk { free_bytes: bytes(f_bavail), total_bytes: bytes(f_blocks), kind })
}

/// Asks the system whether this user may write into a folder. Writes nothing.
///
/// # Errors
/// Why not.
pub fn may_write(folder: &Path) -> io::Result<()> {
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Returns the memory that this process may use: the least limit of its control groups or, without
/// one, the machine's. `None` where the system does not tell.
#[must_use]
pub fn memory() -> Option<Memory> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| total_of(&text));
    let group = read("/proc/self/cgroup").and_then(|groups| {
        let limit = |path: String| read(&path)?.trim().parse::<u64>().ok();
        paths_of(&groups).into_iter().filter_map(limit).min()
    });
    let group = group.filter(|bytes| machine.is_none_or(|machine| *bytes < machine));
    match (group, machine) {
        (Some(bytes), _) => Some(Memory { bytes, bound: "the control group's limit of memory" }),
        (None, Some(bytes)) => Some(Memory { bytes, bound: "the machine's memory" }),
        (None, None) => None,
    }
}

/// Returns `MemTotal` of /proc/meminfo, bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the files with the limits of the control groups in /proc/self/cgroup, and of all groups
/// above them. A group of a container may show as another one's root.
fn paths_of(groups: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            one if one.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let mut group = group.trim_end_matches('/');
        paths.push(format!("{root}{group}/{file}"));
        while let Some((above, _)) = group.rsplit_once('/') {
            group = above;
            paths.push(format!("{root}{group}/{file}"));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_looked_at_up_to_the_root() {
        assert_eq!(
            paths_of("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(paths_of("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(paths_of("5:cpu:/x\n4:memory:/\n"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }

    #[test]
    fn machine_tells_its_memory_and_disk() {
        assert_eq!(total_of("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16_384));
        assert!(memory().is_some_and(|memory| memory.bytes > 1 << 20));
        let here = disk(Path::new(".")).expect("looked at");
        assert!(here.total_bytes >= here.free_bytes && here.total_bytes > 0);
        assert!(disk(Path::new("/absent-as-nothing-is")).is_err());
    }
}
