//! Encodes rows of `events` in the binary COPY format of Postgres.
//!
//! Format: a signature of 11 bytes, flags and extension length (both 0), then for each row a 16 bit
//! field count, and for each field a 32 bit length (-1 for NULL) and its bytes, all big endian. A
//! field count of -1 ends the data. <https://www.postgresql.org/docs/15/sql-copy.html>

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::store::signed;

/// The statement that reads what [`CopyRows`] encodes, column by column.
pub(super) const COPY_EVENTS: &str = "COPY events (run_id, epoch, seq, producer, producer_seq, kind, \
     variation, level, time, appended_at, body) FROM STDIN (FORMAT binary)";

/// Fields of a row.
const FIELD_COUNT: i16 = 11;

/// Milliseconds from the Unix epoch to the epoch of Postgres, 2000-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// Latest time that is stored, in Unix milliseconds: the end of the year 9999. If a producer's
/// clock says a later time, the clock is wrong, but its event is kept.
const MAX_TIME_MS: i64 = 253_402_300_799_999;

/// One row of `events`.
#[derive(Debug, Clone, Copy)]
pub struct EventRow<'a> {
    /// The run.
    pub run: Uuid,
    /// Id of the event.
    pub id: EventId,
    /// The producer that published it.
    pub producer: Uuid,
    /// Its seq at this producer.
    pub producer_seq: u64,
    /// Its kind.
    pub kind: Kind,
    /// The variation of the run that it belongs to.
    pub variation: u16,
    /// Severity, if it has one.
    pub level: Option<&'a str>,
    /// The producer's clock, Unix milliseconds.
    pub time_ms: u64,
    /// Redis' clock at the append, Unix milliseconds.
    pub appended_ms: u64,
    /// The line, as the producer wrote it.
    pub body: &'a [u8],
}

/// Encoded rows, appended one by one.
#[derive(Debug)]
pub struct CopyRows {
    bytes: Vec<u8>,
    rows: u64,
}

impl Default for CopyRows {
    fn default() -> Self {
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, rows: 0 }
    }
}

impl CopyRows {
    /// Encodes a row.
    pub fn push(&mut self, row: &EventRow<'_>) {
        self.bytes.extend_from_slice(&FIELD_COUNT.to_be_bytes());
        self.field(row.run.as_bytes());
        self.field(&signed(row.id.epoch).to_be_bytes());
        self.field(&signed(row.id.seq).to_be_bytes());
        self.field(row.producer.as_bytes());
        self.field(&signed(row.producer_seq).to_be_bytes());
        self.field(&row.kind.number().to_be_bytes());
        self.field(
            &i16::try_from(row.variation)
                .unwrap_or(i16::MAX)
                .to_be_bytes(),
        );
        match row.level {
            Some(level) => self.field(level.replace('\0', "").as_bytes()),
            None => self.bytes.extend_from_slice(&(-1i32).to_be_bytes()),
        }
        self.field(&timestamp(row.time_ms).to_be_bytes());
        self.field(&timestamp(row.appended_ms).to_be_bytes());
        self.field(row.body);
        self.rows += 1;
    }

    /// Number of rows.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of encoded bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Ends the data, which is then ready to be sent.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
        self.bytes
    }

    fn field(&mut self, value: &[u8]) {
        // An event line has at most 256 KiB.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }
}

/// Microseconds since 2000-01-01.
fn timestamp(unix_ms: u64) -> i64 {
    (signed(unix_ms).min(MAX_TIME_MS) - POSTGRES_EPOCH_MS) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_documented_layout() {
        let mut rows = CopyRows::default();
        rows.push(&EventRow {
            run: Uuid::nil(),
            id: EventId::new(1, 2),
            producer: Uuid::max(),
            producer_seq: 3,
            kind: Kind::Log,
            variation: 4,
            level: None,
            time_ms: 946_684_800_001,
            appended_ms: u64::MAX,
            body: b"{}",
        });
        assert_eq!(rows.rows(), 1);
        let bytes = rows.finish();
        assert_eq!(&bytes[..19], b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        assert_eq!(&bytes[19..21], &11i16.to_be_bytes());
        assert_eq!(&bytes[bytes.len() - 8..], b"\0\0\0\x02{}\xff\xff");
        let level_at = 21 + 20 + 12 + 12 + 20 + 12 + 6 + 6;
        assert_eq!(&bytes[level_at..level_at + 4], &(-1i32).to_be_bytes());
        assert_eq!(&bytes[level_at + 8..level_at + 16], &1_000i64.to_be_bytes());
    }
}
