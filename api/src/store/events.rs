//! History: stored events of a run, by cursor, in both directions.
//!
//! A page is bounded in rows and in bytes, so no reader can make the server hold more than a few
//! megabytes. Within a run ids grow but are not always dense: an event that was published again
//! after Redis lost it is stored once, and its second id stays unused.
//!
//! Only rows are read here; what the archive holds of a run is not among them even while they are still
//! there, so that a reader sees rows either all or not at all while they are being removed.
//! [`crate::history`] joins the two.

use bytes::Bytes;
use runcast_common::entry::Event;
use runcast_common::event::{Channel, Kind};
use runcast_common::id::EventId;
use uuid::Uuid;

use super::runs::Coverage;
use super::{Store, StoreError, signed, unsigned};

/// Most bytes of event lines in one page.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Most events in one page.
pub const PAGE_EVENTS: u16 = 1_000;

/// Which events of a run: in a direction from a cursor, up to a watermark.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// The run.
    pub run: Uuid,
    /// Where to start, exclusive, and in which direction.
    pub from: Start,
    /// Up to where Postgres is known to be complete.
    pub coverage: Coverage,
    /// Only events of these channels (and gaps); all if empty.
    pub channels: &'a [Channel],
    /// How many at most; [`PAGE_EVENTS`] is the upper bound.
    pub limit: u16,
}

/// Where a page starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The events behind this id.
    After(EventId),
    /// The events just before this id.
    Before(EventId),
}

const SELECT_AFTER: &str = "SELECT epoch, seq, producer, producer_seq, body FROM (
         SELECT *, sum(octet_length(body)) OVER (ORDER BY epoch, seq) AS size FROM (
             SELECT epoch, seq, producer, producer_seq, body FROM events e
              WHERE run_id = $1 AND (epoch, seq) > ($2, $3) AND (epoch, seq) <= ($4, $5)
                AND NOT EXISTS (SELECT 1 FROM runs r
                                 WHERE r.id = $1 AND (r.archived_epoch, r.archived_seq) > ($2, $3))
                AND ($6::smallint[] = '{}' OR kind = $8 OR EXISTS (
                     SELECT 1 FROM unnest($6::smallint[], $7::smallint[]) AS c(kind, variation)
                      WHERE c.kind = e.kind AND (c.variation < 0 OR c.variation = e.variation)))
              ORDER BY epoch, seq LIMIT $9) AS page) AS sized
      WHERE size <= $10 OR size = octet_length(body) ORDER BY epoch, seq";

const SELECT_BEFORE: &str = "SELECT epoch, seq, producer, producer_seq, body FROM (
         SELECT *, sum(octet_length(body)) OVER (ORDER BY epoch DESC, seq DESC) AS size FROM (
             SELECT epoch, seq, producer, producer_seq, body FROM events e
              WHERE run_id = $1 AND (epoch, seq) < ($2, $3) AND (epoch, seq) <= ($4, $5)
                AND (epoch, seq) > (SELECT r.archived_epoch, r.archived_seq FROM runs r WHERE r.id = $1)
                AND ($6::smallint[] = '{}' OR kind = $8 OR EXISTS (
                     SELECT 1 FROM unnest($6::smallint[], $7::smallint[]) AS c(kind, variation)
                      WHERE c.kind = e.kind AND (c.variation < 0 OR c.variation = e.variation)))
              ORDER BY epoch DESC, seq DESC LIMIT $9) AS page) AS sized
      WHERE size <= $10 OR size = octet_length(body) ORDER BY epoch, seq";

impl Store {
    /// One page of rows, in ascending order whatever the direction; none if events that belong before them are
    /// archived.
    ///
    /// # Errors
    /// [`StoreError`] if the database could not be asked.
    pub async fn events(&self, page: &Page<'_>) -> Result<Vec<Event>, StoreError> {
        let (query, start) = match page.from {
            Start::After(id) => (SELECT_AFTER, id),
            Start::Before(id) => (SELECT_BEFORE, id),
        };
        let (epoch, seq) = page.coverage.pair();
        let kinds: Vec<i16> = page
            .channels
            .iter()
            .map(|channel| channel.kind.number())
            .collect();
        let variations: Vec<i16> = page
            .channels
            .iter()
            .map(|channel| {
                channel
                    .variation
                    .map_or(-1, |one| i16::try_from(one).unwrap_or(i16::MAX))
            })
            .collect();
        let rows: Vec<(i64, i64, Uuid, i64, Vec<u8>)> = sqlx::query_as(query)
            .bind(page.run)
            .bind(signed(start.epoch))
            .bind(signed(start.seq))
            .bind(epoch)
            .bind(seq)
            .bind(kinds)
            .bind(variations)
            .bind(Kind::Gap.number())
            .bind(i64::from(page.limit.min(PAGE_EVENTS)))
            .bind(signed(PAGE_BYTES as u64))
            .fetch_all(&self.pool)
            .await?;
        let event = |(epoch, seq, producer, producer_seq, body)| Event {
            id: EventId::new(unsigned(epoch), unsigned(seq)),
            producer,
            producer_seq: unsigned(producer_seq),
            line: Bytes::from(body),
        };
        Ok(rows.into_iter().map(event).collect())
    }
}
