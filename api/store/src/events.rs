//! Reads stored events of a run by cursor, in both directions, by time and by id.
//!
//! A page is bounded in rows and in bytes, so no reader can make the server hold more than a few
//! megabytes. Within a run ids grow, but are not always dense: an event that was published again
//! after Redis lost it is stored once, and its second id stays unused. All reads follow the primary
//! key, so their cost does not grow with the run; only a page of few channels skips over the events
//! of the others. Functions of the schema read pages (`events_after`, `events_before`): they hold
//! the planner to the key also while a new partition has no statistics.
//!
//! This file reads rows only. It leaves out events that the archive holds, even while their rows
//! still exist. So a reader sees either all of these rows or none while they are being deleted.
//! `stored` in the crate `runcast-history` joins rows and archive.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Channel, Kind};
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::error::StoreError;
use super::runs::Coverage;
use super::store::{Store, signed, unsigned};

/// Upper bound of the line bytes in one page.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Upper bound of the events in one page.
pub const PAGE_EVENTS: u16 = 1_000;

/// Which events of a run to read: those after a cursor, up to a watermark.
#[derive(Debug, Clone)]
pub struct EventPage<'a> {
    /// The run.
    pub run: Uuid,
    /// The cursor, exclusive.
    pub after: EventId,
    /// How far Postgres holds the run.
    pub coverage: Coverage,
    /// Only events of these channels, and gaps; all if empty.
    pub channels: &'a [Channel],
    /// How many at most; [`PAGE_EVENTS`] is the upper bound.
    pub limit: u16,
}

/// Where a page begins that ends before a given id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageStart {
    /// Its oldest event.
    pub oldest: EventId,
    /// True if there are events before that one.
    pub has_older: bool,
}

/// An event and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The event.
    pub id: EventId,
    /// Redis' clock at its append, Unix milliseconds.
    pub appended_ms: u64,
}

/// A page forward. Parameters: $1 run, $2 and $3 the id that it starts after, $4 whether all
/// channels are selected, $5 else whole kinds, $6 and variations of kinds as [`channel_number`]
/// encodes them, $7 the limit of rows, $8 the limit of bytes, $9 and $10 the watermark. There are
/// no rows if the archive holds events behind the start.
const SELECT_AFTER: &str = "SELECT epoch, seq, producer, producer_seq, body FROM (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY epoch, seq) AS size
          FROM events_after($1, $2, $3, $4, $5, $6, $7)) AS page
     WHERE (size <= $8 OR size = octet_length(body)) AND (epoch, seq) <= ($9, $10)
       AND NOT EXISTS (SELECT FROM runs r WHERE r.id = $1 AND (r.archived_epoch, r.archived_seq) > ($2, $3))
     ORDER BY epoch, seq";

/// Where a page backward begins. Parameters as above, up to $8; the page ends before $2 and $3.
/// What the archive holds is left out.
const SELECT_PAGE_START: &str = "SELECT epoch, seq,
        EXISTS (SELECT FROM events_before($1, epoch, seq, true, '{}', '{}', 1)) FROM (
        SELECT epoch, seq, octet_length(body) AS length,
               sum(octet_length(body)) OVER (ORDER BY epoch DESC, seq DESC) AS size
          FROM events_before($1, $2, $3, $4, $5, $6, $7)) AS page
     WHERE (size <= $8 OR size = length)
       AND (epoch, seq) > (SELECT r.archived_epoch, r.archived_seq FROM runs r WHERE r.id = $1)
     ORDER BY epoch, seq LIMIT 1";

/// Goes from epoch to epoch along the key. A run has one epoch, and one more for each time that
/// Redis lost it.
const SELECT_EPOCHS: &str = "WITH RECURSIVE epochs(epoch) AS (
        (SELECT epoch FROM events WHERE run_id = $1 ORDER BY epoch LIMIT 1)
        UNION ALL
        SELECT (SELECT epoch FROM events WHERE run_id = $1 AND epoch > epochs.epoch ORDER BY epoch LIMIT 1)
          FROM epochs WHERE epochs.epoch IS NOT NULL)
    SELECT epoch, (SELECT seq FROM events e WHERE e.run_id = $1 AND e.epoch = epochs.epoch
                    ORDER BY seq DESC LIMIT 1)
      FROM epochs WHERE epoch IS NOT NULL ORDER BY epoch";

impl Store {
    /// One page of stored events, in order.
    pub async fn events(&self, page: &EventPage<'_>) -> Result<Vec<Event>, StoreError> {
        let (epoch, seq) = page.coverage.pair();
        let query = EventQuery::of(page.channels);
        let rows: Vec<(i64, i64, Uuid, i64, Vec<u8>)> = sqlx::query_as(SELECT_AFTER)
            .bind(page.run)
            .bind(signed(page.after.epoch))
            .bind(signed(page.after.seq))
            .bind(query.all)
            .bind(query.kinds)
            .bind(query.variations)
            .bind(i64::from(page.limit.min(PAGE_EVENTS)))
            .bind(signed(PAGE_BYTES as u64))
            .bind(epoch)
            .bind(seq)
            .fetch_all(&self.pool)
            .await?;
        let event = |(epoch, seq, producer, producer_seq, body)| Event {
            id: id(epoch, seq),
            producer,
            producer_seq: unsigned(producer_seq),
            line: Bytes::from(body),
        };
        Ok(rows.into_iter().map(event).collect())
    }

    /// Finds where the page begins that holds the last `limit` events of these channels before an
    /// id, or as many as fit in a page. Returns none if there is no such event.
    pub async fn page_start(
        &self,
        run: Uuid,
        before: EventId,
        channels: &[Channel],
        limit: u16,
    ) -> Result<Option<PageStart>, StoreError> {
        let query = EventQuery::of(channels);
        let row: Option<(i64, i64, bool)> = sqlx::query_as(SELECT_PAGE_START)
            .bind(run)
            .bind(signed(before.epoch))
            .bind(signed(before.seq))
            .bind(query.all)
            .bind(query.kinds)
            .bind(query.variations)
            .bind(i64::from(limit.min(PAGE_EVENTS)))
            .bind(signed(PAGE_BYTES as u64))
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(epoch, seq, has_older)| PageStart {
            oldest: id(epoch, seq),
            has_older,
        }))
    }

    /// The first stored event after an id.
    pub async fn moment_after(
        &self,
        run: Uuid,
        cursor: EventId,
    ) -> Result<Option<Moment>, StoreError> {
        let row: Option<(i64, i64, DateTime<Utc>)> = sqlx::query_as(
            "SELECT epoch, seq, appended_at FROM events
              WHERE run_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT 1",
        )
        .bind(run)
        .bind(signed(cursor.epoch))
        .bind(signed(cursor.seq))
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(epoch, seq, appended_at)| Moment {
            id: id(epoch, seq),
            appended_ms: unsigned(appended_at.timestamp_millis()),
        }))
    }

    /// The last stored event of each epoch of a run, oldest first.
    pub async fn epochs(&self, run: Uuid) -> Result<Vec<EventId>, StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(SELECT_EPOCHS)
            .bind(run)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(epoch, seq)| id(epoch, seq))
            .collect())
    }
}

fn id(epoch: i64, seq: i64) -> EventId {
    EventId::new(unsigned(epoch), unsigned(seq))
}

/// Channels in the form that the statements compare.
struct EventQuery {
    all: bool,
    kinds: Vec<i16>,
    variations: Vec<i32>,
}

impl EventQuery {
    fn of(channels: &[Channel]) -> Self {
        // Gaps belong to every channel.
        let mut kinds = vec![Kind::Gap.number()];
        let mut variations = Vec::new();
        for channel in channels {
            match channel.variation {
                None => kinds.push(channel.kind.number()),
                Some(variation) => variations.push(channel_number(channel.kind, variation)),
            }
        }
        Self {
            all: channels.is_empty(),
            kinds,
            variations,
        }
    }
}

/// Encodes a kind and a variation in one number. There are fewer than 1,000 variations.
fn channel_number(kind: Kind, variation: u16) -> i32 {
    i32::from(kind.number()) * 1_000 + i32::from(variation)
}
