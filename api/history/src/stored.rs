//! Stored events of a run, wherever they lie: the archive up to the id to which it holds the run, rows of
//! Postgres behind that, without a seam.
//!
//! Events pass from rows to the archive at any moment, also between two reads. The joint is therefore not
//! what a reader knew before: rows are read by one statement that gives none if events that come before them
//! are archived, and a page without rows is followed by another look at how far the archive goes.

use std::collections::BTreeMap;

use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Channel, Head};
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use crate::archive::reader::{Archive, ReadError};
use runcast_store::Store;
use runcast_store::events::{EventPage, Floor, Moment};
use runcast_store::runs::Coverage;

/// Reads stored events. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
    archive: Archive,
}

impl History {
    /// History in this Postgres and this archive.
    #[must_use]
    pub const fn new(store: Store, archive: Archive) -> Self {
        Self { store, archive }
    }

    /// One page of stored events, in order. It may be shorter than asked for without being the last; it is empty only
    /// if there is nothing more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn events(&self, page: &EventPage<'_>) -> Result<Vec<Event>, ReadError> {
        let mut from = page.after;
        let mut archived = page.coverage.archived;
        loop {
            if from < archived {
                let events = self.archive.after(page, from).await?;
                if !events.is_empty() {
                    return Ok(events);
                }
                from = archived;
            }
            let rest = EventPage {
                after: from,
                ..page.clone()
            };
            let rows = self.store.events(&rest).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            archived = self.store.archived_upto(page.run).await?;
            if archived <= from {
                return Ok(rows);
            }
        }
    }

    /// Where the page begins that holds the last `limit` events of these channels before an id, or as many of them
    /// as a page may hold; none if there is no such event. A page does not reach from rows into the archive.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn floor(
        &self,
        run: Uuid,
        before: EventId,
        channels: &[Channel],
        limit: u16,
    ) -> Result<Option<Floor>, ReadError> {
        let rows = self.store.floor(run, before, channels, limit).await?;
        let archived = self.store.archived_upto(run).await?;
        if let Some(floor) = rows {
            let has_older = floor.has_older || archived > EventId::ZERO;
            return Ok(Some(Floor { has_older, ..floor }));
        }
        if archived == EventId::ZERO {
            return Ok(None);
        }
        let page = archived_page(run, archived, channels, limit);
        let events = self.archive.before(&page, before).await?;
        let Some(oldest) = events.first().map(|event| event.id) else {
            return Ok(None);
        };
        let any = archived_page(run, archived, &[], 1);
        let has_older = !self.archive.before(&any, oldest).await?.is_empty();
        Ok(Some(Floor { oldest, has_older }))
    }

    /// The first stored event behind an id, with the time of its append; of an archived one with that by its producer's
    /// clock, since only rows know the other.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn moment_after(
        &self,
        run: Uuid,
        cursor: EventId,
    ) -> Result<Option<Moment>, ReadError> {
        let archived = self.store.archived_upto(run).await?;
        if cursor < archived {
            let page = archived_page(run, archived, &[], 1);
            let events = self.archive.after(&page, cursor).await?;
            if let Some(event) = events.first() {
                let head = Head::parse(&event.line).ok();
                return Ok(Some(Moment {
                    id: event.id,
                    appended_ms: head.map_or(event.id.epoch, |head| head.time),
                }));
            }
        }
        Ok(self.store.moment_after(run, cursor).await?)
    }

    /// The last stored event of each epoch of a run, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn epochs(&self, run: Uuid) -> Result<Vec<EventId>, ReadError> {
        let mut ends = BTreeMap::new();
        if self.store.archived_upto(run).await? > EventId::ZERO {
            ends = self.archive.epochs(run).await?;
        }
        for end in self.store.epochs(run).await? {
            let seq = ends.entry(end.epoch).or_insert(end.seq);
            *seq = end.seq.max(*seq);
        }
        let ids = ends
            .into_iter()
            .map(|(epoch, seq)| EventId::new(epoch, seq));
        Ok(ids.collect())
    }
}

/// A page of what the archive holds.
const fn archived_page(
    run: Uuid,
    upto: EventId,
    channels: &[Channel],
    limit: u16,
) -> EventPage<'_> {
    EventPage {
        run,
        after: EventId::ZERO,
        coverage: Coverage {
            watermark: upto,
            ended: true,
            archived: upto,
        },
        channels,
        limit,
    }
}
