//! Days and times of the calendar as text, for any time that an event may have; chrono's years end
//! before those.

/// Formats a day since 1970-01-01 as `YYYY-MM-DD`, by Howard Hinnant's `civil_from_days`.
pub(super) fn day(number: i32) -> String {
    let days = u64::try_from(number).unwrap_or_default() + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Formats a day as ISO 8601 does: from the year 10000 on with a sign.
pub(super) fn signed_day(number: i32) -> String {
    let day = day(number);
    if day.len() > "YYYY-MM-DD".len() { format!("+{day}") } else { day }
}

/// Formats a time, Unix milliseconds, as RFC 3339 does, in UTC with three decimals.
pub(super) fn time(ms: i64) -> String {
    let (day, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    let day = signed_day(i32::try_from(day).unwrap_or(i32::MAX));
    format!("{day}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar_in_utc() {
        for (time_ms, wanted) in [
            (0, "1970-01-01"),
            (86_400_000 - 1, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_780_000_000_000, "2026-05-28"),
            (4_107_542_400_000, "2100-03-01"),
            (1_i64 << 53, "287396-10-12"),
        ] {
            assert_eq!(day((time_ms / 86_400_000) as i32), wanted);
        }
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(time(1_780_000_000_250), "2026-05-28T20:26:40.250Z");
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1_795_181_400_000_000), "+58857-01-12T12:00:00.000Z");
    }
}
