//! The job that redacts a run: its redactions one after the other, oldest first.
//!
//! A redaction reads its events twice: to find what is to be masked, and to mask it, page by page,
//! in rows and in objects of the archive. Then come what else Postgres holds of the run, and Redis,
//! from which all stored events are trimmed, so that readers go to Postgres for them. Last, viewers
//! are told: gateways drop what they keep of the run, and the page reads the run again. Every step
//! may be repeated, so if a worker dies in between, the next one starts over.
//!
//! Bounds: one run at a time in each worker; memory as in [`super::find`], and a page. Time:
//! [`STORE_DEADLINE`] until the events are stored, else the job is tried again later.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::time::Duration;

use runcast_common::presence::run_update;
use runcast_common::protocol::entry::Event;
use runcast_common::protocol::event::{Head, Kind, StatusChange};
use runcast_common::protocol::event_id::EventId;
use runcast_common::redis;
use runcast_common::scripts::{LiveWindow, Settle};
use runcast_history::archive::reader::{Archive, ArchiveReadError};
use runcast_history::archive::replace::write_replacement;
use runcast_history::archive::writer::WriteError;
use runcast_history::stored::History;
use runcast_store::events::{EventPage, PAGE_EVENTS};
use runcast_store::redactions::{PendingRedaction, REDACT_RUN};
use runcast_store::runs::Coverage;
use tokio::time::{Instant, sleep};
use tracing::{error, info};
use uuid::Uuid;

use super::find::{Needle, TextFinder};
use super::mask::{self, Edit};
use crate::archive::delete_leaving_objects;
use crate::error::TaskError;
use crate::worker::Worker;

/// How long the job waits for events to be stored.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at what is stored.
const STORE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs that get another job in one hour.
const MAX_SCHEDULED_RUNS: u32 = 10_000;

/// What is masked in a run.
enum Plan {
    /// All that these events say.
    Whole,
    /// A text, where it was found.
    Text(BTreeMap<EventId, Edit>),
}

/// The hourly job: queues redactions that are not finished.
pub(crate) async fn schedule_unfinished(worker: &Worker) -> Result<(), TaskError> {
    let runs = worker.store.runs_to_redact(MAX_SCHEDULED_RUNS).await?;
    if !runs.is_empty() {
        worker.store.schedule_runs(REDACT_RUN, &runs).await?;
    }
    Ok(())
}

/// Carries out the redactions of a run.
pub(crate) async fn redact_run(worker: &Worker, run: Uuid) -> Result<(), TaskError> {
    while let Some(redaction) = worker.store.pending_redaction(run).await? {
        let Some(coverage) = wait_stored(worker, run, redaction.to).await? else {
            return Ok(());
        };
        let job = Job {
            worker,
            run,
            coverage,
            archive: Archive::new(
                worker.store.clone(),
                worker.settings.archiving.place.clone(),
                worker.settings.archiving.meter.clone(),
            ),
            redaction,
        };
        job.carry_out().await?;
    }
    Ok(())
}

/// Waits until the run is stored up to an event, or Redis has no more of it. Returns none if it was
/// deleted.
async fn wait_stored(
    worker: &Worker,
    run: Uuid,
    to: EventId,
) -> Result<Option<Coverage>, TaskError> {
    let keys = worker.keys.run(run);
    let started = Instant::now();
    loop {
        let Some(coverage) = worker.store.coverage(run).await? else {
            return Ok(None);
        };
        if coverage.watermark >= to {
            return Ok(Some(coverage));
        }
        let mut ask = redis::cmd("HMGET");
        ask.arg(&keys.meta).arg("epoch").arg("seq");
        let last: (Option<u64>, Option<u64>) = worker.redis.query(keys.slot, &ask).await?;
        match last {
            (Some(epoch), Some(seq)) if EventId::new(epoch, seq) > coverage.watermark => {}
            _ => return Ok(Some(coverage)),
        }
        if started.elapsed() > STORE_DEADLINE {
            return Err(TaskError::NotStored(run));
        }
        sleep(STORE_POLL_INTERVAL).await;
    }
}

struct Job<'a> {
    worker: &'a Worker,
    run: Uuid,
    coverage: Coverage,
    archive: Archive,
    redaction: PendingRedaction,
}

impl Job<'_> {
    async fn carry_out(&self) -> Result<(), TaskError> {
        let (store, id, run) = (&self.worker.store, self.redaction.id, self.run);
        let plan = match &self.redaction.text {
            None => Plan::Whole,
            Some(text) => match self.find(text).await? {
                Ok(edits) => Plan::Text(edits),
                Err(reason) => {
                    error!(%run, redaction = %id, reason, "gave up a redaction");
                    return Ok(store.finish_redaction(id, Some(&reason)).await?);
                }
            },
        };
        let messages = self.mask_rows(&plan).await?;
        self.mask_objects(&plan).await?;
        self.mask_copies(&messages).await?;
        self.trim_redis().await?;
        // Objects as they were before are part of what has to be gone when a redaction is finished.
        delete_leaving_objects(self.worker, Some(run)).await?;
        self.announce().await?;
        store.finish_redaction(id, None).await?;
        info!(%run, redaction = %id, "redacted a run");
        Ok(())
    }

    /// The pages of the events that are looked at.
    async fn page_after(&self, from: EventId) -> Result<Vec<Event>, TaskError> {
        let history = History::new(self.worker.store.clone(), self.archive.clone());
        let page = EventPage {
            run: self.run,
            after: from,
            coverage: self.coverage,
            channels: &[],
            limit: PAGE_EVENTS,
        };
        let mut events = history.events(&page).await?;
        events.retain(|event| event.id <= self.redaction.to);
        Ok(events)
    }

    /// Where the text stands; a reason for people if that is too much.
    async fn find(
        &self,
        text: &[u8],
    ) -> Result<Result<BTreeMap<EventId, Edit>, String>, TaskError> {
        let mut finder = TextFinder::new(text);
        let mut from = self.redaction.from.cursor_before();
        loop {
            let events = self.page_after(from).await?;
            let Some(last) = events.last() else {
                return Ok(Ok(finder.finish()));
            };
            from = last.id;
            for event in &events {
                if let Err(too_many) = finder.add(event) {
                    return Ok(Err(too_many.to_string()));
                }
            }
        }
    }

    /// Masks the rows, also those of archived events that still exist. Returns the messages of
    /// status changes that were masked, of which Postgres holds copies.
    async fn mask_rows(&self, plan: &Plan) -> Result<Vec<String>, TaskError> {
        let mut from = self.redaction.from.cursor_before();
        let mut messages = Vec::new();
        loop {
            let events = self.page_after(from).await?;
            let Some(last) = events.last() else {
                return Ok(messages);
            };
            from = last.id;
            let (mut lines, mut counted) = (Vec::new(), 0);
            for event in &events {
                let Some(line) = self.masked(plan, event) else {
                    continue;
                };
                if matches!(plan, Plan::Whole) {
                    messages.extend(message_of(&event.line));
                }
                // Those in the archive are counted where they are replaced.
                counted += u64::from(event.id > self.coverage.archived);
                lines.push((event.id, line));
            }
            if !lines.is_empty() {
                let (store, id) = (&self.worker.store, self.redaction.id);
                store.mask_rows(self.run, id, &lines, counted).await?;
            }
        }
    }

    /// The masked line of an event, if it differs.
    fn masked(&self, plan: &Plan, event: &Event) -> Option<Vec<u8>> {
        if event.id < self.redaction.from || event.id > self.redaction.to {
            return None;
        }
        let edit = match plan {
            Plan::Whole => &Edit::Whole,
            Plan::Text(edits) => edits.get(&event.id)?,
        };
        let line = mask::apply(&event.line, edit);
        (line != event.line).then_some(line)
    }

    /// Replaces the objects of the archive in which something is masked.
    async fn mask_objects(&self, plan: &Plan) -> Result<(), TaskError> {
        let (store, archiving) = (&self.worker.store, &self.worker.settings.archiving);
        let mut from = self.redaction.from.cursor_before();
        while let Some(object) = store.object_after(self.run, from).await? {
            if object.after >= self.redaction.to {
                break;
            }
            from = object.upto;
            if let Plan::Text(edits) = plan
                && edits
                    .range((Excluded(object.after), Included(object.upto)))
                    .next()
                    .is_none()
            {
                continue;
            }
            let place = archiving.place.as_ref();
            let place = place.ok_or(ArchiveReadError::NotConfigured)?;
            let mask = |event: &Event| self.masked(plan, event);
            let written = write_replacement(store, place, &self.archive, &object, mask).await?;
            let Some(new) = written else { continue };
            let (id, replaced) = (self.redaction.id, new.replaced);
            let is_kept = store
                .replace_archive(object.id, new.id, &new.written, &new.index, id, replaced)
                .await?;
            if !is_kept {
                return Err(WriteError::Superseded(self.run).into());
            }
        }
        Ok(())
    }

    /// Masks what Postgres holds beside events.
    async fn mask_copies(&self, messages: &[String]) -> Result<(), TaskError> {
        let (store, redaction) = (&self.worker.store, &self.redaction);
        let needles: Vec<Needle> = match &redaction.text {
            Some(text) => vec![Needle::new(text)],
            None => {
                let (from, to) = (redaction.from, redaction.to);
                store.remove_dead_letters(self.run, from, to).await?;
                let messages = messages.iter().map(String::as_bytes);
                messages.map(Needle::new).collect()
            }
        };
        for needle in &needles {
            let mask = |bytes: &[u8], is_json: bool| needle.masked(bytes, is_json);
            store.mask_copies(self.run, mask).await?;
        }
        Ok(())
    }

    /// Removes the stored events from Redis.
    async fn trim_redis(&self) -> Result<(), TaskError> {
        let keys = self.worker.keys.run(self.run);
        let settle = Settle {
            watermark: self.coverage.watermark,
            sealed: None,
            ready_ids: &[],
            durable: &[],
            window: LiveWindow {
                events: 0,
                bytes: 0,
                ..LiveWindow::default()
            },
        };
        self.worker
            .redis
            .run(keys.slot, async |connection| {
                settle.call(&keys, connection).await
            })
            .await?;
        Ok(())
    }

    /// Tells gateways and viewers, before the redaction counts as finished: gateways keep the
    /// events as they were until then.
    async fn announce(&self) -> Result<(), TaskError> {
        let (redis, keys, run) = (&self.worker.redis, &self.worker.keys, self.run);
        if let Some(update) = self.worker.store.redacted_update(run).await? {
            run_update::publish_to_viewers(redis, keys, &update).await?;
            run_update::publish_to_feed(redis, keys, &[update]).await?;
        }
        Ok(())
    }
}

/// The message of a status change.
fn message_of(line: &[u8]) -> Option<String> {
    let head = Head::parse(line).ok()?;
    if head.kind != Kind::Status {
        return None;
    }
    let change: StatusChange = serde_json::from_slice(line).ok()?;
    change.message.filter(|message| !message.is_empty())
}
