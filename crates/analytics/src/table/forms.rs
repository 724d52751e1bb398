//! The JSON form of every Arrow type. It never gives a value that stands for another one: a value
//! without a JSON form is tagged, and only a column that can read the tag takes it.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, RunEndIndexType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use chrono::DateTime;
use receipts_event::hex;
use serde_json::{Map, Value, json};

const DAY_S: i64 = 86_400;

/// What a Parquet column says that its Arrow type does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// Values of 16 bytes are UUIDs.
    pub(super) is_uuid: bool,
    /// Timestamps without a zone are UTC, because the type INT96 has no zones.
    pub(super) is_instant: bool,
}

/// Returns the value of a column in a row.
pub(super) fn value(column: &dyn Array, at: usize, marks: Marks) -> Value {
    if column.is_null(at) {
        return Value::Null;
    }
    let list = |values: ArrayRef| (0..values.len()).map(|at| value(&values, at, marks)).collect();
    match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Utf8 => column.as_string::<i32>().value(at).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(at).into(),
        DataType::Utf8View => column.as_string_view().value(at).into(),
        DataType::Binary => text(column.as_binary::<i32>().value(at)),
        DataType::LargeBinary => text(column.as_binary::<i64>().value(at)),
        DataType::BinaryView => text(column.as_binary_view().value(at)),
        DataType::FixedSizeBinary(16) if marks.is_uuid => uuid(column.as_fixed_size_binary().value(at)).into(),
        DataType::Boolean => column.as_boolean().value(at).into(),
        DataType::Int8 => native::<Int8Type>(column, at).into(),
        DataType::Int16 => native::<Int16Type>(column, at).into(),
        DataType::Int32 => native::<Int32Type>(column, at).into(),
        DataType::Int64 => native::<Int64Type>(column, at).into(),
        DataType::UInt8 => native::<UInt8Type>(column, at).into(),
        DataType::UInt16 => native::<UInt16Type>(column, at).into(),
        DataType::UInt32 => native::<UInt32Type>(column, at).into(),
        DataType::UInt64 => native::<UInt64Type>(column, at).into(),
        DataType::Float16 => double(f64::from(native::<Float16Type>(column, at).to_f32())),
        // A whole number of 24 bits is exact; a larger one may stand for several.
        DataType::Float32 => match native::<Float32Type>(column, at) {
            whole if whole.fract() == 0.0 && whole.abs() > 16_777_216.0 => json!({"$type": "Float32 beyond 2^24"}),
            exact => double(f64::from(exact)),
        },
        DataType::Float64 => double(native::<Float64Type>(column, at)),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(column, at),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(column, at),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(column, at),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(column, at),
        DataType::Timestamp(unit, zone) => {
            let (number, per_second) = match unit {
                TimeUnit::Second => (native::<TimestampSecondType>(column, at), 1),
                TimeUnit::Millisecond => (native::<TimestampMillisecondType>(column, at), 1_000),
                TimeUnit::Microsecond => (native::<TimestampMicrosecondType>(column, at), 1_000_000),
                TimeUnit::Nanosecond => (native::<TimestampNanosecondType>(column, at), 1_000_000_000),
            };
            timestamp(number, per_second, zone.is_some() || marks.is_instant)
        }
        DataType::Date32 => timestamp(i64::from(native::<Date32Type>(column, at)) * DAY_S, 1, false),
        DataType::Date64 => timestamp(native::<Date64Type>(column, at), 1_000, false),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            value(dictionary.values(), dictionary.normalized_keys()[at], marks)
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => run::<Int16Type>(column, at, marks),
            DataType::Int32 => run::<Int32Type>(column, at, marks),
            _ => run::<Int64Type>(column, at, marks),
        },
        DataType::List(_) => list(column.as_list::<i32>().value(at)),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(at)),
        DataType::ListView(_) => list(column.as_list_view::<i32>().value(at)),
        DataType::LargeListView(_) => list(column.as_list_view::<i64>().value(at)),
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(at)),
        DataType::Struct(_) => {
            let row = column.as_struct();
            let fields = row.fields().iter().zip(row.columns());
            Value::Object(fields.map(|(field, column)| (field.name().clone(), value(column, at, marks))).collect())
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(at);
            let key = |at| value(entries.column(0), at, marks).as_str().map(str::to_owned);
            let pairs = (0..entries.len()).map(|at| Some((key(at)?, value(entries.column(1), at, marks))));
            pairs.collect::<Option<Map<_, _>>>().map_or_else(|| unknown(column), Value::Object)
        }
        _ => unknown(column),
    }
}

fn native<T: ArrowPrimitiveType>(column: &dyn Array, at: usize) -> T::Native {
    column.as_primitive::<T>().value(at)
}

fn unknown(column: &dyn Array) -> Value {
    json!({"$type": column.data_type().to_string()})
}

/// Returns a double; JSON has no infinities.
fn double(number: f64) -> Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => number.into(),
        // pandas writes a gap in a column of numbers so.
        None if number.is_nan() => Value::Null,
        None => json!({"$type": "infinite Float"}),
    }
}

fn decimal<T: DecimalType>(column: &dyn Array, at: usize) -> Value {
    let array = column.as_primitive::<T>();
    json!({"$numberDecimal": T::format_decimal(array.value(at), array.precision(), array.scale())})
}

fn run<T: RunEndIndexType>(column: &dyn Array, at: usize, marks: Marks) -> Value {
    let array = column.as_run::<T>();
    value(array.values(), array.get_physical_index(at), marks)
}

/// Returns bytes that are text. Zeros and other controls are no text that a person would write.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control()) => text.into(),
        _ => json!({"$type": "Binary that is not text"}),
    }
}

fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
}

/// Returns a timestamp as MongoDB's Extended JSON does; without `Z` if it has no zone.
fn timestamp(number: i64, per_second: i64, has_zone: bool) -> Value {
    // The ends of the range are infinities: `-infinity` of DuckDB and PostgreSQL.
    if number <= i64::MIN + 1 || number == i64::MAX {
        return json!({"$date": if number < 0 { "-infinity" } else { "infinity" }});
    }
    let (seconds, rest) = (number.div_euclid(per_second), number.rem_euclid(per_second));
    let nanos = u32::try_from(rest * (1_000_000_000 / per_second)).unwrap_or(0);
    let Some(time) = DateTime::from_timestamp(seconds, nanos) else {
        return json!({"$type": format!("Timestamp beyond the calendar ({number})")});
    };
    let shown = time.format("%Y-%m-%dT%H:%M:%S%.f");
    json!({"$date": if has_zone { format!("{shown}Z") } else { shown.to_string() }})
}
