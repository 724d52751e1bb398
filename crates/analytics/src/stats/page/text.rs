//! Numbers, lengths of time and times as people read them. Knows no figure.

use super::super::Share;
use chrono::{DateTime, Utc};

use std::fmt::Display;

/// Formats a whole number with thin spaces between groups of three digits.
pub(super) fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// Formats a percentage for display.
pub(super) fn percent(share: &Share) -> String {
    share.map_or_else(|| "–".to_owned(), |percent| format!("{percent:.1} %"))
}

/// Formats a duration for display, in at most two units.
pub fn duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let Some(at) = units.iter().position(|(_, unit)| ms >= *unit) else { return format!("{ms} ms") };
    let (name, unit) = units[at];
    let whole = format!("{} {name}", ms / unit);
    match units.get(at + 1) {
        Some((lower, part)) if ms % unit >= *part => format!("{whole} {} {lower}", ms % unit / part),
        None if ms < 10_000 && ms % unit >= 100 => format!("{}.{} s", ms / unit, ms % unit / 100),
        _ => whole,
    }
}

pub(super) fn maybe(ms: &Option<u64>) -> String {
    ms.map_or_else(|| "–".to_owned(), duration)
}

/// Formats Unix milliseconds, UTC, by a pattern of `chrono`. Times beyond its range stay numbers.
pub(super) fn time(ms: u64, pattern: &str) -> String {
    let time: Option<DateTime<Utc>> = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| format!("{ms} ms"), |time| time.format(pattern).to_string())
}

/// Formats a whole number in at most four characters: `950`, `1.2k`, `15k`, `3.4M`.
pub(super) fn short(number: u64) -> String {
    let units = [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
    // A number that rounds to 1000 of a unit belongs to the next one.
    let Some((name, unit)) = units.into_iter().find(|(_, unit)| number as f64 >= 0.9995 * unit) else {
        return number.to_string();
    };
    let value = number as f64 / unit;
    if value < 9.95 { format!("{value:.1}{name}") } else { format!("{value:.0}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, wanted) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (2_560, "2.5 s"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (90_061_000, "1 d 1 h"),
            (604_800_000, "7 d"),
        ] {
            assert_eq!(duration(ms), wanted);
        }
    }

    #[test]
    fn thousands_are_separated_by_spaces() {
        for (number, wanted) in [(0_u64, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number).replace('\u{202f}', " "), wanted);
        }
    }

    #[test]
    fn short_numbers_have_at_most_four_characters() {
        for (number, wanted) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (9_949, "9.9k"),
            (9_951, "10k"),
            (999_499, "999k"),
            (999_600, "1.0M"),
            (3_400_000, "3.4M"),
        ] {
            assert_eq!(short(number), wanted);
        }
    }
}
