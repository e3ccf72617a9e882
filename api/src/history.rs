//! Stored events of a run, wherever they lie: the archive up to the id to which it holds the run, rows of
//! Postgres behind that, without a seam.
//!
//! Events pass from rows to the archive at any moment, also between two reads. The joint is therefore not
//! what a reader knew before: rows are read by one statement that gives none if events that come before them
//! are archived, and a page without rows is followed by another look at how far the archive goes.

use runcast_common::entry::Event;
use runcast_common::id::EventId;

use crate::archive::read::{Archive, ReadError};
use crate::store::Store;
use crate::store::events::{Page, Start};

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

    /// One page of stored events, in ascending order whatever the direction. It may be shorter than asked for
    /// without being the last; it is empty only if there is nothing more.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn events(&self, page: &Page<'_>) -> Result<Vec<Event>, ReadError> {
        match page.from {
            Start::After(id) => self.after(page, id).await,
            Start::Before(id) => self.before(page, id).await,
        }
    }

    async fn after(&self, page: &Page<'_>, mut from: EventId) -> Result<Vec<Event>, ReadError> {
        let mut archived = page.coverage.archived;
        loop {
            if from < archived {
                let events = self.archive.after(page, from).await?;
                if !events.is_empty() {
                    return Ok(events);
                }
                from = archived;
            }
            let rest = Page {
                from: Start::After(from),
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

    async fn before(&self, page: &Page<'_>, from: EventId) -> Result<Vec<Event>, ReadError> {
        let rows = self.store.events(page).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
        if self.store.archived_upto(page.run).await? == EventId::ZERO {
            return Ok(rows);
        }
        self.archive.before(page, from).await
    }
}
