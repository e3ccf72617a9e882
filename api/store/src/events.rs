//! History: stored events of a run, by cursor, in both directions, by time and by number.
//!
//! A page is bounded in rows and in bytes, so no reader can make the server hold more than a few
//! megabytes. Within a run ids grow but are not always dense: an event that was published again
//! after Redis lost it is stored once, and its second id stays unused. Everything here goes by the
//! primary key: what it costs does not grow with the run, but for a page of few channels, which
//! passes over the rest.
//!
//! Only rows are read here; what the archive holds of a run is not among them even while they are still
//! there, so that a reader sees rows either all or not at all while they are being removed.
//! [`runcast_history::stored`] joins the two.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Channel, Kind};
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use super::runs::Coverage;
use super::store::{Store, StoreError, signed, unsigned};

/// Most bytes of event lines in one page.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Most events in one page.
pub const PAGE_EVENTS: u16 = 1_000;

/// Which events of a run: those behind a cursor, up to a watermark.
#[derive(Debug, Clone)]
pub struct EventPage<'a> {
    /// The run.
    pub run: Uuid,
    /// Where to start, exclusive.
    pub after: EventId,
    /// Up to where Postgres is known to be complete.
    pub coverage: Coverage,
    /// Only events of these channels (and gaps); all if empty.
    pub channels: &'a [Channel],
    /// How many at most; [`PAGE_EVENTS`] is the upper bound.
    pub limit: u16,
}

/// Where a page that ends at some id begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Its oldest event.
    pub oldest: EventId,
    /// There are events before that one.
    pub has_older: bool,
}

/// An event by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The event.
    pub id: EventId,
    /// Redis' clock at its append, Unix milliseconds.
    pub appended_ms: u64,
}

/// The rows of a run that a page is made of: $1 run, $2 and $3 the id it starts from, $4 all channels, $5
/// else whole kinds, $6 and variations of kinds as [`one_variation`] numbers them, $7 how many, $8 how many
/// bytes. `$rows` leaves out what the archive holds.
macro_rules! page {
    ($columns:literal, $comparison:literal, $rows:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $columns,
            ", sum(octet_length(body)) OVER (ORDER BY ",
            $order,
            ") AS size, octet_length(body) AS length FROM (
             SELECT * FROM events
              WHERE run_id = $1 AND (epoch, seq) ",
            $comparison,
            " ($2, $3) AND ",
            $rows,
            "
                AND ($4 OR kind = ANY($5::smallint[]) OR kind * 1000 + variation = ANY($6::int[]))
              ORDER BY ",
            $order,
            " LIMIT $7) AS page"
        )
    };
}

const SELECT_AFTER: &str = concat!(
    "SELECT epoch, seq, producer, producer_seq, body FROM (",
    page!(
        "epoch, seq, producer, producer_seq, body",
        ">",
        "NOT EXISTS (SELECT FROM runs r WHERE r.id = $1 AND (r.archived_epoch, r.archived_seq) > ($2, $3))",
        "epoch, seq"
    ),
    ") AS sized WHERE (size <= $8 OR size = length) AND (epoch, seq) <= ($9, $10) ORDER BY epoch, seq"
);

const SELECT_FLOOR: &str = concat!(
    "SELECT epoch, seq, EXISTS (SELECT FROM events older WHERE older.run_id = $1
            AND (older.epoch, older.seq) < (oldest.epoch, oldest.seq)) FROM (SELECT epoch, seq FROM (",
    page!(
        "epoch, seq",
        "<",
        "(epoch, seq) > (SELECT r.archived_epoch, r.archived_seq FROM runs r WHERE r.id = $1)",
        "epoch DESC, seq DESC"
    ),
    ") AS sized WHERE size <= $8 OR size = length ORDER BY epoch, seq LIMIT 1) AS oldest"
);

/// Hops from epoch to epoch along the key; a run has one, and one more for each time that Redis was lost.
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
        let wanted = EventQuery::of(page.channels);
        let rows: Vec<(i64, i64, Uuid, i64, Vec<u8>)> = sqlx::query_as(SELECT_AFTER)
            .bind(page.run)
            .bind(signed(page.after.epoch))
            .bind(signed(page.after.seq))
            .bind(wanted.all)
            .bind(wanted.kinds)
            .bind(wanted.variations)
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

    /// Where the page begins that holds the last `limit` events of these channels before an id, or as
    /// many of them as a page may hold; none if there is no such event.
    pub async fn floor(
        &self,
        run: Uuid,
        before: EventId,
        channels: &[Channel],
        limit: u16,
    ) -> Result<Option<Floor>, StoreError> {
        let wanted = EventQuery::of(channels);
        let row: Option<(i64, i64, bool)> = sqlx::query_as(SELECT_FLOOR)
            .bind(run)
            .bind(signed(before.epoch))
            .bind(signed(before.seq))
            .bind(wanted.all)
            .bind(wanted.kinds)
            .bind(wanted.variations)
            .bind(i64::from(limit.min(PAGE_EVENTS)))
            .bind(signed(PAGE_BYTES as u64))
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|(epoch, seq, has_older)| Floor {
            oldest: id(epoch, seq),
            has_older,
        }))
    }

    /// The first stored event behind an id.
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

/// Channels as the statements compare them.
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
                Some(variation) => variations.push(one_variation(channel.kind, variation)),
            }
        }
        Self {
            all: channels.is_empty(),
            kinds,
            variations,
        }
    }
}

/// A kind and a variation, of which there are fewer than 1,000, in one number.
fn one_variation(kind: Kind, variation: u16) -> i32 {
    i32::from(kind.number()) * 1_000 + i32::from(variation)
}
