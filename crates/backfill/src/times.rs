//! Turns one value of a foreign table into Unix milliseconds, by a stated unit and zone. It must
//! not guess either: a number that its unit puts outside the years 1990 to 2099 is an error.

use crate::values::{describe, tag};
use chrono::{
    DateTime, Datelike as _, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// 1990-01-01 and 2100-01-01. A time of a chat outside of them is a mistaken unit or a filler.
const RANGE_MS: std::ops::Range<i128> = 631_152_000_000..4_102_444_800_000;

/// The unit of a number that is a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Seconds, with or without a fraction.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl TimeUnit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    fn symbol(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }
}

impl FromStr for TimeUnit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = Self::ALL.into_iter().find(|unit| unit.symbol() == text);
        unit.ok_or_else(|| format!("{text} is not a unit of time: choose s, ms, us or ns"))
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

/// The meaning of a time of 0, which some systems store for "none".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroTime {
    /// The row is rejected.
    #[default]
    Reject,
    /// The row has no time: a read that did not happen, or a member since ever.
    Unread,
}

/// How a column's times are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeReading {
    /// The unit of numbers.
    pub unit: TimeUnit,
    /// The zone of times that name none. Without it, text without a zone is an error, and a Parquet
    /// timestamp without a zone is UTC.
    pub zone: Option<Tz>,
    /// The meaning of 0.
    pub zero: ZeroTime,
}

/// Returns a zone of the IANA database by its name.
///
/// # Errors
/// A sentence, if there is none of that name.
pub fn zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| format!("{name} is not a time zone of the IANA database, such as Europe/Berlin or UTC"))
}

/// Returns a time in Unix milliseconds; `None` if it is a zero that counts as none.
///
/// A time is a number or its text in the stated unit; text in the form of RFC 3339 or of a database
/// (`2026-11-20 12:05:00.25+00`); or `{"$date": …}`, as MongoDB and Parquet timestamps come.
///
/// # Errors
/// A sentence without a subject that says what would fit.
pub fn time(value: &Value, reading: &TimeReading) -> Result<Option<u64>, String> {
    let ms = match (value, tag(value)) {
        (Value::Number(number), _) => match number.as_f64() {
            // The shortest text of a double is the number that was meant.
            Some(double) if number.is_f64() => of_number(&double.to_string(), reading)?,
            _ => of_number(&number.to_string(), reading)?,
        },
        (Value::String(text), _) => of_text(text.trim(), reading)?,
        (_, Some(("$date", inner))) => match inner {
            // MongoDB's relaxed and canonical forms; both are milliseconds.
            Value::Number(_) | Value::Object(_) => {
                return time(inner, &TimeReading { unit: TimeUnit::Milliseconds, ..*reading });
            }
            Value::String(text) => {
                let reading = TimeReading { zone: Some(reading.zone.unwrap_or(Tz::UTC)), ..*reading };
                of_text(text, &reading)?
            }
            other => return Err(format!("is {}, no time", describe(other))),
        },
        (_, Some(("$numberLong" | "$numberInt" | "$numberDouble" | "$numberDecimal", Value::String(text)))) => {
            of_text(text, reading)?
        }
        _ => return Err(format!("is {}, no time", describe(value))),
    };
    match (ms, reading.zero) {
        (0, ZeroTime::Reject) => Err(
            "is 0, which some systems store for \"none\": --zero-time unread takes it for no time, else give the row its time"
                .to_owned(),
        ),
        (0, ZeroTime::Unread) => Ok(None),
        _ => Ok(u64::try_from(ms).ok()),
    }
}

fn of_number(text: &str, reading: &TimeReading) -> Result<i128, String> {
    let wrong = || format!("is {text}, no number");
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 30 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: i128 = digits.parse().map_err(|_| wrong())?;
    let thousandths: i128 = format!("{fraction:0<3.3}").parse().map_err(|_| wrong())?;
    let ms = |unit| match unit {
        TimeUnit::Seconds => whole * 1_000 + thousandths,
        TimeUnit::Milliseconds => whole,
        TimeUnit::Microseconds => whole.div_euclid(1_000),
        TimeUnit::Nanoseconds => whole.div_euclid(1_000_000),
    };
    let found = ms(reading.unit);
    if found == 0 || RANGE_MS.contains(&found) {
        return Ok(found);
    }
    let fitting = TimeUnit::ALL.into_iter().find(|unit| RANGE_MS.contains(&ms(*unit)));
    Err(match fitting {
        Some(unit) => format!(
            "is {text}, which as a number of {} is not between 1990 and 2100, but as one of {unit} is {}: if that is meant, say --time-unit {unit}",
            reading.unit,
            shown(ms(unit))
        ),
        None => format!("is {text}, which is between 1990 and 2100 in no unit (s, ms, us, ns)"),
    })
}

fn shown(ms: i128) -> String {
    let time = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn of_text(text: &str, reading: &TimeReading) -> Result<i128, String> {
    let is_number = text.starts_with(|first: char| first.is_ascii_digit() || first == '-' || first == '+')
        && text.bytes().all(|byte| byte.is_ascii_digit() || b".+-eE".contains(&byte));
    if is_number && text.bytes().any(|byte| byte == b'e' || byte == b'E') {
        let double: f64 = text.parse().map_err(|_| format!("is {text}, no time"))?;
        return of_number(&double.to_string(), reading);
    }
    if is_number && !text[1..].contains('-') {
        return of_number(text, reading);
    }
    // The fillers of MySQL and of Go stand for no time, as 0 does.
    if text.starts_with("0000-00-00") || text.starts_with("0001-01-01") {
        return Ok(0);
    }
    let wrong = || format!("is {text}, which is no time in a known form, such as 2026-05-28T20:26:40Z");
    let (local, offset) = split(text).ok_or_else(wrong)?;
    let utc = match (offset, reading.zone) {
        (Some(offset), _) => local.checked_sub_offset(offset).ok_or_else(wrong)?.and_utc(),
        (None, Some(zone)) => match zone.from_local_datetime(&local) {
            LocalResult::Single(time) => time.with_timezone(&Utc),
            LocalResult::Ambiguous(..) => {
                return Err(format!(
                    "is {text}, which is two times in {zone}, where clocks go back: write it with an offset"
                ));
            }
            LocalResult::None => {
                return Err(format!(
                    "is {text}, a time that {zone} skips, where clocks go forward: write it with an offset"
                ));
            }
        },
        (None, None) => {
            return Err(format!(
                "is {text}, a time without a zone: state its zone by --time-zone, such as Europe/Berlin or UTC"
            ));
        }
    };
    let ms = i128::from(utc.timestamp_millis());
    if ms == 0 || RANGE_MS.contains(&ms) {
        return Ok(ms);
    }
    Err(format!("is {text}, in the year {}, which is not between 1990 and 2100", utc.year()))
}

/// Splits a text into date and time of day, and the offset if it has one.
fn split(text: &str) -> Option<(NaiveDateTime, Option<FixedOffset>)> {
    // A year of more digits, as a mistaken unit gives, has a sign.
    let date_end = text.get(1..)?.match_indices('-').nth(1).map(|(at, _)| at + 1 + 3)?;
    let (date, rest) = text.split_at_checked(date_end)?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest);
    let clock_end = rest.find(|c: char| !(c.is_ascii_digit() || ":.,".contains(c))).unwrap_or(rest.len());
    let (clock, offset) = rest.split_at(clock_end);
    let clock = clock.replace(',', ".");
    let clock = match clock.as_str() {
        "" if offset.is_empty() => NaiveTime::MIN,
        _ => ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|form| NaiveTime::parse_from_str(&clock, form).ok())?,
    };
    Some((date.and_time(clock), self::offset(offset.trim())?))
}

/// Parses `Z`, `UTC`, `+00`, `+0000`, `+00:00` or `+00:00:00`. The inner `None` is no offset.
fn offset(text: &str) -> Option<Option<FixedOffset>> {
    if text.is_empty() {
        return Some(None);
    }
    if ["Z", "UTC", "GMT"].iter().any(|utc| utc.eq_ignore_ascii_case(text)) {
        return Some(FixedOffset::east_opt(0));
    }
    let (sign, digits) = match text.as_bytes()[0] {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if digits.len() % 2 != 0 || digits.len() > 6 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let pair = |at: usize| digits.get(at..at + 2).map_or(Some(0), |pair| pair.parse::<i32>().ok());
    let (hours, minutes, seconds) = (digits.get(..2)?.parse::<i32>().ok()?, pair(2)?, pair(4)?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60 + seconds)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value, its reading, and the time or a part of the reason: `crates/backfill/tests/cases`.
    const CASES: &str = include_str!("../tests/cases/times.txt");

    #[test]
    fn times_come_in_every_form_of_the_field() {
        let mut cases = 0;
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (question, wanted) = line.rsplit_once(" -> ").unwrap_or_else(|| panic!("{line}: no ->"));
            let (value, settings) = question.split_once(" @").unwrap_or((question, ""));
            let mut reading = TimeReading::default();
            for setting in settings.split_whitespace() {
                match setting.split_once('=') {
                    Some(("unit", unit)) => reading.unit = unit.parse().unwrap(),
                    Some(("zone", name)) => reading.zone = Some(zone(name).unwrap()),
                    _ if setting == "unread" => reading.zero = ZeroTime::Unread,
                    _ => panic!("{line}: {setting}"),
                }
            }
            let value: Value = serde_json::from_str(value.trim()).unwrap_or_else(|error| panic!("{line}: {error}"));
            match (time(&value, &reading), wanted.strip_prefix("rejected: ")) {
                (Err(reason), Some(part)) => assert!(reason.contains(part), "{line}\n{reason}"),
                (Ok(None), None) => assert_eq!(wanted, "none", "{line}"),
                (Ok(Some(ms)), None) => {
                    let time = DateTime::from_timestamp_millis(i64::try_from(ms).unwrap()).unwrap();
                    assert_eq!(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(), wanted, "{line}");
                }
                (found, _) => panic!("{line}\n{found:?}"),
            }
            cases += 1;
        }
        assert!(cases > 50, "{cases} cases");
    }

    #[test]
    fn units_and_zones_are_named_as_the_field_does() {
        assert!("min".parse::<TimeUnit>().unwrap_err().contains("ms, us or ns"));
        assert!(zone("Berlin").unwrap_err().contains("Europe/Berlin"));
        assert!(TimeUnit::ALL.iter().all(|unit| unit.to_string().parse() == Ok(*unit)));
    }
}
