//! Control commands to this variation of the run, and the answers to them.
//!
//! A task reads them by the way that events take: with a blocking `XREAD` on a connection to Redis
//! of its own, or from the [notices](crate::transport::notices) of the gateway. It publishes each
//! command as `received` and hands it to the caller, whose answer, `done` or `refused`, it
//! publishes too; then it deletes the command from the stream. A command without an answer comes
//! again on the next connection and to the next process, but each process sees it only once.
//!
//! Bounds: [`MAX_KNOWN_COMMANDS`] ids that this process has seen, [`MAX_WAITING_COMMANDS`] that
//! wait for the caller. Time: [`BLOCK_TIME`] and the usual Redis deadline for a read;
//! [`RECEIVED_TIMEOUT`] to publish `received`, which must not delay the command; [`SETTLE_TIMEOUT`]
//! to delete a command once its answer is in Redis.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use runcast_common::backoff::Backoff;
use runcast_common::commands::{self, CommandEntry, MAX_PENDING_COMMANDS, STREAM_START};
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::event::{Action, Control, ControlState, Kind};
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::REDIS_DEADLINE;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::handle::Publisher;
use crate::error::PublishError;
use crate::queue::event_queue::Queue;
use crate::sender::progress::Progress;
use crate::transport::notices::Notices;
use crate::transport::selector::ActiveTransport;

/// Longest read without a command: short enough to notice a half-open connection.
const BLOCK_TIME: Duration = Duration::from_secs(30);

/// Commands that wait for the caller; further ones stay in Redis.
const MAX_WAITING_COMMANDS: usize = 16;

/// Ids of commands that are remembered: as many as may be pending in Redis.
const MAX_KNOWN_COMMANDS: usize = MAX_PENDING_COMMANDS;

/// Longest delay of a command while a full queue has no room for its `received`.
const RECEIVED_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for an answer to be in Redis and its command to be deleted from the stream.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where commands come from.
#[derive(Debug, Clone)]
pub(super) struct CommandSource {
    pub(super) keys: RunKeys,
    pub(super) variation: u16,
    /// The way that events take.
    pub(super) active: watch::Receiver<ActiveTransport>,
    pub(super) notices: watch::Receiver<Notices>,
}

impl Publisher {
    /// The control commands to this variation of the run. Call it once, within a tokio runtime:
    /// each returned value receives every command. Reading ends with the returned value or the
    /// publisher.
    #[must_use]
    pub fn commands(&self) -> Commands {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_COMMANDS);
        let source = self.shared.commands.clone();
        let reader = source.map(|source| CommandReader {
            source,
            queue: Arc::clone(&self.shared.queue),
            progress: self.shared.progress.clone(),
            history: CommandHistory::default(),
        });
        let reading = async move {
            if let Some(reader) = reader {
                reader.run(&sender).await;
            } else {
                sender.closed().await;
            }
        };
        Commands {
            receiver,
            _reading: AbortOnDropHandle::new(tokio::spawn(reading)),
        }
    }
}

/// The commands of a run, as they arrive.
#[derive(Debug)]
pub struct Commands {
    receiver: mpsc::Receiver<Command>,
    _reading: AbortOnDropHandle<()>,
}

impl Commands {
    /// Waits for the next command; none once the publisher has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Command> {
        self.receiver.recv().await
    }

    /// The next command, if one has arrived already.
    pub fn try_next(&mut self) -> Option<Command> {
        self.receiver.try_recv().ok()
    }
}

/// A command that must be answered.
#[derive(Debug)]
#[must_use = "a command without an answer comes again"]
pub struct Command {
    command: commands::Command,
    entry: String,
    reader: CommandReader,
}

impl Command {
    /// The requested action.
    pub const fn action(&self) -> Action {
        self.command.action
    }

    /// The command's id, which all its events carry.
    pub const fn id(&self) -> Uuid {
        self.command.id
    }

    /// The user who sent it.
    pub fn by(&self) -> &str {
        &self.command.by
    }

    /// The text of [`Action::Input`].
    pub fn data(&self) -> &str {
        &self.command.data
    }

    /// Answers that the command was carried out. If this fails, the command comes again to the next
    /// process.
    pub async fn done(self) -> Result<(), PublishError> {
        self.answer(ControlState::Done, None).await
    }

    /// Answers that the command will not be carried out, and why. If this fails, the command comes
    /// again to the next process.
    pub async fn refuse(self, reason: &str) -> Result<(), PublishError> {
        self.answer(ControlState::Refused, Some(reason.to_owned()))
            .await
    }

    async fn answer(self, state: ControlState, reason: Option<String>) -> Result<(), PublishError> {
        let Self {
            command,
            entry,
            mut reader,
        } = self;
        let event = control_event(&command, state, reason);
        let queue = Arc::clone(&reader.queue);
        let seq = queue.push_when_room(Kind::Control, &event).await?;
        reader.history.mark_answered(command.id);
        let settled = async {
            // Delete the command only once the answer is in Redis: if the process dies in between,
            // the command comes again. Events that are dropped meanwhile lower the last seq.
            let is_in_redis = |now: &Progress| now.acked >= seq.min(queue.last_seq());
            if reader.progress.wait_for(is_in_redis).await.is_ok() {
                reader.delete(&entry).await;
            }
        };
        if timeout(SETTLE_TIMEOUT, settled).await.is_err() {
            tracing::warn!(command = %command.id, "an answered command is still in Redis");
        }
        Ok(())
    }
}

fn control_event(
    command: &commands::Command,
    state: ControlState,
    reason: Option<String>,
) -> Control {
    Control {
        command: command.action,
        id: command.id,
        state,
        by: None,
        reason,
    }
}

/// Reads commands and deletes answered ones.
#[derive(Debug, Clone)]
struct CommandReader {
    source: CommandSource,
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
    history: CommandHistory,
}

impl CommandReader {
    /// Reads until the caller drops its [`Commands`] or the publisher ends.
    async fn run(self, commands: &mpsc::Sender<Command>) {
        let mut progress = self.progress.clone();
        tokio::select! {
            () = commands.closed() => {}
            _ended = progress.wait_for(|_now| false) => {}
            () = self.keep_reading(commands) => {}
        }
    }

    async fn keep_reading(&self, commands: &mpsc::Sender<Command>) {
        let mut active = self.source.active.clone();
        let mut backoff = Backoff::for_connections();
        loop {
            let way = active.borrow_and_update().clone();
            let read = match way {
                ActiveTransport::Redis(redis) => {
                    self.read(&redis, &mut active, commands, &mut backoff).await
                }
                ActiveTransport::Gateway(_) => {
                    self.take_notices(&mut active, commands).await;
                    Ok(())
                }
                // The sender has ended if there will be no other.
                ActiveTransport::None => match active.changed().await {
                    Ok(()) => Ok(()),
                    Err(_ended) => return,
                },
            };
            let Err(error) = read else {
                continue;
            };
            if error.code() == Some("NOPERM") {
                tracing::warn!(%error, "commands to this run cannot be read");
                return;
            }
            tracing::debug!(%error, "commands cannot be read at the moment, retrying");
            sleep(backoff.next_wait()).await;
        }
    }

    /// Reads from one connection to Redis, until it breaks or events take another way.
    async fn read(
        &self,
        redis: &Redis,
        active: &mut watch::Receiver<ActiveTransport>,
        commands: &mpsc::Sender<Command>,
        backoff: &mut Backoff,
    ) -> Result<(), RedisFailure> {
        let keys = &self.source.keys;
        let mut connection = redis.dedicated(keys.slot).await?;
        let mut after = STREAM_START.to_owned();
        loop {
            // 1. Wait for entries.
            let read = commands::read(keys, &after, BLOCK_TIME);
            let deadline = BLOCK_TIME + REDIS_DEADLINE;
            let reply = tokio::select! {
                reply = timeout(deadline, read.query_async::<Value>(&mut connection)) => reply,
                _changed = active.changed() => return Ok(()),
            };
            let reply = reply.map_err(|_elapsed| redis.timed_out(deadline))?;
            let entries = reply.and_then(commands::parse);
            let entries = entries.map_err(|error| redis.failed(error))?;
            backoff.reset();
            // 2. Hand on those for this variation.
            for entry in entries {
                after.clone_from(&entry.entry);
                self.consider(entry, commands).await;
            }
        }
    }

    /// Takes what the gateway tells, until events take another way.
    async fn take_notices(
        &self,
        active: &mut watch::Receiver<ActiveTransport>,
        commands: &mpsc::Sender<Command>,
    ) {
        let mut notices = self.source.notices.clone();
        loop {
            let told = notices.borrow_and_update().commands.clone();
            for entry in told {
                self.consider(entry, commands).await;
            }
            tokio::select! {
                changed = notices.changed() => if changed.is_err() { return },
                _changed = active.changed() => return,
            }
        }
    }

    /// Hands on a command, if it is for this variation.
    async fn consider(&self, entry: CommandEntry, commands: &mpsc::Sender<Command>) {
        let CommandEntry { entry, command } = entry;
        match command {
            Some(command) if command.variation == self.source.variation => {
                self.hand_on(entry, command, commands).await;
            }
            Some(_of_another_variation) => {}
            None => tracing::warn!(entry, "a command cannot be parsed and is ignored"),
        }
    }

    async fn hand_on(
        &self,
        entry: String,
        command: commands::Command,
        commands: &mpsc::Sender<Command>,
    ) {
        match self.history.record(command.id) {
            CommandState::New => {}
            CommandState::Received => return,
            // The answer is published; what failed was to delete the command.
            CommandState::Answered => {
                return drop(timeout(SETTLE_TIMEOUT, self.delete(&entry)).await);
            }
        }
        let received = control_event(&command, ControlState::Received, None);
        let pushed = self.queue.push_when_room(Kind::Control, &received);
        if !matches!(timeout(RECEIVED_TIMEOUT, pushed).await, Ok(Ok(_seq))) {
            let id = command.id;
            tracing::warn!(command = %id, "the queue had no room for the `received` of a command");
        }
        let command = Command {
            command,
            entry,
            reader: self.clone(),
        };
        // Fails if the caller has dropped its `Commands`: the next process gets the command.
        drop(commands.send(command).await);
    }

    /// Deletes a command from the stream. Retries until that succeeds; the caller bounds the time.
    async fn delete(&self, entry: &str) {
        let keys = &self.source.keys;
        let mut backoff = Backoff::for_connections();
        loop {
            let way = self.source.active.borrow().clone();
            let deleted = match way {
                ActiveTransport::Redis(redis) => {
                    let command = commands::acknowledge(keys, entry);
                    let deleted = redis.query::<u64>(keys.slot, &command).await;
                    deleted.map(drop).map_err(|error| error.to_string())
                }
                ActiveTransport::Gateway(client) => {
                    let removed = client.remove_command(keys.run, entry).await;
                    removed.map_err(|error| error.to_string())
                }
                ActiveTransport::None => Err("nothing is connected".to_owned()),
            };
            let Err(error) = deleted else {
                return;
            };
            tracing::debug!(error, entry, "a command could not be deleted, retrying");
            sleep(backoff.next_wait()).await;
        }
    }
}

/// What this process has done with a command so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandState {
    New,
    Received,
    Answered,
}

/// The commands that this process has seen; beyond the limit it forgets the oldest.
#[derive(Debug, Clone, Default)]
struct CommandHistory(Arc<Mutex<VecDeque<(Uuid, CommandState)>>>);

impl CommandHistory {
    /// Records that a command has arrived, and returns its state before that.
    fn record(&self, id: Uuid) -> CommandState {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, state)) = seen.iter().find(|(one, _)| *one == id) {
            return *state;
        }
        if seen.len() == MAX_KNOWN_COMMANDS {
            seen.pop_front();
        }
        seen.push_back((id, CommandState::Received));
        CommandState::New
    }

    fn mark_answered(&self, id: Uuid) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, state)) = seen.iter_mut().find(|(one, _)| *one == id) {
            *state = CommandState::Answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_remembered_until_many_others_have_arrived() {
        let history = CommandHistory::default();
        let id = Uuid::from_u128;
        assert_eq!(history.record(id(0)), CommandState::New);
        assert_eq!(history.record(id(0)), CommandState::Received);
        history.mark_answered(id(0));
        assert_eq!(history.record(id(0)), CommandState::Answered);
        for other in 1..=MAX_KNOWN_COMMANDS as u128 {
            assert_eq!(history.record(id(other)), CommandState::New);
        }
        assert_eq!(history.record(id(0)), CommandState::New);
    }
}
