//! Long polls: a page of history that waits until it has something to return.
//!
//! For networks that hold server-sent events back. The tail of the run wakes a poll as it wakes
//! viewers, so a waiting poll costs no reads. Time: the caller's `wait`; after an event that the
//! filter does not accept a poll reads again [`MIN_READ_INTERVAL`] later at the earliest.

use std::sync::Arc;
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use runcast_history::filter::Filter;
use runcast_history::pages::Page;
use runcast_history::reader::ReadError;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::hub::Hub;

/// Shortest time between two reads.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(20);

/// The page after `after`: as soon as it holds an event or the run is over. It is empty after
/// `wait`, and when the server drains.
pub async fn page_after(
    hub: &Arc<Hub>,
    run: Uuid,
    after: EventId,
    filter: &Filter,
    limit: usize,
    wait: Duration,
) -> Result<Page, ReadError> {
    let deadline = Instant::now() + wait;
    let watch = hub.watch(run);
    let mut changes = watch.changes();
    let mut cursor = after;
    loop {
        // Before the read: it, or the wait after it, notices what comes in between.
        changes.mark_unchanged();
        let mut page = hub.reader().page_after(run, cursor, filter, limit).await?;
        page.after = after;
        page.has_older = after > EventId::ZERO;
        let is_final = !page.items.is_empty() || page.has_newer || page.ended;
        if is_final || Instant::now() >= deadline {
            return Ok(page);
        }
        if page.upto > cursor {
            // The page passed over events that the filter does not accept. Only a read that finds
            // nothing says whether the run is over.
            cursor = page.upto;
            continue;
        }
        tokio::select! {
            () = hub.stop().cancelled() => return Ok(page),
            changed = timeout_at(deadline, changes.changed()) => {
                if !matches!(changed, Ok(Ok(()))) {
                    return Ok(page);
                }
            }
        }
        sleep(MIN_READ_INTERVAL).await;
    }
}
