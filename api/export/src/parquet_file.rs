//! One Parquet file, written in row groups, and visible only when it is complete.
//!
//! Rows are collected up to [`MAX_GROUP_BYTES`] or [`MAX_GROUP_ROWS`], then written as one row
//! group, one column after the other, compressed with zstd. So about three times
//! [`MAX_GROUP_BYTES`] are in memory, whatever the size of the file. The file is written as
//! `<name>.part`, synced, and renamed: a file without `.part` is complete.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

/// Bytes of values after which a row group is closed.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Rows after which a row group is closed: as many as DuckDB processes as one unit of work.
const MAX_GROUP_ROWS: usize = 122_880;

/// The default level of zstd: fast, with a good ratio.
const ZSTD_LEVEL: i32 = 3;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Only in an optional column.
    Null,
    /// Text or bytes.
    Bytes(Vec<u8>),
    /// A count, or microseconds since 1970 (UTC).
    Long(i64),
    /// A small number.
    Int(i32),
    Bool(bool),
}

impl Cell {
    fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Bytes(bytes) => bytes.len(),
                _ => 0,
            }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<chrono::DateTime<chrono::Utc>> for Cell {
    fn from(moment: chrono::DateTime<chrono::Utc>) -> Self {
        Self::Long(moment.timestamp_micros())
    }
}

/// A Parquet file that is being written.
pub(crate) struct ParquetFile {
    path: PathBuf,
    part: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
    /// The values of each column in the current row group.
    columns: Vec<Vec<Cell>>,
    bytes: usize,
}

impl ParquetFile {
    /// Begins a file with this schema, and replaces what an interrupted export has left of it.
    /// Values of the column `plain` hardly ever repeat, so it gets no dictionary and no statistics.
    pub(crate) fn create(path: &Path, schema: &str, plain: Option<&str>) -> anyhow::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).with_context(|| cannot_write(&part))?;
        let schema = Arc::new(parse_message_type(schema).context("the schema of an export")?);
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("runcast ", env!("CARGO_PKG_VERSION")).to_owned());
        if let Some(plain) = plain.map(ColumnPath::from) {
            properties = properties
                .set_column_dictionary_enabled(plain.clone(), false)
                .set_column_statistics_enabled(plain, EnabledStatistics::None);
        }
        let columns = vec![Vec::new(); schema.get_fields().len()];
        let out = BufWriter::new(file);
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()));
        Ok(Self {
            path: path.to_owned(),
            part,
            writer: writer?,
            columns,
            bytes: 0,
        })
    }

    /// Adds a row with one value for each column.
    pub(crate) fn push<const N: usize>(&mut self, row: [Cell; N]) -> anyhow::Result<()> {
        if N != self.columns.len() {
            bail!("{N} values for {} columns", self.columns.len());
        }
        for (column, cell) in self.columns.iter_mut().zip(row) {
            self.bytes += cell.size();
            column.push(cell);
        }
        if self.bytes >= MAX_GROUP_BYTES || self.rows() >= MAX_GROUP_ROWS {
            self.close_group()?;
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    fn close_group(&mut self) -> anyhow::Result<()> {
        let failed = || cannot_write(&self.part);
        let mut group = self.writer.next_row_group().with_context(failed)?;
        for cells in &mut self.columns {
            let column = group.next_column().with_context(failed)?;
            let column = column.context("the schema has fewer columns than a row")?;
            write(column, std::mem::take(cells)).with_context(failed)?;
        }
        group.close().with_context(failed)?;
        self.bytes = 0;
        Ok(())
    }

    /// Completes the file and gives it its name. Returns its size in bytes.
    pub(crate) fn finish(mut self) -> anyhow::Result<u64> {
        if self.rows() > 0 {
            self.close_group()?;
        }
        let failed = || cannot_write(&self.part);
        let mut out = self.writer.into_inner().with_context(failed)?;
        out.flush().with_context(failed)?;
        let file = out.into_inner().map_err(|error| error.into_error());
        let file = file.with_context(failed)?;
        file.sync_all().with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        publish(&self.part, &self.path)?;
        Ok(length)
    }
}

/// Renames a file that is written and synced, and syncs the folder.
pub(crate) fn publish(part: &Path, path: &Path) -> anyhow::Result<()> {
    fs::rename(part, path).with_context(|| cannot_write(path))?;
    let folder = path.parent().context("a file in a folder")?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| cannot_write(folder))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

fn write(mut column: SerializedColumnWriter<'_>, cells: Vec<Cell>) -> anyhow::Result<()> {
    // Required columns ignore the levels.
    let levels: Vec<i16> = cells
        .iter()
        .map(|cell| i16::from(*cell != Cell::Null))
        .collect();
    let levels = Some(levels.as_slice());
    let cells = cells.into_iter();
    match column.untyped() {
        ColumnWriter::ByteArrayColumnWriter(writer) => {
            let values: Vec<ByteArray> = cells
                .filter_map(|cell| match cell {
                    Cell::Bytes(bytes) => Some(ByteArray::from(bytes)),
                    _ => None,
                })
                .collect();
            writer.write_batch(&values, levels, None)?;
        }
        ColumnWriter::Int64ColumnWriter(writer) => {
            let values: Vec<i64> = cells
                .filter_map(|cell| match cell {
                    Cell::Long(number) => Some(number),
                    _ => None,
                })
                .collect();
            writer.write_batch(&values, levels, None)?;
        }
        ColumnWriter::Int32ColumnWriter(writer) => {
            let values: Vec<i32> = cells
                .filter_map(|cell| match cell {
                    Cell::Int(number) => Some(number),
                    _ => None,
                })
                .collect();
            writer.write_batch(&values, levels, None)?;
        }
        ColumnWriter::BoolColumnWriter(writer) => {
            let values: Vec<bool> = cells
                .filter_map(|cell| match cell {
                    Cell::Bool(flag) => Some(flag),
                    _ => None,
                })
                .collect();
            writer.write_batch(&values, levels, None)?;
        }
        _ => bail!("a column has a type that no export uses"),
    }
    Ok(column.close()?)
}
