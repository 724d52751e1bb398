//! What programs that measure share: their arguments, and what kernel and disk say of them. Measures nothing itself.

use crate::workload::Params;
use std::path::Path;

/// The text behind `--name`.
pub fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument.strip_prefix("--") != Some(name)).nth(1)
}

/// The number behind `--name`, or the default.
///
/// # Panics
/// If it is no number.
pub fn number(name: &str, default: u64) -> u64 {
    text(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("--{name}: not a number: {value}")))
}

/// Whether `--name` stands alone.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument.strip_prefix("--") == Some(name))
}

/// The workload of `--messages`, `--cap`, `--receipts-per-message`, `--ids` and `--seed`, with so many messages where that is
/// not said.
///
/// # Panics
/// If one is no number.
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

/// A figure of this process in `/proc/self/status`, bytes: `VmRSS` is what is resident now, `VmHWM` the most that was. 0 where
/// the system does not say.
pub fn status_bytes(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Lets the kernel count `VmHWM` anew.
///
/// # Errors
/// Where it does not take that.
pub fn reset_peak() -> std::io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// The files below a directory, bytes.
///
/// # Panics
/// If it cannot be read.
pub fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries.map(|e| if e.path().is_dir() { disk_bytes(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}
