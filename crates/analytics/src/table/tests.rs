//! Tests of tables: each format, many files, compression, resuming at any row.

use super::*;
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn open(path: &Path, options: &Options, cursor: Cursor) -> Table {
    Table::open(find(&[path.to_owned()], None).unwrap(), options.clone(), cursor).unwrap()
}

fn rest(table: &mut Table) -> Vec<(u64, Result<Value, String>)> {
    std::iter::from_fn(|| table.take().unwrap()).map(|row| (row.number, row.values.map(Value::Object))).collect()
}

fn rows(path: &Path, options: &Options) -> Vec<Value> {
    rest(&mut open(path, options, Cursor::default())).into_iter().map(|(_, row)| row.unwrap()).collect()
}

#[test]
fn rows_are_numbered_and_bad_rows_state_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let csv = write(dir.path(), "t.csv", b"\xef\xbb\xbfa,b\n1,\"x, y\"\n\n2\n\xff,z\n3,\n");
    let ndjson = write(dir.path(), "t.ndjson", b"{\"a\":1,\"b\":null}\n\n[1]\n{\"a\":\n{\"a\":2}");
    let [csv, ndjson] = [csv, ndjson].map(|path| rest(&mut open(&path, &Options::default(), Cursor::default())));
    assert_eq!(csv[0], (1, Ok(json!({"a": "1", "b": "x, y"}))));
    assert!(csv[1].1.as_ref().is_err_and(|why| why.contains("has 1 fields")), "{csv:?}");
    assert!(csv[2].1.as_ref().is_err_and(|why| why.contains("UTF-8")), "{csv:?}");
    assert_eq!(csv[3..], [(4, Ok(json!({"a": "3"})))]);
    assert_eq!((ndjson.len(), &ndjson[0], &ndjson[3]), (4, &(1, Ok(json!({"a": 1}))), &(4, Ok(json!({"a": 2})))));
    assert!(ndjson[1].1.is_err() && ndjson[2].1.is_err());
}

#[test]
fn reading_resumes_at_any_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let csv = b"a;b\n1;\"x\ny\"\n2;\n3;c\n4;d\n".as_slice();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv).unwrap();
    let files = [
        ("t/1.csv", csv.to_vec()),
        ("t/2.csv.gz", gzip.finish().unwrap()),
        ("t/3.ndjson", b"{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}\n".to_vec()),
        ("t/4.ndjson.zst", zstd::encode_all(b"{\"a\":1}\n{\"a\":2}\n".as_slice(), 1).unwrap()),
        ("t/5.copy", b"a\tb\n1\t\\N\n2\tx\\ty\n\\.\n".to_vec()),
        ("t/6.csv", b"".to_vec()),
        ("t/7.csv", b"a,b\n".to_vec()),
        ("t/8.csv", b"a,b\n9,9\n".to_vec()),
    ];
    for (name, bytes) in &files {
        write(dir.path(), name, bytes);
    }
    let folder = dir.path().join("t");
    let open = |cursor| open(&folder, &Options::default(), cursor);
    let mut table = open(Cursor::default());
    let all = rest(&mut table);
    assert_eq!(all.len(), 4 + 4 + 3 + 2 + 2 + 1);
    assert_eq!(table.read_bytes(), files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    for taken in 0..=all.len() {
        let mut table = open(Cursor::default());
        (0..taken).for_each(|_| _ = table.take().unwrap());
        _ = table.peek().unwrap();
        assert_eq!(rest(&mut open(table.cursor())), all[taken..], "from {taken}");
    }
}

#[test]
fn copy_text_has_nulls_and_escapes() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"c1\tm\\\\1\t\\N\r\nx\\ty\t\\x41\\102\t\\\\N\nc2\tends \\\nhere\t-\n\\.\n";
    let path = write(dir.path(), "t.tsv", text);
    let header = Some(["a", "b", "c"].map(str::to_owned).to_vec());
    let options = Options { header, ..Options::default() };
    let wanted = [
        json!({"a": "c1", "b": "m\\1"}),
        json!({"a": "x\ty", "b": "AB", "c": "\\N"}),
        json!({"a": "c2", "b": "ends \nhere", "c": "-"}),
    ];
    assert_eq!(rows(&path, &options), wanted);
    let dashed = Options { null: Some("-".to_owned()), ..options };
    assert_eq!(rows(&path, &dashed)[2], json!({"a": "c2", "b": "ends \nhere"}));
    std::fs::write(&path, b"a\tb\tc\n\\.\nmore\n").unwrap();
    let sentence = open(&path, &Options::default(), Cursor::default()).take().unwrap_err().to_string();
    assert!(sentence.contains("end mark"), "{sentence}");
}

#[test]
fn the_header_line_tells_the_delimiter() {
    let dir = tempfile::tempdir().unwrap();
    for (text, sniffed) in [
        ("a,b\n1,2;3\n", None),
        ("a;b\n1;2,3\n", Some(';')),
        ("a\tb\n1\t2,3\n", Some('\t')),
        ("a|b\n1|x\n", Some('|')),
        ("\"a;;\",b\n1,x\n", None),
        ("a\n1\n", None),
    ] {
        let path = write(dir.path(), "t.csv", text.as_bytes());
        let file = &find(&[path], None).unwrap()[0];
        assert_eq!(header(file, &Options::default()).unwrap().sniffed, sniffed, "{text}");
    }
    let path = write(dir.path(), "t.csv", b"1;NULL\n");
    let header = Some(vec!["a".to_owned(), "b".to_owned()]);
    let options = Options { delimiter: Some(b';'), null: Some("NULL".to_owned()), header };
    assert_eq!(rows(&path, &options), [json!({"a": "1"})]);
}

#[test]
fn folders_and_globs_name_files_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["t/b.csv", "t/a/tenant=x/2.csv", "t/_SUCCESS", "t/.b.csv.crc", "t/_delta_log/0.json", "u.csv"] {
        write(dir.path(), name, b"a\n");
    }
    let names = |paths: &[&str]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| dir.path().join(path)).collect();
        let found = find(&paths, None)?;
        let name = |file: &DataFile| file.path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        Ok::<_, String>(found.iter().map(name).collect::<Vec<_>>())
    };
    assert_eq!(names(&["u.csv", "t"]).unwrap(), ["u.csv", "t/a/tenant=x/2.csv", "t/b.csv"]);
    assert_eq!(names(&["t/*"]).unwrap(), ["t/a/tenant=x/2.csv", "t/b.csv"]);
    assert_eq!(names(&["t/**/*.csv"]).unwrap(), ["t/a/tenant=x/2.csv", "t/b.csv"]);
    let found = find(&[dir.path().join("t/a")], None).unwrap();
    assert_eq!(found[0].folder_columns(), ["tenant"]);
    for (paths, part) in [
        (["t", "t/b.csv"].as_slice(), "given twice"),
        (&["none.csv"], "there is no file"),
        (&["t/*.parquet"], "matches no file"),
        (&["t/_SUCCESS"], "--format"),
    ] {
        let sentence = names(paths).unwrap_err();
        assert!(sentence.contains(part), "{sentence}");
    }
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(names(&["empty"]).unwrap_err().contains("no files"));
}

#[test]
fn files_of_another_kind_say_so() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, part) in [
        (b"PK\x03\x04..".as_slice(), "ZIP"),
        (b"\xff\xfea\0,\0", "UTF-16"),
        (b"PAR1....", "Parquet"),
        (b"BZh9....", "bzip2"),
    ] {
        let path = write(dir.path(), "t.csv", bytes);
        let file = &find(&[path], None).unwrap()[0];
        let sentence = header(file, &Options::default()).unwrap_err().to_string();
        assert!(sentence.contains(part) && sentence.contains("t.csv"), "{sentence}");
    }
}
