//! The sending task: owns the publisher's ways out, its retransmit buffer and its send window.
//!
//! - **Batching.** A closed batch leaves as soon as the window allows. So does an open one, unless
//!   many batches were sent just before: then it waits up to [`LINGER`](super::schedule::LINGER)
//!   for more events. Events of a quiet stream never wait.
//! - **Storing.** A batch is in the retransmit buffer, and in the spool if there is one, before it
//!   is sent.
//! - **Replies.** `ok` advances; `gap` resends from the event that Redis expects; `full` waits and
//!   retries; `fenced` stops the publisher. A network error, or no reply in time, closes the
//!   connection: the task reconnects for as long as the publisher lives, by the same way or the
//!   other one, and resends what was not acknowledged. The script never appends an event twice.
//! - **Durability.** Each reply says what Postgres holds. While the task has nothing to send but
//!   waits for Postgres it queries the state, after
//!   [`MIN_QUERY_INTERVAL`](super::schedule::MIN_QUERY_INTERVAL) and then at growing intervals. A
//!   gateway tells it without being asked. An idle task whose events are all durable sleeps.
//!
//! The task has no time limit of its own: `close`, or dropping the publisher, bounds it from
//! outside.

use std::sync::Arc;

use runcast_common::backoff::Backoff;
use runcast_common::protocol::encoding::Body;
use runcast_common::scripts::{Append, AppendReply, Cap};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::intake::Intake;
use super::progress::{Progress, ProgressReporter};
use super::replies::{ReplyAction, classify};
use super::schedule::SendSchedule;
use crate::error::Stopped;
use crate::queue::batch::Batch;
use crate::queue::event_queue::Queue;
use crate::retransmit::buffer::RetransmitBuffer;
use crate::retransmit::send_window::{NextStep, Request, SendWindow};
use crate::transport::connection::{Connection, ConnectionError, RequestReply};
use crate::transport::notices::Notices;
use crate::transport::selector::TransportSelector;

/// The producer and the run that it publishes to.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) producer: Uuid,
    pub(crate) producer_epoch: u64,
    pub(crate) run: Uuid,
    pub(crate) cap: Cap,
}

/// The state of the task.
pub(crate) struct Sender {
    queue: Arc<Queue>,
    /// None while the target is unknown: the task then only stores events.
    transports: Option<TransportSelector>,
    /// What a gateway tells without being asked.
    notices: watch::Receiver<Notices>,
    identity: Identity,
    intake: Intake,
    buffer: RetransmitBuffer,
    window: SendWindow,
    schedule: SendSchedule,
    reconnect: Backoff,
    /// Whether the log has said that publishing is interrupted.
    is_outage_reported: bool,
    /// Dropped after the buffer: a spool is closed before `close` learns that the task has ended.
    progress: ProgressReporter,
}

/// Why the task stopped serving a connection.
enum ConnectionEnd {
    /// Postgres holds everything that will ever be published.
    Done,
    Fenced {
        by: u64,
    },
    /// The run was deleted.
    Gone,
    Broken(ConnectionError),
    /// A better way works again.
    Replaced(Connection),
}

impl Sender {
    pub(crate) fn new(
        queue: Arc<Queue>,
        transports: Option<TransportSelector>,
        notices: watch::Receiver<Notices>,
        identity: Identity,
        buffer: RetransmitBuffer,
        variation: u16,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let window = SendWindow::new(&buffer, variation);
        Self {
            intake: Intake::new(Arc::clone(&queue), &window),
            progress: ProgressReporter::new(Arc::clone(&queue), progress),
            queue,
            transports,
            notices,
            identity,
            buffer,
            window,
            schedule: SendSchedule::new(),
            reconnect: Backoff::for_connections(),
            is_outage_reported: false,
        }
    }

    /// Sends until the queue has ended and everything is durable, or a newer process takes over.
    pub(crate) async fn run(&mut self) {
        let Some(mut transports) = self.transports.take() else {
            return self.store_while(std::future::pending()).await;
        };
        let mut opened = None;
        let reason = loop {
            let mut connection = match opened.take() {
                Some(connection) => connection,
                None => self.connect(&mut transports).await,
            };
            match self.serve(&mut connection, &mut transports).await {
                ConnectionEnd::Done => {
                    // A finished run whose events are all in Postgres needs no files.
                    if self.intake.is_final() {
                        self.buffer.delete_spool();
                    }
                    break Stopped::Closed;
                }
                ConnectionEnd::Fenced { by } => break Stopped::Fenced { by },
                ConnectionEnd::Replaced(better) => {
                    drop(connection);
                    self.window.on_disconnect();
                    opened = Some(better);
                }
                ConnectionEnd::Gone => break Stopped::Deleted,
                ConnectionEnd::Broken(error) => {
                    drop(connection);
                    self.window.on_disconnect();
                    let has_other_way = transports.on_failure(&error);
                    self.wait_to_reconnect(&error, &transports, has_other_way)
                        .await;
                }
            }
        };
        self.progress.set_stopped(reason);
    }

    /// Stores what is left in the queue in the spool: nothing will be sent any more.
    pub(crate) fn spool_rest(&mut self) {
        self.intake.spool_rest(&mut self.buffer, &self.window);
        self.progress.set_spooled(self.buffer.spooled_up_to());
    }

    /// Connects, however many attempts that takes.
    async fn connect(&mut self, transports: &mut TransportSelector) -> Connection {
        loop {
            match self.store_while(transports.connect()).await {
                Ok(connection) => return connection,
                Err(error) => self.wait_to_reconnect(&error, transports, false).await,
            }
        }
    }

    /// Waits before the next attempt; not before the first one by another way.
    async fn wait_to_reconnect(
        &mut self,
        error: &ConnectionError,
        transports: &TransportSelector,
        has_other_way: bool,
    ) {
        let is_first = self.reconnect.attempts() == 0;
        let wait = self.reconnect.next_wait();
        if is_first && has_other_way {
            tracing::debug!(%error, "publishing is interrupted, trying the other way");
            return;
        }
        self.report_outage(error, &transports.describe());
        self.store_while(sleep(wait)).await;
    }

    /// Awaits a future and keeps storing batches meanwhile.
    async fn store_while<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            self.intake.fill(&mut self.buffer, &self.window, false);
            self.progress.set_spooled(self.buffer.spooled_up_to());
            let timer = self.intake.next_timer(&mut self.buffer);
            tokio::select! {
                done = &mut future => return done,
                () = self.queue.changed() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    async fn serve(
        &mut self,
        connection: &mut Connection,
        transports: &mut TransportSelector,
    ) -> ConnectionEnd {
        // The reply says where to continue, and whether this producer may call the script at all.
        self.query_state(connection);
        self.schedule.reset_timers();
        loop {
            // 1. Store and send what the window allows.
            let linger_until = self.store_and_send(connection);
            if self.intake.has_ended() && self.window.is_durable(&self.buffer) {
                return ConnectionEnd::Done;
            }
            // 2. Query what Postgres holds, if that is due.
            self.query_if_due(connection);
            // 3. Wait for a reply, an event or a timer.
            let timers = linger_until.into_iter().chain(self.schedule.next_timer());
            let timer = timers.chain(self.intake.next_timer(&mut self.buffer)).min();
            tokio::select! {
                reply = connection.next_reply() => match reply {
                    Ok(reply) => if let Err(end) = self.handle_reply(connection, reply).await {
                        return end;
                    },
                    Err(error) => return ConnectionEnd::Broken(error),
                },
                better = transports.better() => return ConnectionEnd::Replaced(better),
                () = changed(&mut self.notices) => self.take_notices(),
                () = self.queue.changed() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
        }
    }

    /// Sends what the window allows. Returns until when the open batch may keep growing.
    fn store_and_send(&mut self, connection: &mut Connection) -> Option<Instant> {
        let now = Instant::now();
        let may_append = self.schedule.may_append(now);
        let mut is_open_left = self.intake.fill(&mut self.buffer, &self.window, false);
        if may_append {
            self.send_batches(connection, now);
        }
        // The open batch is taken only when the connection would otherwise be idle.
        let could_send_more = may_append
            && self.window.is_sent(&self.buffer)
            && connection.in_flight() < connection.max_in_flight();
        if !is_open_left || !could_send_more {
            return None;
        }
        let linger_until = self.schedule.linger_until();
        if linger_until > now && !self.queue.has_ended() {
            return Some(linger_until);
        }
        is_open_left = self.intake.fill(&mut self.buffer, &self.window, true);
        self.send_batches(connection, now);
        is_open_left.then(|| self.schedule.linger_until())
    }

    fn send_batches(&mut self, connection: &mut Connection, now: Instant) {
        let window = &mut self.window;
        let max = connection.max_in_flight();
        while let Some(batch) = window.next_batch(&mut self.buffer, connection.in_flight(), max) {
            connection.send(&append_call(&self.identity, window, &batch));
            window.mark_sent(&batch);
            self.schedule.on_sent(now);
        }
    }

    fn query_state(&self, connection: &mut Connection) {
        connection.send(&state_query(&self.identity, &self.window));
    }

    /// Queries what Postgres holds, if that is due and no reply in flight will say it.
    fn query_if_due(&mut self, connection: &mut Connection) {
        if self.window.is_durable(&self.buffer) {
            return self.schedule.stop_queries();
        }
        let is_told = self.notices.borrow().is_live;
        if self.schedule.is_query_due(Instant::now(), is_told) && connection.in_flight() == 0 {
            self.query_state(connection);
        }
    }

    /// Takes what the gateway has told about Postgres.
    fn take_notices(&mut self) {
        let told = self.notices.borrow_and_update().durable;
        let before = self.window.durable();
        self.window.on_durable(&mut self.buffer, told);
        if self.window.durable() > before {
            self.schedule.on_durable();
            self.report_progress();
        }
    }

    async fn handle_reply(
        &mut self,
        connection: &mut Connection,
        reply: RequestReply,
    ) -> Result<(), ConnectionEnd> {
        let durable_before = self.window.durable();
        match classify(reply.result, reply.is_current) {
            ReplyAction::Apply(appended) => self.apply(connection, reply.request, &appended)?,
            ReplyAction::ApplyDurable(appended) => {
                self.window.on_stale_reply(&mut self.buffer, &appended);
            }
            ReplyAction::Ignore => {}
            ReplyAction::LoadScript => {
                connection.supersede_calls();
                self.window.on_rejected(reply.request);
                let loaded = connection.load_script().await;
                loaded.map_err(ConnectionEnd::Broken)?;
            }
            ReplyAction::Pause(reason) => {
                connection.supersede_calls();
                self.window.on_rejected(reply.request);
                self.pause(&reason);
            }
            ReplyAction::Disconnect(error) => {
                return Err(ConnectionEnd::Broken(error));
            }
        }
        if self.window.durable() > durable_before {
            self.schedule.on_durable();
            self.report_progress();
        }
        Ok(())
    }

    fn apply(
        &mut self,
        connection: &mut Connection,
        request: Request,
        appended: &AppendReply,
    ) -> Result<(), ConnectionEnd> {
        let awaited_first_reply = self.window.awaits_first_reply();
        let step = self.window.on_reply(&mut self.buffer, request, appended);
        // Before any progress is reported: batches that were taken already may have new seqs.
        if awaited_first_reply && !self.window.awaits_first_reply() {
            self.queue.renumber(self.buffer.newest());
        }
        match step {
            NextStep::Advanced => self.on_advance(request),
            NextStep::Rewound => {
                connection.supersede_calls();
                self.schedule.on_rewind();
            }
            NextStep::Full => {
                connection.supersede_calls();
                self.pause("the run has reached its limit in Redis");
            }
            NextStep::Fenced { by } => return Err(ConnectionEnd::Fenced { by }),
            NextStep::Gone => return Err(ConnectionEnd::Gone),
        }
        Ok(())
    }

    fn pause(&mut self, reason: &str) {
        if self.schedule.is_advancing() {
            tracing::info!(
                run = %self.identity.run,
                reason,
                "Redis accepts no events at the moment, retrying"
            );
        }
        self.schedule.pause();
        self.progress.set_trouble(reason);
    }

    fn on_advance(&mut self, request: Request) {
        // The reply to a state query proves nothing about appends that still wait.
        if request != Request::State || self.window.is_sent(&self.buffer) {
            if std::mem::take(&mut self.is_outage_reported) {
                tracing::info!(run = %self.identity.run, "publishing resumed");
            }
            self.reconnect.reset();
            self.schedule.on_advance();
        }
        self.report_progress();
    }

    fn report_progress(&self) {
        let (acked, durable) = (self.window.acked(), self.window.durable());
        self.progress
            .advance(acked, durable, self.buffer.spooled_up_to());
    }

    /// Logs one warning per outage; further attempts are logged at debug level.
    fn report_outage(&mut self, error: &ConnectionError, to: &str) {
        if std::mem::replace(&mut self.is_outage_reported, true) {
            tracing::debug!(to, %error, "cannot connect yet");
        } else {
            tracing::warn!(to, %error, "publishing is interrupted, reconnecting");
        }
        self.progress.set_trouble(&error.to_string());
    }
}

/// Waits for a change, forever if there will be none.
async fn changed<T>(state: &mut watch::Receiver<T>) {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A call that appends a batch.
fn append_call<'a>(identity: &Identity, window: &SendWindow, batch: &'a Batch) -> Append<'a> {
    let query = state_query(identity, window);
    Append {
        first: batch.first,
        count: batch.count,
        body: Body::compress(&batch.body),
        // Skipped seqs do not exist, and everything before them is durable.
        base: match batch.skips {
            0 => query.base,
            _ => batch.first - 1,
        },
        ..query
    }
}

/// A call that appends nothing and returns the state of the run.
fn state_query(identity: &Identity, window: &SendWindow) -> Append<'static> {
    Append {
        producer: identity.producer,
        producer_epoch: identity.producer_epoch,
        base: window.durable(),
        acked: window.acked(),
        first: window.acked() + 1,
        count: 0,
        body: Body::Plain(b""),
        cap: identity.cap,
    }
}
