//! The producer of a request: where it resumes, and how its batches are appended.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use runcast_common::backoff::Backoff;
use runcast_common::protocol::encoding::Body;
use runcast_common::protocol::event_id::EventId;
use runcast_common::scripts::{Append, AppendAs, AppendOutcome, AppendReply, Cap, request_repair};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Batch;
use crate::Gateway;
use crate::problem::Problem;

/// How long a request waits for room in a full run before it is refused.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How often an append that Redis refuses is tried again while a persister repairs the run, and how
/// long to wait before.
const MAX_REPAIRS: u32 = 10;
const REPAIR_WAIT: Duration = Duration::from_millis(200);

/// Longest name of a producer.
const MAX_PRODUCER_BYTES: usize = 200;

/// The answer: how many of the producer's events are stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedEvents {
    producer: Uuid,
    /// Highest seq of the producer that Redis holds.
    stored: u64,
    /// Highest seq of the producer that Postgres holds.
    durable: u64,
    /// Id of the run's last event.
    #[schema(value_type = String)]
    last_id: EventId,
}

/// The producer of a request, and its progress.
pub(super) struct Producer {
    run: Uuid,
    id: Uuid,
    epoch: u64,
    /// Highest seq that Postgres held when the request began.
    base: u64,
    /// Seq of the next event.
    next: u64,
    /// The last reply of the append script.
    last: AppendReply,
}

impl Producer {
    pub(super) async fn of(
        gateway: &Gateway,
        run: Uuid,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let id = match text(headers, "producer-id")? {
            None => Uuid::now_v7(),
            Some(name) if name.len() > MAX_PRODUCER_BYTES => {
                let detail = format!("Producer-Id is over the limit of {MAX_PRODUCER_BYTES} bytes");
                return Err(Problem::bad_request(detail));
            }
            Some(name) => {
                Uuid::try_parse(name).unwrap_or_else(|_a_name| Uuid::new_v5(&run, name.as_bytes()))
            }
        };
        let mut producer = Self {
            run,
            id,
            epoch: number(headers, "producer-epoch")?.unwrap_or(0),
            base: 0,
            next: 0,
            last: AppendReply {
                outcome: AppendOutcome::Full,
                last: EventId::ZERO,
                durable: 0,
            },
        };
        // What Postgres holds counts even if Redis no longer knows this producer.
        producer.base = gateway.store().durable_seq(run, id).await?;
        let stored = match producer.call(gateway, 0, b"").await?.outcome {
            AppendOutcome::Stored { stored } => stored,
            outcome => return Err(refused(outcome, &producer.last)),
        };
        producer.next = match number(headers, "producer-seq")? {
            Some(0) => return Err(Problem::bad_request("Producer-Seq counts from 1")),
            Some(first) => first,
            None => stored + 1,
        };
        Ok(producer)
    }

    /// Appends a batch without the events that the run already has. While the run is full it waits,
    /// which a streamed body feels as back-pressure.
    pub(super) async fn append(&mut self, gateway: &Gateway, batch: &Batch) -> Result<(), Problem> {
        let (mut body, mut count) = (&batch.body[..], batch.count);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let deadline = Instant::now() + MAX_WAIT;
        while count > 0 {
            match self.call(gateway, count, body).await?.outcome {
                AppendOutcome::Stored { .. } => {
                    self.next += count;
                    count = 0;
                }
                AppendOutcome::Gap { expected }
                    if expected > self.next && expected < self.next + count =>
                {
                    let known = expected - self.next;
                    body = after_lines(body, known);
                    count -= known;
                    self.next = expected;
                }
                AppendOutcome::Full if Instant::now() < deadline => {
                    sleep(backoff.next_wait()).await;
                }
                outcome => return Err(refused(outcome, &self.last)),
            }
        }
        Ok(())
    }

    async fn call(
        &mut self,
        gateway: &Gateway,
        count: u64,
        body: &[u8],
    ) -> Result<AppendReply, Problem> {
        let append = Append {
            producer: self.id,
            producer_epoch: self.epoch,
            base: self.base,
            acked: 0,
            first: self.next,
            count,
            body: Body::compress(body),
            cap: Cap::default(),
        };
        let (redis, keys) = (gateway.redis(), gateway.keys().run(self.run));
        let mut attempts = 0;
        loop {
            let appended = redis.run(keys.slot, async |connection| {
                append.call(&keys, AppendAs::Service, connection).await
            });
            match appended.await {
                Ok(appended) => {
                    self.last = appended;
                    return Ok(appended);
                }
                // A publisher has written to the keys of the run by itself: a persister repairs
                // them.
                Err(error)
                    if matches!(error.code(), Some("ERR" | "WRONGTYPE"))
                        && attempts < MAX_REPAIRS =>
                {
                    attempts += 1;
                    let requested = redis.run(keys.slot, async |connection| {
                        request_repair(&keys, connection).await
                    });
                    requested.await?;
                    sleep(REPAIR_WAIT).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Adds to a problem what need not be sent again.
    pub(super) fn with_progress(&self, problem: Problem) -> Problem {
        problem
            .with("stored", self.next.saturating_sub(1))
            .with("durable", self.last.durable)
    }

    pub(super) fn accepted(&self) -> AcceptedEvents {
        AcceptedEvents {
            producer: self.id,
            stored: self.next.saturating_sub(1),
            durable: self.last.durable,
            last_id: self.last.last,
        }
    }
}

/// The rest of a body after its first `lines` lines.
fn after_lines(body: &[u8], lines: u64) -> &[u8] {
    let skip = usize::try_from(lines).unwrap_or(usize::MAX);
    match skip
        .checked_sub(1)
        .and_then(|last| memchr::memchr_iter(b'\n', body).nth(last))
    {
        Some(end) => &body[end + 1..],
        None => body,
    }
}

fn refused(outcome: AppendOutcome, last: &AppendReply) -> Problem {
    let durable = last.durable;
    match outcome {
        AppendOutcome::Gap { expected } => Problem::new(
            StatusCode::CONFLICT,
            format!("events are missing: the next Producer-Seq must be {expected}"),
        )
        .with("expected", expected),
        AppendOutcome::Fenced { by } => Problem::new(
            StatusCode::CONFLICT,
            format!("a newer process of this producer has taken over, with Producer-Epoch {by}"),
        )
        .with("epoch", by),
        AppendOutcome::Gone => Problem::gone("the run was deleted"),
        AppendOutcome::Full | AppendOutcome::Stored { .. } => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "the run is full until its events are stored: send the rest again later",
        ),
    }
    .with("durable", durable)
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    match headers.get(name).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(Err(_not_ascii)) => Err(Problem::bad_request(format!("{name} is not ASCII"))),
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = text(headers, name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if number < 1 << 53 => Ok(Some(number)),
        _ => Err(Problem::bad_request(format!(
            "{name} must be a number below 2^53"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_events_are_skipped() {
        assert_eq!(after_lines(b"a\nb\nc\n", 0), b"a\nb\nc\n");
        assert_eq!(after_lines(b"a\nb\nc\n", 2), b"c\n");
    }
}
