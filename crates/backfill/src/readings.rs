//! The readings of times by column: units and zones that the operator states.

use crate::columns::{self, Input};
use crate::times::{TimeReading, TimeUnit, ZeroTime, zone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Units and zones of time columns, by `TABLE.NAME`, `NAME`, or the empty name for all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readings {
    units: BTreeMap<String, TimeUnit>,
    zones: BTreeMap<String, String>,
    zero: ZeroTime,
}

impl Readings {
    /// States a unit: `UNIT` for all columns, `NAME=UNIT` or `TABLE.NAME=UNIT` for one.
    ///
    /// # Errors
    /// A sentence, if there is no such unit or column.
    pub fn set_unit(&mut self, assignment: &str) -> Result<(), String> {
        let (column, unit) = split(assignment)?;
        self.units.insert(column.to_owned(), unit.parse()?);
        Ok(())
    }

    /// States a zone: `ZONE` for all columns, `NAME=ZONE` or `TABLE.NAME=ZONE` for one.
    ///
    /// # Errors
    /// A sentence, if there is no such zone or column.
    pub fn set_zone(&mut self, assignment: &str) -> Result<(), String> {
        let (column, name) = split(assignment)?;
        zone(name)?;
        self.zones.insert(column.to_owned(), name.to_owned());
        Ok(())
    }

    /// States the meaning of a time of 0.
    pub fn set_zero(&mut self, zero: ZeroTime) {
        self.zero = zero;
    }

    /// Returns the readings of columns that a mapping has read already.
    pub(crate) fn mapped() -> &'static Self {
        static MAPPED: Readings = Readings { units: BTreeMap::new(), zones: BTreeMap::new(), zero: ZeroTime::Reject };
        &MAPPED
    }

    /// Returns the reading of a column.
    pub(crate) fn of(&self, input: Input, name: &str) -> TimeReading {
        let zone_name = find(&self.zones, input, name);
        TimeReading {
            unit: find(&self.units, input, name).copied().unwrap_or_default(),
            zone: zone_name.and_then(|name| zone(name).ok()),
            zero: self.zero,
        }
    }
}

fn find<'m, T>(all: &'m BTreeMap<String, T>, input: Input, name: &str) -> Option<&'m T> {
    if all.is_empty() {
        return None;
    }
    all.get(&format!("{input}.{name}")).or_else(|| all.get(name)).or_else(|| all.get(""))
}

fn split(assignment: &str) -> Result<(&str, &str), String> {
    let Some((column, value)) = assignment.split_once('=') else { return Ok(("", assignment)) };
    columns::known(column)?;
    if !column.ends_with("_ms") {
        return Err(format!("{column} is not a time: choose a column whose name ends with _ms"));
    }
    Ok((column, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_the_reading_nearest_to_it() {
        let mut readings = Readings::default();
        for unit in ["s", "read_at_ms=us", "marks.read_at_ms=ns"] {
            readings.set_unit(unit).unwrap();
        }
        readings.set_zone("reads.read_at_ms=Europe/Berlin").unwrap();
        let unit = |input, name| readings.of(input, name).unit;
        assert_eq!(unit(Input::Messages, "sent_at_ms"), TimeUnit::Seconds);
        assert_eq!(unit(Input::Reads, "read_at_ms"), TimeUnit::Microseconds);
        assert_eq!(unit(Input::Marks, "read_at_ms"), TimeUnit::Nanoseconds);
        assert_eq!(readings.of(Input::Reads, "read_at_ms").zone.unwrap().name(), "Europe/Berlin");
        assert!(readings.of(Input::Marks, "read_at_ms").zone.is_none());
        for wrong in ["days", "=s", "seen_at=s", "user_id=s", "members.sent_at_ms=s"] {
            assert!(readings.set_unit(wrong).is_err(), "{wrong}");
        }
        assert!(readings.set_zone("Berlin").is_err());
    }
}
