//! Tables as other systems leave them: the right values, or a reason per row. Each case here was
//! once imported wrongly or refused without need.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use arrow_array::{
    ArrayRef, BinaryArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array, NullArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use common::plan;
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use receipts_analytics::table::{Format, Options};
use receipts_analytics::{Scratch, UpTo, span};
use receipts_backfill::{Error, ImportReport, Input, Plan, Source, ZeroTime, check, import};
use receipts_event::decode;
use receipts_fold::Limits;
use receipts_log::embedded::EmbeddedLog;
use receipts_log::{Inspect as _, Topic};
use serde_json::{Value, json};
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const SENT: u64 = 1_795_181_400_000;

struct Case {
    dir: TempDir,
    log: EmbeddedLog,
    plan: Plan,
}

fn cases(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

impl Case {
    fn new(tables: &[(Input, &Path)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(1)).unwrap();
        let source = |(input, path): &(Input, &Path)| Source::new(*input, &[(*path).to_owned()], None).unwrap();
        let plan = plan(dir.path(), tables.iter().map(source).collect());
        Self { dir, log, plan }
    }

    /// Writes a table, and adds it to the import.
    fn table(&mut self, input: Input, name: &str, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.plan.sources.push(Source::new(input, std::slice::from_ref(&path), None).unwrap());
        path
    }

    fn import(&self) -> ImportReport {
        import(&self.log, &self.plan, &()).unwrap()
    }

    fn rejects(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.plan.rejects).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the events without their ids.
    fn events(&self) -> Vec<Value> {
        let records = self.log.read(Topic::Events, 0, 0, usize::MAX).unwrap();
        let event = |value: &[u8]| {
            let mut event: Value = serde_json::from_slice(&decode(value).unwrap().to_json()).unwrap();
            event.as_object_mut().unwrap().remove("event_id");
            event
        };
        records.iter().map(|record| event(record.value.as_ref().unwrap())).collect()
    }
}

fn parquet(dir: &Path, name: &str, columns: Vec<(&str, ArrayRef)>, compression: Compression) -> PathBuf {
    let path = dir.join(name);
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn members_without_time_come_first_wherever_they_stand() {
    let mut case = Case::new(&[(Input::Members, &cases("members-null-last.csv"))]);
    case.table(
        Input::Messages,
        "messages.csv",
        format!("conversation_id,message_id,sender_id,sent_at_ms\nc1,m1,ann,{SENT}\n").as_bytes(),
    );
    let done = case.import();
    assert_eq!((done.counts.rows[&Input::Members], &done.counts.rejected.len()), (3, &0), "{:?}", case.rejects());
    let scratch = Scratch { limits: Limits::default(), memory_bytes: 8 << 20, snapshots: None };
    let folded = scratch.fold(&case.log, &span(&case.log, 0, UpTo::End).unwrap(), &()).unwrap();
    let receipt = folded.state.receipt_of(0).unwrap().unwrap();
    assert_eq!(receipt.counts.unwrap().audience_count, 2, "bob and cid");
    let joined = &case.events()[0];
    assert_eq!(joined["joined"], json!(["cid"]), "before those with a time");
}

#[test]
fn minus_infinity_and_copy_nulls_are_no_time() {
    let mut case = Case::new(&[]);
    let rows = b"conversation_id\tuser_id\tat_ms\nc1\tann\t2026-11-20 12:05:00+00\nc1\tbob\t\\N\nc1\tcid\t-infinity\n";
    case.table(Input::Members, "members.copy", rows);
    case.import();
    assert_eq!(case.rejects(), Vec::<Value>::new());
    assert_eq!(case.events()[0]["joined"], json!(["bob", "cid"]));
}

#[test]
fn a_withdrawn_read_is_rejected_or_unread() {
    let mut case = Case::new(&[(Input::Reads, &cases("reads-zero.csv"))]);
    assert_eq!(case.import().counts.rejected[&Input::Reads], 1);
    let reject = &case.rejects()[0];
    assert_eq!((&reject["row"], &reject["column"]), (&json!(1), &json!("read_at_ms")));
    assert!(reject["reason"].as_str().unwrap().contains("--zero-time unread"), "{reject}");
    let wanted = case.events();
    assert_eq!((wanted.len(), &wanted[0]["reader_id"]), (1, &json!("bob")));

    case = Case::new(&[(Input::Reads, &cases("reads-zero.csv"))]);
    case.plan.readings.set_zero(ZeroTime::Unread);
    let counts = case.import().counts;
    assert_eq!((counts.unread, counts.rejected.len()), (1, 0));
    assert_eq!(case.events(), wanted);
}

#[test]
fn microseconds_need_a_stated_unit() {
    let mut case = Case::new(&[(Input::Reads, &cases("reads-microseconds.csv"))]);
    assert_eq!(case.import().written, 0);
    assert!(case.rejects()[0]["reason"].as_str().unwrap().contains("--time-unit us"));
    case = Case::new(&[(Input::Reads, &cases("reads-microseconds.csv"))]);
    case.plan.readings.set_unit("reads.read_at_ms=us").unwrap();
    case.import();
    assert_eq!(case.events()[0]["read_at_ms"], json!(1_795_181_500_000_u64));
}

#[test]
fn copy_text_is_read_as_postgresql_writes_it() {
    let case = Case::new(&[(Input::Reads, &cases("reads-copy.tsv"))]);
    let counts = case.import().counts;
    assert_eq!((counts.unread, counts.rejected.len()), (1, 0), "{:?}", case.rejects());
    let events = case.events();
    let [read] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&read["reader_id"], &read["read_at_ms"]), (&json!("bob"), &json!(1_795_176_300_000_u64)));

    let mut case = Case::new(&[]);
    case.table(Input::Reads, "bare.tsv", b"c1\tm1\tbob\t2026-11-20 13:05:00\n");
    let sentence = check(&case.plan).unwrap_err().to_string();
    assert!(sentence.contains("--header"), "{sentence}");
    let names = ["conversation_id", "message_id", "user_id", "read_at_ms"];
    case.plan.sources[0].options = Options { header: Some(names.map(str::to_owned).to_vec()), ..Options::default() };
    case.plan.readings.set_zone("Europe/Berlin").unwrap();
    case.import();
    assert_eq!(case.events()[0]["read_at_ms"], json!(1_795_176_300_000_u64), "{:?}", case.rejects());
}

/// Ids of every numeric type, UUIDs and binary text are what a person would write, with every
/// codec.
#[test]
fn parquet_ids_are_never_the_name_of_a_type() {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let dir = tempfile::tempdir().unwrap();
    let column = |name: &str, ids: ArrayRef, compression| {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("conversation_id", Arc::new(StringArray::from(vec!["c1"]))),
            ("message_id", ids),
            ("sender_id", Arc::new(Float64Array::from(vec![7.0]))),
            ("sent_at_ms", Arc::new(TimestampMicrosecondArray::from(vec![1_795_181_400_000_123]))),
            ("recipients", Arc::new(NullArray::new(1))),
        ];
        parquet(dir.path(), name, columns, compression)
    };
    let decimal = |value, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale).unwrap())
    };
    let table: Vec<(&str, ArrayRef, Result<&str, &str>)> = vec![
        ("double", Arc::new(Float64Array::from(vec![12.0])), Ok("12")),
        ("fraction", Arc::new(Float64Array::from(vec![12.5])), Err("whole")),
        ("long", Arc::new(Int64Array::from(vec![i64::MAX])), Ok("9223372036854775807")),
        ("huge", decimal(i128::from(u64::MAX) + 1, 0), Ok("18446744073709551616")),
        ("scaled", decimal(4200, 2), Ok("42")),
        ("binary", Arc::new(BinaryArray::from(vec![b"m\xc3\xbc".as_slice()])), Ok("mü")),
        ("bytes", Arc::new(BinaryArray::from(vec![b"\x00\x01".as_slice()])), Err("Binary")),
        (
            "fixed",
            Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].into_iter()).unwrap()),
            Err("FixedSizeBinary(16)"),
        ),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_795_181_400_000_000])), Err("a timestamp")),
    ];
    for (at, (name, ids, wanted)) in table.into_iter().enumerate() {
        let path = column(&format!("{name}.parquet"), ids, codecs[at % codecs.len()]);
        let case = Case::new(&[(Input::Messages, &path)]);
        case.import();
        match (wanted, case.events().as_slice(), case.rejects().as_slice()) {
            (Ok(id), [event], []) => {
                assert_eq!((&event["message_id"], &event["sender_id"]), (&json!(id), &json!("7")), "{name}");
                assert_eq!(event["sent_at_ms"], json!(SENT), "{name}");
            }
            (Err(part), [], [reject]) => {
                assert!(reject["reason"].as_str().unwrap().contains(part), "{name}: {reject}");
                assert_eq!(reject["column"], "message_id");
            }
            (_, events, rejects) => panic!("{name}: {events:?} {rejects:?}"),
        }
    }
}

/// DuckDB, pyarrow and Spark mark UUIDs by a logical type; Spark and Hive write times as INT96.
#[test]
fn parquet_uuids_and_int96_times_are_read() {
    let mut case = Case::new(&[]);
    let path = case.dir.path().join("ids-uuid.parquet");
    let schema = "message m { required binary conversation_id (UTF8); required fixed_len_byte_array(16) message_id (UUID); \
                  required fixed_len_byte_array(16) sender_id (UUID); required int96 sent_at_ms; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = [0x0b, 0x0f, 0, 1, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0x66];
    let id = FixedLenByteArray::from(bytes.to_vec());
    // The Julian day of 2026-11-20, and 13:30 as nanoseconds of the day in two words.
    let (day, nanos) = (2_461_365_u32, (13 * 60 + 30) * 60_000_000_000_u64);
    let mut at = Int96::new();
    at.set_data(nanos as u32, (nanos >> 32) as u32, day);
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("c1")], None, None).unwrap();
    column.close().unwrap();
    for _ in 0..2 {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<FixedLenByteArrayType>().write_batch(std::slice::from_ref(&id), None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&[at], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    case.plan.sources = vec![Source::new(Input::Messages, &[path], None).unwrap()];
    // INT96 is an instant: the zone of zoneless times does not move it.
    case.plan.readings.set_zone("Europe/Berlin").unwrap();
    case.import();
    let events = case.events();
    assert_eq!(events.len(), 1, "{:?}", case.rejects());
    assert_eq!(events[0]["message_id"], json!("0b0f0001-1111-2222-3333-444455556666"));
    assert_eq!((&events[0]["sender_id"], &events[0]["sent_at_ms"]), (&events[0]["message_id"], &json!(SENT)));
}

#[test]
fn many_files_are_one_table_with_own_columns() {
    let mut case = Case::new(&[]);
    let folder = case.dir.path().join("reads");
    fs::create_dir_all(folder.join("tenant=x")).unwrap();
    fs::write(folder.join("a.csv"), "conversation_id;message_id;user_id;read_at_ms\nc1;m1;ann;1795181500000\n")
        .unwrap();
    let second = "{\"conversation_id\":\"c1\",\"message_id\":\"m1\",\"reader_id\":\"bob\",\"read_at_ms\":1795181500.5,\"hidden\":true}\n\
                  {\"conversation_id\":\"c1\"}\n";
    fs::write(folder.join("b.ndjson"), second).unwrap();
    fs::write(
        folder.join("tenant=x/c.csv"),
        "user_id,message_id,conversation_id,read_at_ms\ncid,m1,c1,1795181500000\n",
    )
    .unwrap();
    fs::write(folder.join("_SUCCESS"), "").unwrap();
    case.plan.sources.push(Source::new(Input::Reads, std::slice::from_ref(&folder), None).unwrap());
    let notes = check(&case.plan).unwrap();
    assert!(notes.len() == 2 && notes[0].contains("separates fields by ;"), "{notes:?}");
    assert!(notes[1].contains("tenant is only in the names of folders"), "{notes:?}");
    case.import();
    let readers: Vec<_> = case.events().iter().map(|event| event["reader_id"].clone()).collect();
    assert_eq!(readers, ["ann", "cid"]);
    let rejects = case.rejects();
    let told: Vec<_> = rejects.iter().map(|reject| (reject["row"].clone(), reject["column"].clone())).collect();
    assert_eq!(told, [(json!(1), json!("read_at_ms")), (json!(2), json!("message_id"))], "{rejects:?}");
    assert!(rejects[0]["file"].as_str().unwrap().ends_with("b.ndjson"));

    fs::write(folder.join("d.csv"), "conversation_id,message_id,user_id\n").unwrap();
    let more = Plan { sources: vec![Source::new(Input::Reads, &[folder], None).unwrap()], ..case.plan.clone() };
    let sentence = import(&case.log, &more, &()).unwrap_err();
    assert!(matches!(&sentence, Error::Progress { .. }), "{sentence}");
    assert!(sentence.to_string().contains("and 2 more files"), "{sentence}");
}

/// Times over several files are one sequence, in which a member out of order is rejected.
#[test]
fn the_order_of_times_is_checked_over_all_files() {
    let mut case = Case::new(&[]);
    let row = |user: &str, at: u64| format!("conversation_id,user_id,at_ms\nc1,{user},{at}\n");
    let second = case.table(Input::Members, "2.csv", row("bob", SENT).as_bytes());
    let first = case.table(Input::Members, "1.csv", row("ann", SENT + 1).as_bytes());
    case.plan.sources = vec![Source::new(Input::Members, &[first.clone(), second.clone()], None).unwrap()];
    case.import();
    let rejects = case.rejects();
    assert!(rejects.len() == 1 && rejects[0]["reason"].as_str().unwrap().contains("earlier"), "{rejects:?}");
    assert!(rejects[0]["file"].as_str().unwrap().ends_with("2.csv"));
    let sorted = Source::new(Input::Members, &[second, first], Some(Format::Csv)).unwrap();
    let case = Case { plan: Plan { sources: vec![sorted], ..Case::new(&[]).plan }, ..Case::new(&[]) };
    let plan = Plan {
        progress: case.dir.path().join("p.json"),
        rejects: case.dir.path().join("r.ndjson"),
        ..case.plan.clone()
    };
    assert!(import(&case.log, &plan, &()).unwrap().counts.rejected.is_empty());
}
