//! Commands to this variation of the run, and the answers to them.
//!
//! A task reads them from a connection of its own by a blocking `XREAD`; while there are none that is
//! all it does. Each command is published as `received`, handed on, and answered by its taker as
//! `done` or `refused`; then it is taken off the stream. A command that was not answered comes again
//! when the connection or the process is a new one, but to one process only once.
//!
//! Bounds: [`REMEMBERED`] commands that this process has had, [`WAITING`] that wait to be taken. Time:
//! [`BLOCK`] and the usual Redis deadline for a read, [`RECEIVED_WITHIN`] for telling that a command is
//! here, which must not hold it up, [`SETTLE_WITHIN`] for taking it off once its answer is published.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::commands::{self, CommandEntry, MAX_PENDING_COMMANDS, STREAM_START};
use runcast_common::protocol::event::{Action, Control, ControlState, Kind};
use runcast_common::protocol::keys::RunKeys;
use runcast_common::protocol::limits::REDIS_DEADLINE;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{PublishError, Publisher};
use crate::progress::Progress;
use crate::queue::Queue;

/// Longest read without a command: often enough that a connection which is half open is noticed.
const BLOCK: Duration = Duration::from_secs(30);

/// Commands that wait to be taken; more stay in Redis.
const WAITING: usize = 16;

/// Commands that are known by their ids: as many as may wait in Redis.
const REMEMBERED: usize = MAX_PENDING_COMMANDS;

/// How long a command is held up by a full queue in which its `received` has no room.
const RECEIVED_WITHIN: Duration = Duration::from_secs(1);

/// Longest wait for an answer to be in Redis, and for its command to be taken off the stream.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// Where commands come from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) redis: Redis,
    pub(super) keys: RunKeys,
    pub(super) variation: u16,
}

impl Publisher {
    /// The commands to this variation of the run, at least once each, and once to each caller: to be
    /// called once. Reading ends with the returned value or with the publisher, whichever is first.
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn control(&self) -> Commands {
        let (sender, taken) = mpsc::channel(WAITING);
        let source = self.shared.commands.clone();
        let line = source.map(|source| Line {
            source,
            queue: Arc::clone(&self.shared.queue),
            progress: self.shared.progress.clone(),
            had: Had::default(),
        });
        let listening = async move {
            if let Some(line) = line {
                line.listen(&sender).await;
            } else {
                sender.closed().await;
            }
        };
        Commands {
            taken,
            _listening: AbortOnDropHandle::new(tokio::spawn(listening)),
        }
    }
}

/// The commands as they come.
#[derive(Debug)]
pub struct Commands {
    taken: mpsc::Receiver<Command>,
    _listening: AbortOnDropHandle<()>,
}

impl Commands {
    /// The next command; none once the publisher has ended. Can be dropped at any time.
    pub async fn next(&mut self) -> Option<Command> {
        self.taken.recv().await
    }

    /// A command that is here already.
    pub fn try_next(&mut self) -> Option<Command> {
        self.taken.try_recv().ok()
    }
}

/// A command, to be answered.
#[derive(Debug)]
#[must_use = "a command that is not answered comes again"]
pub struct Command {
    command: commands::Command,
    entry: String,
    line: Line,
}

impl Command {
    /// What is wanted.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.command.action
    }

    /// Its id, which all its events carry.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.command.id
    }

    /// Who wants it.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.command.by
    }

    /// The text of [`Action::Input`].
    #[must_use]
    pub fn data(&self) -> &str {
        &self.command.data
    }

    /// It is carried out.
    ///
    /// # Errors
    /// [`PublishError`] if that cannot be published; the command then comes again to the next process.
    pub async fn done(self) -> Result<(), PublishError> {
        self.answer(ControlState::Done, None).await
    }

    /// It will not be carried out, and why.
    ///
    /// # Errors
    /// As [`done`](Self::done).
    pub async fn refuse(self, reason: &str) -> Result<(), PublishError> {
        self.answer(ControlState::Refused, Some(reason.to_owned()))
            .await
    }

    async fn answer(self, state: ControlState, reason: Option<String>) -> Result<(), PublishError> {
        let Self {
            command,
            entry,
            mut line,
        } = self;
        let event = event(&command, state, reason);
        let queue = Arc::clone(&line.queue);
        let seq = queue.push_when_room(Kind::Control, &event).await?;
        line.had.answer(command.id);
        let settled = async {
            // Not before the answer is in Redis, so that a death in between repeats the command. What
            // was dropped meanwhile is not waited for.
            let there = |now: &Progress| now.acked >= seq.min(queue.last_seq());
            if line.progress.wait_for(there).await.is_ok() {
                line.take_off(&entry).await;
            }
        };
        if timeout(SETTLE_WITHIN, settled).await.is_err() {
            tracing::warn!(command = %command.id, "a command is answered, but still stands in Redis");
        }
        Ok(())
    }
}

fn event(command: &commands::Command, state: ControlState, reason: Option<String>) -> Control {
    Control {
        command: command.action,
        id: command.id,
        state,
        by: None,
        reason,
    }
}

/// What it takes to read commands and to answer them.
#[derive(Debug, Clone)]
struct Line {
    source: Source,
    queue: Arc<Queue>,
    progress: watch::Receiver<Progress>,
    had: Had,
}

impl Line {
    /// Reads until nobody takes commands any more or nothing can be published any more.
    async fn listen(self, commands: &mpsc::Sender<Command>) {
        let mut progress = self.progress.clone();
        tokio::select! {
            () = commands.closed() => {}
            _ended = progress.wait_for(|_now| false) => {}
            () = self.keep_attending(commands) => {}
        }
    }

    async fn keep_attending(&self, commands: &mpsc::Sender<Command>) {
        let mut backoff = Backoff::for_connections();
        loop {
            let Err(error) = self.attend(commands, &mut backoff).await;
            if error.code() == Some("NOPERM") {
                tracing::warn!(%error, "commands to this run cannot be read: see `runcastd acl`");
                return;
            }
            tracing::debug!(%error, "commands are not read for now");
            sleep(backoff.next_wait()).await;
        }
    }

    /// Serves one connection until it breaks.
    async fn attend(
        &self,
        commands: &mpsc::Sender<Command>,
        backoff: &mut Backoff,
    ) -> Result<Infallible, RedisFailure> {
        let Source { redis, keys, .. } = &self.source;
        let mut connection = redis.dedicated(keys.slot).await?;
        let mut after = STREAM_START.to_owned();
        loop {
            let read = commands::read(keys, &after, BLOCK);
            let deadline = BLOCK + REDIS_DEADLINE;
            let reply = timeout(deadline, read.query_async::<Value>(&mut connection))
                .await
                .map_err(|_elapsed| redis.silent(deadline))?;
            let entries = reply.and_then(commands::parse);
            let entries = entries.map_err(|error| redis.failed(error))?;
            backoff.reset();
            for CommandEntry { entry, command } in entries {
                after.clone_from(&entry);
                match command {
                    Some(command) if command.variation == self.source.variation => {
                        self.take(entry, command, commands).await;
                    }
                    Some(_of_another) => {}
                    None => tracing::warn!(entry, "a command is not understood and left alone"),
                }
            }
        }
    }

    async fn take(
        &self,
        entry: String,
        command: commands::Command,
        commands: &mpsc::Sender<Command>,
    ) {
        match self.had.take(command.id) {
            Known::New => {}
            Known::Had => return,
            // The answer is out, and what failed was to take the command off.
            Known::Answered => return drop(timeout(SETTLE_WITHIN, self.take_off(&entry)).await),
        }
        let received = event(&command, ControlState::Received, None);
        let told = self.queue.push_when_room(Kind::Control, &received);
        if !matches!(timeout(RECEIVED_WITHIN, told).await, Ok(Ok(_seq))) {
            tracing::warn!(command = %command.id, "a command is taken, and there was no room to say so");
        }
        let command = Command {
            command,
            entry,
            line: self.clone(),
        };
        // It fails where nobody takes commands any more: the next process gets it.
        drop(commands.send(command).await);
    }

    /// Tries until it is done; the caller bounds that.
    async fn take_off(&self, entry: &str) {
        let Source { redis, keys, .. } = &self.source;
        let command = commands::acknowledge(keys, entry);
        let mut backoff = Backoff::for_connections();
        while let Err(error) = redis.query::<u64>(keys.slot, &command).await {
            tracing::debug!(%error, entry, "a command could not be taken off");
            sleep(backoff.next_wait()).await;
        }
    }
}

/// What is known of a command that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    New,
    Had,
    Answered,
}

/// The commands that this process has had, the oldest forgotten first.
#[derive(Debug, Clone, Default)]
struct Had(Arc<Mutex<VecDeque<(Uuid, Known)>>>);

impl Had {
    /// Notes a command, and says what was known of it.
    fn take(&self, id: Uuid) -> Known {
        let mut had = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = had.iter().find(|(one, _)| *one == id) {
            return *known;
        }
        if had.len() == REMEMBERED {
            had.pop_front();
        }
        had.push_back((id, Known::Had));
        Known::New
    }

    fn answer(&self, id: Uuid) {
        let mut had = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = had.iter_mut().find(|(one, _)| *one == id) {
            *known = Known::Answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_its_id_until_many_others_have_come() {
        let had = Had::default();
        let id = Uuid::from_u128;
        assert_eq!(had.take(id(0)), Known::New);
        assert_eq!(had.take(id(0)), Known::Had);
        had.answer(id(0));
        assert_eq!(had.take(id(0)), Known::Answered);
        for other in 1..=REMEMBERED as u128 {
            assert_eq!(had.take(id(other)), Known::New);
        }
        assert_eq!(had.take(id(0)), Known::New);
    }
}
