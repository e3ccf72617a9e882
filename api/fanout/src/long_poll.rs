//! Long polls: a page that waits until there is something on it.
//!
//! For networks that hold server-sent events back. The tail of the run wakes a poll as it wakes
//! viewers, so nothing is asked again and again meanwhile; after an event that the filter does not
//! want a poll looks again [`PAUSE`] later at the earliest.

use std::sync::Arc;
use std::time::Duration;

use runcast_common::protocol::event_id::EventId;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::hub::Hub;
use runcast_history::filter::Filter;
use runcast_history::pages::Page;
use runcast_history::reader::ReadError;

/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The page behind `after`: as soon as it holds an event or the run is over, and empty after `wait`, or
/// when the server drains.
///
/// # Errors
/// [`ReadError`] if the answer needs Postgres and it cannot be asked.
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
        // Before the look: what comes in between is seen by one of the two.
        changes.mark_unchanged();
        let mut page = hub.reader().page_after(run, cursor, filter, limit).await?;
        page.after = after;
        page.has_older = after > EventId::ZERO;
        let settled = !page.items.is_empty() || page.has_newer || page.ended;
        if settled || Instant::now() >= deadline {
            return Ok(page);
        }
        if page.upto > cursor {
            // Passed over what is not wanted: whether the run is over is said only where nothing follows.
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
        sleep(PAUSE).await;
    }
}
