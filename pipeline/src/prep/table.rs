//! A table of values that somebody computed elsewhere: Parquet, CSV or JSON lines.
//!
//! In: a file with a column `sample_id`, or `key` (with `source_shard` if keys repeat between
//! shards), and value columns. Out: which row has which key, and the values as nullable columns.
//! The whole table is held in memory: about 64 bytes a row and its values. Types of CSV and JSON
//! are inferred over the whole column: bool, int64, float64, else text.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{DataType, Field, Schema};
use catlip_schemas::SampleId;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::error::ChangeError;
use crate::error::PrepError;
use crate::source::byte_order_mark::text_without_mark;

/// Columns that say which row is meant; all others are values.
const KEY_COLUMNS: [&str; 3] = ["sample_id", "key", "source_shard"];

/// Which row of the table belongs to which row of a data set.
#[derive(Clone, Debug)]
pub enum Keys {
    /// By sample id.
    Ids(HashMap<SampleId, u32>),
    /// By WebDataset key, which must be unique in the data set.
    Names(HashMap<String, u32>),
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Names(names) => names.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A table with its keys.
#[derive(Clone, Debug)]
pub struct Table {
    /// The line of the file on which each row begins; none for Parquet, which has no lines.
    lines: Vec<u32>,
    /// Which row is which.
    pub keys: Keys,
    /// The value columns, all nullable.
    pub values: RecordBatch,
    /// BLAKE3 of the file, 32 hex digits.
    pub hash: String,
}

impl Table {
    /// Reads the table at `path`; its name says what it is: `.parquet`, `.csv` or `.jsonl`.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Table`] with the row or column; [`PrepError::Io`], [`PrepError::Parquet`].
    pub fn read(path: &Path) -> Result<Self, PrepError> {
        let wrong = |message: String| -> PrepError {
            ChangeError::Table { path: path.into(), message }.into()
        };
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let bytes = std::fs::read(path).map_err(|e| PrepError::io("read", path, e))?;
        let hash = blake3::hash(&bytes).to_hex()[..32].to_owned();
        let text = || {
            let wrong = |e: std::str::Utf8Error| format!("it is not UTF-8: {e}");
            std::str::from_utf8(&bytes).map_err(wrong)
        };
        let (columns, lines) = match ending.as_deref() {
            Some("parquet") => (read_parquet(path)?, Vec::new()),
            Some("csv") => text().and_then(read_csv).map_err(wrong)?.typed(),
            Some("jsonl" | "ndjson" | "json") => {
                text().and_then(read_json_lines).map_err(wrong)?.typed()
            }
            _ => return Err(wrong("its name ends neither in .parquet, .csv nor .jsonl".into())),
        };
        Self::from_columns(columns, lines, hash).map_err(wrong)
    }

    /// Where a row stands in the file, as people find it: `line 7`, or `row 7` of Parquet, from 1.
    pub fn place(&self, row: usize) -> String {
        place(&self.lines, row)
    }

    fn from_columns(
        columns: Vec<(String, ArrayRef)>,
        lines: Vec<u32>,
        hash: String,
    ) -> Result<Self, String> {
        let find = |name: &str| columns.iter().find(|(n, _)| n == name).map(|(_, c)| c);
        let keys = match (find("sample_id"), find("key"), find("source_shard")) {
            (Some(ids), _, _) => Keys::Ids(by_key(ids.len(), &lines, |row| sample_id(ids, row))?),
            (None, Some(keys), Some(shards)) => Keys::Ids(by_key(keys.len(), &lines, |row| {
                let key = text(keys, row, "key")?;
                Ok(SampleId::new(&text(shards, row, "source_shard")?, key.as_bytes()))
            })?),
            (None, Some(keys), None) => {
                Keys::Names(by_key(keys.len(), &lines, |row| text(keys, row, "key"))?)
            }
            (None, None, _) => return Err(no_key_column(&columns)),
        };
        if keys.is_empty() {
            return Err("it has columns and no row".to_owned());
        }
        let values: Vec<(String, ArrayRef)> =
            columns.into_iter().filter(|(n, _)| !KEY_COLUMNS.contains(&n.as_str())).collect();
        if values.is_empty() {
            return Err("it has no column beside the keys".to_owned());
        }
        let fields: Vec<Field> = values
            .iter()
            .map(|(name, column)| Field::new(name, column.data_type().clone(), true))
            .collect();
        let columns = values.into_iter().map(|(_, column)| column).collect();
        let values = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|e| e.to_string())?;
        Ok(Self { lines, keys, values, hash })
    }
}

/// `line 7`, or `row 7` of a table without lines.
fn place(lines: &[u32], row: usize) -> String {
    match lines.get(row) {
        Some(line) => format!("line {line}"),
        None => format!("row {}", row + 1),
    }
}

/// A text file without a header has its first row's cells for names.
fn no_key_column(columns: &[(String, ArrayRef)]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = columns.iter().map(|(name, _)| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        let rest = names.len() - SHOWN;
        names.truncate(SHOWN);
        names.push(format!("and {rest} more"));
    }
    format!(
        "it has neither a column sample_id nor key, but {} (the first row of a CSV names its \
         columns)",
        names.join(", ")
    )
}

fn by_key<K: Eq + std::hash::Hash + std::fmt::Debug + Clone>(
    rows: usize,
    lines: &[u32],
    key: impl Fn(usize) -> Result<K, String>,
) -> Result<HashMap<K, u32>, String> {
    let mut all = HashMap::with_capacity(rows);
    for row in 0..rows {
        let key = key(row).map_err(|message| format!("{}: {message}", place(lines, row)))?;
        let number = u32::try_from(row).map_err(|_| "it has more than 4294967295 rows")?;
        if let Some(first) = all.insert(key.clone(), number) {
            let (first, second) = (place(lines, first as usize), place(lines, row));
            return Err(format!("{first} and {second} have the same key {key:?}"));
        }
    }
    Ok(all)
}

fn sample_id(column: &ArrayRef, row: usize) -> Result<SampleId, String> {
    let from = |bytes: &[u8]| {
        let id = bytes.try_into().map_err(|_| format!("sample_id has {} bytes", bytes.len()))?;
        Ok(SampleId(id))
    };
    match column.data_type() {
        DataType::FixedSizeBinary(16) => from(column.as_fixed_size_binary().value(row)),
        DataType::Binary => from(column.as_binary::<i32>().value(row)),
        _ => text(column, row, "sample_id")?
            .parse()
            .map_err(|e: catlip_schemas::SchemaError| e.to_string()),
    }
}

fn text(column: &ArrayRef, row: usize, name: &str) -> Result<String, String> {
    if column.is_null(row) {
        return Err(format!("{name} is null"));
    }
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().value(row).to_owned()),
        // Keys such as 000017 must not have lost their zeros, so a number is no key.
        other => Err(format!("{name} is {other}, expected text")),
    }
}

fn read_parquet(path: &Path) -> Result<Vec<(String, ArrayRef)>, PrepError> {
    let wrong = |e: &parquet::errors::ParquetError| PrepError::parquet("read", path, e);
    let file = File::open(path).map_err(|e| PrepError::io("read", path, e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(&e))?;
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder
        .build()
        .map_err(|e| wrong(&e))?
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(&e.into()))?;
    let all =
        arrow_select::concat::concat_batches(&schema, &batches).map_err(|e| wrong(&e.into()))?;
    let names = schema.fields().iter().map(|field| field.name().clone());
    Ok(names.zip(all.columns().iter().cloned()).collect())
}

/// Names of columns, and the cells of each, `None` where there is none.
type Columns = Vec<(String, Vec<Option<Value>>)>;

/// A table that was written as text.
struct Cells {
    columns: Columns,
    /// The line on which each row begins, from 1.
    lines: Vec<u32>,
}

/// RFC 4180: commas, quotes doubled inside quotes, line ends inside quotes. Nothing is null but an
/// empty cell without quotes.
fn read_csv(text: &str) -> Result<Cells, String> {
    let mut rows = csv_rows(text_without_mark(text))?.into_iter();
    let (first, header) = rows.next().ok_or("it is empty")?;
    let mut columns: Columns =
        header.into_iter().map(|name| (name.unwrap_or_default(), Vec::new())).collect();
    let mut lines = Vec::new();
    for (line, row) in rows {
        if row.len() != columns.len() {
            let (found, expected) = (row.len(), columns.len());
            return Err(format!(
                "line {line} has {found} cells, line {first} names {expected} columns"
            ));
        }
        lines.push(line);
        for ((name, column), cell) in columns.iter_mut().zip(row) {
            // Keys stay as they are written: 000017 is no number.
            let as_text = KEY_COLUMNS.contains(&name.as_str());
            let value = |cell: String| match (as_text, serde_json::from_str(&cell)) {
                (false, Ok(value @ (Value::Number(_) | Value::Bool(_)))) => value,
                _ => Value::String(cell),
            };
            column.push(cell.map(value));
        }
    }
    Ok(Cells { columns, lines })
}

/// The cells of a row.
type CsvRow = Vec<Option<String>>;

/// The rows that are not empty, each with the line on which it begins.
fn csv_rows(text: &str) -> Result<Vec<(u32, CsvRow)>, String> {
    let (mut rows, mut row, mut cell) = (Vec::new(), CsvRow::new(), None::<String>);
    let mut chars = text.chars().peekable();
    let mut in_quotes = false;
    // Of this character, of the row, and of the last quote that was opened.
    let (mut line, mut begin, mut quote) = (1, 1, 1);
    while let Some(char) = chars.next() {
        line += u32::from(char == '\n');
        match char {
            '"' if in_quotes && chars.peek() == Some(&'"') => {
                chars.next();
                cell.get_or_insert_default().push('"');
            }
            '"' if in_quotes => in_quotes = false,
            '"' if cell.is_none() => {
                (in_quotes, quote) = (true, line);
                cell = Some(String::new());
            }
            _ if in_quotes => cell.get_or_insert_default().push(char),
            ',' => row.push(cell.take()),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                row.push(cell.take());
                rows.push((begin, std::mem::take(&mut row)));
                begin = line;
            }
            _ => cell.get_or_insert_default().push(char),
        }
    }
    if in_quotes {
        return Err(format!("a quote that begins on line {quote} is not closed"));
    }
    if cell.is_some() || !row.is_empty() {
        row.push(cell);
        rows.push((begin, row));
    }
    rows.retain(|(_, row)| row.len() > 1 || row.first().is_some_and(Option::is_some));
    Ok(rows)
}

fn read_json_lines(text: &str) -> Result<Cells, String> {
    let mut columns: Columns = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut lines = Vec::new();
    let text = text_without_mark(text);
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let wrong = |e: String| format!("line {number}: {e}");
        let value: Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let Value::Object(object) = value else {
            return Err(wrong("it is no JSON object".to_owned()));
        };
        for (name, value) in object {
            let at = *index.entry(name.clone()).or_insert_with(|| {
                columns.push((name, Vec::new()));
                columns.len() - 1
            });
            columns[at].1.resize(lines.len(), None);
            columns[at].1.push((!value.is_null()).then_some(value));
        }
        lines.push(number);
    }
    columns.iter_mut().for_each(|(_, cells)| cells.resize(lines.len(), None));
    Ok(Cells { columns, lines })
}

impl Cells {
    /// The columns with their types, and the line of each row.
    fn typed(self) -> (Vec<(String, ArrayRef)>, Vec<u32>) {
        (typed_columns(self.columns), self.lines)
    }
}

/// The narrowest of bool, int64, float64 and text that holds every cell of a column.
fn typed_columns(columns: Columns) -> Vec<(String, ArrayRef)> {
    let typed = |cells: &[Option<Value>]| -> ArrayRef {
        let all = |test: fn(&Value) -> bool| cells.iter().flatten().all(test);
        let each = || cells.iter().map(Option::as_ref);
        let is_empty = cells.iter().flatten().next().is_none();
        if !is_empty && all(Value::is_boolean) {
            return Arc::new(each().map(|c| c.and_then(Value::as_bool)).collect::<BooleanArray>());
        }
        if !is_empty && all(Value::is_i64) {
            return Arc::new(each().map(|c| c.and_then(Value::as_i64)).collect::<Int64Array>());
        }
        if !is_empty && all(Value::is_number) {
            return Arc::new(each().map(|c| c.and_then(Value::as_f64)).collect::<Float64Array>());
        }
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Arc::new(each().map(|c| c.map(text)).collect::<StringArray>())
    };
    columns.into_iter().map(|(name, cells)| (name, typed(&cells))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Table, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Table::read(&path).map_err(|e| e.to_string().replace(path.to_str().unwrap(), name))
    }

    fn shape(table: &Table) -> String {
        let schema = table.values.schema();
        let fields = schema.fields().iter().map(|f| format!("{}:{}", f.name(), f.data_type()));
        fields.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn csv_is_read_with_quotes_and_empty_cells() {
        let text = "key,score,text,n\r\n007,0.5,\"a \"\"b\"\", c\nd\",1\r\n8,,\"\",\r\n";
        let table = read("t.csv", text).unwrap();
        assert_eq!(shape(&table), "score:Float64 text:Utf8 n:Int64");
        assert!(matches!(&table.keys, Keys::Names(names) if names["007"] == 0 && names["8"] == 1));
        let texts = table.values.column(1).as_string::<i32>().clone();
        assert_eq!((texts.value(0), texts.value(1)), ("a \"b\", c\nd", ""));
        assert_eq!(table.values.column(0).null_count() + table.values.column(2).null_count(), 2);
    }

    #[test]
    fn json_lines_may_lack_fields() {
        let text = "{\"key\":\"a\",\"x\":1}\n\n{\"y\":true,\"key\":\"b\",\"x\":2.5}\n";
        let table = read("t.jsonl", text).unwrap();
        assert_eq!(shape(&table), "x:Float64 y:Boolean");
        assert!(table.values.column(1).is_null(0) && !table.values.column(1).is_null(1));
    }

    #[test]
    fn key_and_shard_are_a_sample_id() {
        let table = read("t.csv", "source_shard,key,x\na.tar,k,1\n").unwrap();
        let id = SampleId::new("a.tar", b"k");
        assert!(matches!(&table.keys, Keys::Ids(ids) if ids[&id] == 0));
    }

    #[test]
    fn lines_are_those_of_the_file_behind_empty_ones_and_quotes() {
        let text = "\u{feff}\nkey,x\n\"a\",\"1\n2\"\n\nb,3\nb,4\n";
        let error = read("t.csv", text).unwrap_err();
        assert_eq!(error, "t.csv: line 6 and line 7 have the same key \"b\"");
        let table = read("t.csv", &text[..text.len() - 4]).unwrap();
        assert_eq!(
            (table.keys.len(), table.place(0), table.place(1)),
            (2, "line 3".into(), "line 6".into())
        );
        let json = "\u{feff}{\"key\":\"a\",\"x\":1}\n\n{\"key\":\"a\",\"x\":1}\n";
        let error = read("t.jsonl", json).unwrap_err();
        assert_eq!(error, "t.jsonl: line 1 and line 3 have the same key \"a\"");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |name: &str, text: &str| read(name, text).unwrap_err();
        assert_eq!(
            wrong("t.csv", "key,x\na,1\nb\n"),
            "t.csv: line 3 has 1 cells, line 1 names 2 columns"
        );
        assert_eq!(
            wrong("t.csv", "00001,0.5\n00002,1\n"),
            "t.csv: it has neither a column sample_id nor key, but `00001`, `0.5` (the first row \
             of a CSV names its columns)"
        );
        assert_eq!(wrong("t.csv", "key,x\n"), "t.csv: it has columns and no row");
        assert_eq!(wrong("t.csv", "key\n1\n"), "t.csv: it has no column beside the keys");
        assert!(
            wrong("t.csv", "key,x\na,1\na,2\n").contains("line 2 and line 3 have the same key")
        );
        assert!(wrong("t.csv", "key,x\n\"a,1\n").contains("that begins on line 2 is not closed"));
        assert!(wrong("t.jsonl", "{\"key\":\"a\",\"x\":1}\n[]\n").contains("line 2"));
        assert!(wrong("t.jsonl", "{\"key\":7,\"x\":1}\n").contains("line 1: key is Int64"));
        assert!(wrong("t.csv", "sample_id,x\nzz,1\n").contains("`zz` is no sample id"));
        assert!(wrong("t.txt", "").contains("ends neither in"));
    }
}
