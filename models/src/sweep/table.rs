//! A file of CSV that grows.

use super::SweepError;
use crate::report;
use serde::{
    de::{value, Error as _, Visitor},
    forward_to_deserialize_any, Deserialize, Deserializer, Serialize,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
};

/// A CSV file and its rows.
#[derive(Debug)]
pub(crate) struct Table<T> {
    path: PathBuf,
    file: File,
    pub(crate) rows: Vec<T>,
}

impl<T: Serialize + for<'a> Deserialize<'a>> Table<T> {
    /// Reads the file, if there is one. Its first column has to be called `first`.
    pub(crate) fn open(path: PathBuf, first: &str) -> Result<Self, SweepError> {
        let failed = |source| SweepError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let (name, after) = text.split_at(first.len().min(text.len()));
        let ends = after.first().is_none_or(|byte| b",\r\n".contains(byte));
        if !first.as_bytes().starts_with(name) || !ends {
            let foreign = io::Error::other(format!("it does not begin with a column `{first}`"));
            return Err(SweepError::Csv { path, source: foreign.into() });
        }
        let begun = text.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
        // A line that was being written when the program was killed.
        text.truncate(whole_lines(&text));
        let rows = csv::Reader::from_reader(&*text).into_deserialize().collect::<Result<_, _>>();
        let rows: Vec<T> = rows.map_err(|source| SweepError::Csv { path: path.clone(), source })?;
        if rows.is_empty() {
            if !begins_headings(&begun, &headings::<T>()) {
                let foreign = io::Error::other("it has no rows, and other columns");
                return Err(SweepError::Csv { path, source: foreign.into() });
            }
            // Headings are written with the first row.
            text.clear();
        }
        file.set_len(text.len() as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut table = Self { path, file, rows };
        if table.lacks_columns(&text)? {
            table.rewrite()?;
        }
        Ok(table)
    }

    /// Whether the file is of an earlier version, which had fewer columns at the end: rows that are
    /// appended would have more columns than it has headings.
    fn lacks_columns(&self, text: &[u8]) -> Result<bool, SweepError> {
        let headings = |text: &[u8]| {
            text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end().to_vec()
        };
        let now = headings(&self.text(self.rows.get(..1).unwrap_or_default(), true)?);
        let then = [headings(text), b",".to_vec()].concat();
        Ok(now.starts_with(&then))
    }

    /// Writes the rows below those that are there: all of them, or none.
    pub(crate) fn append(&mut self, rows: Vec<T>) -> Result<(), SweepError> {
        let text = self.text(&rows, self.rows.is_empty())?;
        let written = self.file.stream_position().and_then(|end| {
            let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
            written.inspect_err(|_| drop(self.cut(end)))
        });
        written.map_err(|source| SweepError::Io { path: self.path.clone(), source })?;
        self.rows.extend(rows);
        Ok(())
    }

    /// Removes the part of a line that a full disk has left.
    fn cut(&mut self, end: u64) -> io::Result<u64> {
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end))
    }

    /// Drops all other rows.
    pub(crate) fn keep(&mut self, wanted: impl Fn(&T) -> bool) -> Result<(), SweepError> {
        if self.rows.iter().all(&wanted) {
            return Ok(());
        }
        self.rows.retain(wanted);
        self.rewrite()
    }

    fn rewrite(&mut self) -> Result<(), SweepError> {
        report::write(&self.path, self.text(&self.rows, !self.rows.is_empty())?)?;
        let failed = |source| SweepError::Io { path: self.path.clone(), source };
        self.file = OpenOptions::new().write(true).open(&self.path).map_err(failed)?;
        self.file.seek(SeekFrom::End(0)).map(drop).map_err(failed)
    }

    fn text(&self, rows: &[T], with_headings: bool) -> Result<Vec<u8>, SweepError> {
        let failed = |source| SweepError::Csv { path: self.path.clone(), source };
        let mut writer =
            csv::WriterBuilder::new().has_headers(with_headings).from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(failed)?;
        }
        writer
            .into_inner()
            .map_err(|error| SweepError::Io { path: self.path.clone(), source: error.into_error() })
    }
}

/// Whether `line` is the beginning of these headings: all of them or fewer, as an earlier version
/// wrote them, or what a kill has left of them.
fn begins_headings(line: &[u8], headings: &[&str]) -> bool {
    let all = headings.join(",");
    let after = all.as_bytes().strip_prefix(line.trim_ascii_end());
    // A line that has ended ends with a whole heading.
    after.is_some_and(|after| !line.ends_with(b"\n") || matches!(after, [] | [b',', ..]))
}

/// The headings of a row: the names of its fields.
fn headings<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = &[][..];
    // An error by intention: the names are known by then, and there is no value to read.
    let _ = T::deserialize(FieldNames(&mut names));
    names.to_vec()
}

/// Writes down the names of the fields that a struct asks for, and reads nothing.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, value::Error> {
        *self.0 = fields;
        Err(value::Error::custom("no value"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("no struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The length of the rows that are whole. A newline within quotes is part of a cell, and ends no
/// row.
fn whole_lines(text: &[u8]) -> usize {
    let (mut whole, mut quoted) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        quoted ^= *byte == b'"';
        if *byte == b'\n' && !quoted {
            whole = at + 1;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        #[serde(default)]
        bytes: Option<usize>,
    }

    // Fails if a line that is added to a file of fewer columns makes it unreadable, or if a file
    // with a column that is not known here loses it.
    #[test]
    fn columns_are_added_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "name\nold\n").unwrap();
        let row = |name: &str, bytes| Row { name: name.to_owned(), bytes };
        Table::open(path.clone(), "name").unwrap().append(vec![row("new", Some(3))]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "name,bytes\nold,\nnew,3\n");
        let rows = Table::<Row>::open(path.clone(), "name").unwrap().rows;
        assert_eq!(rows, [row("old", None), row("new", Some(3))]);
        std::fs::write(&path, "name,bytes,more\nold,1,2\n").unwrap();
        Table::<Row>::open(path.clone(), "name").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "name,bytes,more\nold,1,2\n");
    }

    // Fails if a file of somebody else's is emptied because it has no row of ours.
    #[test]
    fn files_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        for theirs in [
            "my notes",
            "my notes\n",
            "names,bytes\n",
            "nap",
            "\n",
            // The first column has our name, and there are no rows.
            "name,mine\n",
            "name,mine\r\n",
            "name,mine",
            "name,byte\n",
            "name,bytes,mine\n",
            "name,\n",
        ] {
            std::fs::write(&path, theirs).unwrap();
            let error = Table::<Row>::open(path.clone(), "name").unwrap_err();
            assert!(matches!(error, SweepError::Csv { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        }
    }

    // The program is killed at any byte of a row, and goes on later. Fails if the headings are
    // written twice, or not at all, or if a newline within a cell is taken for the end of a row.
    #[test]
    fn rows_are_appended_to_what_a_kill_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let row = |name: &str| Row { name: name.to_owned(), bytes: None };
        let whole = "name,bytes\none,\n\"in \"\"two\"\"\nlines\",\nthree,\n";
        for keep in 0..=whole.len() {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let mut table = Table::open(path.clone(), "name").unwrap();
            table.append(vec![row("new")]).unwrap();
            let rows = Table::<Row>::open(path.clone(), "name").unwrap().rows;
            assert_eq!(rows, table.rows, "{keep}");
        }
    }
}
