//! Stored events of a run, wherever they lie: in the archive up to some id, in rows of Postgres
//! after it, without a hole.
//!
//! Rows move to the archive at any moment, also between two reads, so what a reader knew of the
//! joint may be outdated. Therefore rows are read by one statement that returns none if events
//! before them are archived, and after a page without rows the end of the archive is read again.

use std::collections::BTreeMap;

use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Channel, Head};
use runcast_common::protocol::event_id::EventId;
use uuid::Uuid;

use crate::archive::reader::{Archive, ArchiveReadError};
use runcast_store::Store;
use runcast_store::events::{EventPage, Moment, PageStart};
use runcast_store::runs::Coverage;

/// Reads stored events. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct History {
    store: Store,
    archive: Archive,
}

impl History {
    /// Stored events in this Postgres and this archive.
    pub const fn new(store: Store, archive: Archive) -> Self {
        Self { store, archive }
    }

    /// One page of stored events, in order. It may be shorter than requested without being the
    /// last; it is empty only if nothing follows.
    pub async fn events(&self, page: &EventPage<'_>) -> Result<Vec<Event>, ArchiveReadError> {
        let mut from = page.after;
        let mut archived = page.coverage.archived;
        loop {
            if from < archived {
                let events = self.archive.events_after(page, from).await?;
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

    /// The first id of the page that holds the last `limit` events of these channels before
    /// `before`, or as many as fit a page; None if there is no such event. A page does not reach
    /// from rows into the archive.
    pub async fn page_start(
        &self,
        run: Uuid,
        before: EventId,
        channels: &[Channel],
        limit: u16,
    ) -> Result<Option<PageStart>, ArchiveReadError> {
        let rows = self.store.page_start(run, before, channels, limit).await?;
        let archived = self.store.archived_upto(run).await?;
        if let Some(start) = rows {
            let has_older = start.has_older || archived > EventId::ZERO;
            return Ok(Some(PageStart { has_older, ..start }));
        }
        if archived == EventId::ZERO {
            return Ok(None);
        }
        let page = archived_page(run, archived, channels, limit);
        let events = self.archive.events_before(&page, before).await?;
        let Some(oldest) = events.first().map(|event| event.id) else {
            return Ok(None);
        };
        let any = archived_page(run, archived, &[], 1);
        let has_older = !self.archive.events_before(&any, oldest).await?.is_empty();
        Ok(Some(PageStart { oldest, has_older }))
    }

    /// The first stored event after a cursor, with the time of its append. For an archived event
    /// that is the producer's time, since only rows hold the other.
    pub async fn moment_after(
        &self,
        run: Uuid,
        cursor: EventId,
    ) -> Result<Option<Moment>, ArchiveReadError> {
        let archived = self.store.archived_upto(run).await?;
        if cursor < archived {
            let page = archived_page(run, archived, &[], 1);
            let events = self.archive.events_after(&page, cursor).await?;
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
    pub async fn epochs(&self, run: Uuid) -> Result<Vec<EventId>, ArchiveReadError> {
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
            redaction_revision: 0,
        },
        channels,
        limit,
    }
}
