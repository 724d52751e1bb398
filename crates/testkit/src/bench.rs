//! Helpers of benches: arguments, and figures of the kernel and the disk. Measures no time.

use crate::workload::Params;
use std::path::Path;

/// Returns the text after `--name`.
pub fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument.strip_prefix("--") != Some(name)).nth(1)
}

/// Returns the number after `--name`, or the default.
///
/// # Panics
/// If it is not a number.
pub fn number(name: &str, default: u64) -> u64 {
    text(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("--{name}: not a number: {value}")))
}

/// Tells whether `--name` is given.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument.strip_prefix("--") == Some(name))
}

/// Returns the workload of `--messages`, `--cap`, `--receipts-per-message`, `--ids` and `--seed`.
/// `messages` is the default of the first.
///
/// # Panics
/// If one is not a number.
pub fn params(messages: u64) -> Params {
    Params {
        messages: number("messages", messages) as usize,
        size_max: number("cap", 5_000) as u32,
        receipts_per_message: number("receipts-per-message", 5) as f64,
        ids_per_event: number("ids", 1) as usize,
        seed: number("seed", 1),
        ..Params::default()
    }
}

/// Returns a figure of this process from `/proc/self/status`, bytes: `VmRSS` is the resident
/// memory, `VmHWM` its peak. 0 if the system has none.
pub fn status_bytes(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Resets `VmHWM` in the kernel.
///
/// # Errors
/// If the kernel refuses.
pub fn reset_peak() -> std::io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// Returns the size of the files below a directory, bytes.
///
/// # Panics
/// If it cannot be read.
pub fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries.map(|e| if e.path().is_dir() { disk_bytes(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}
