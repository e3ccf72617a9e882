//! What a gateway tells its agents without being asked: how far Postgres holds their events, and
//! the commands that wait for them.
//!
//! While the gateway is in use, one task reads one long answer, and publishes its state to the
//! sender and to [`Commands`](crate::Commands). A proxy that holds answers back until they are
//! whole is noticed when nothing arrives within [`FIRST_LINE_TIMEOUT`]: then the task asks every
//! [`POLL_INTERVAL`] instead, and says so once.
//!
//! Bounds: [`MAX_LINE_BYTES`] of an unfinished line; commands as many as may wait for a run. Time:
//! a line every 15 s, else the connection is dead after [`MAX_SILENCE`].

use std::time::Duration;

use bytes::Bytes;
use runcast_common::backoff::Backoff;
use runcast_common::commands::{Command, CommandEntry, MAX_PENDING_COMMANDS};
use runcast_common::protocol::event::Action;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::selector::ActiveTransport;
use crate::gateway_client::{ApiError, GatewayClient, ProducerOfRun};

/// Longest wait for the first line, which a gateway sends at once.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence: three lines are missing.
const MAX_SILENCE: Duration = Duration::from_secs(45);

/// Time between two questions behind a proxy that holds answers back.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Bound on an unfinished line: a command with its input is well below.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// What the gateway has told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notices {
    /// Highest seq of this producer that Postgres holds.
    pub(crate) durable: u64,
    /// Whether this is told as it happens, so that no query is needed.
    pub(crate) is_live: bool,
    /// The commands that were told since the gateway is in use, oldest first.
    pub(crate) commands: Vec<CommandEntry>,
}

/// Reads the notices for one producer.
#[derive(Debug)]
pub(crate) struct NoticeReader {
    pub(crate) producer: ProducerOfRun,
    pub(crate) variation: u16,
    pub(crate) active: watch::Receiver<ActiveTransport>,
    pub(crate) notices: watch::Sender<Notices>,
}

/// One line of the answer.
#[derive(Debug, Default, Deserialize)]
struct NoticeLine {
    durable: Option<u64>,
    command: Option<CommandLine>,
}

#[derive(Debug, Deserialize)]
struct CommandLine {
    entry: String,
    id: Uuid,
    command: String,
    by: String,
    #[serde(default)]
    data: String,
}

/// How a long answer ended.
enum AnswerEnd {
    /// The gateway, a proxy or the network ended it.
    Closed,
    /// Nothing came, not even the line that comes at once.
    HeldBack,
}

impl NoticeReader {
    /// Reads while the gateway is in use. It never ends by itself.
    pub(crate) async fn run(mut self) {
        loop {
            let active = self.active.borrow_and_update().clone();
            let mut changes = self.active.clone();
            match active {
                ActiveTransport::Gateway(client) => tokio::select! {
                    () = self.keep_reading(&client) => {}
                    changed = changes.changed() => if changed.is_err() { return },
                },
                ActiveTransport::Redis(_) | ActiveTransport::None => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
            self.notices.send_modify(|notices| {
                notices.is_live = false;
                notices.commands.clear();
            });
        }
    }

    async fn keep_reading(&self, client: &GatewayClient) {
        let mut backoff = Backoff::for_connections();
        loop {
            match self.read(client).await {
                Ok(AnswerEnd::Closed) => backoff.reset(),
                Ok(AnswerEnd::HeldBack) => {
                    tracing::warn!(
                        gateway = client.display_url(),
                        "a proxy in front of the gateway holds answers back; asking every {} s for \
                         commands instead",
                        POLL_INTERVAL.as_secs()
                    );
                    return self.keep_asking(client).await;
                }
                Err(error) => tracing::debug!(%error, "cannot read notices, retrying"),
            }
            self.notices.send_modify(|notices| notices.is_live = false);
            sleep(backoff.next_wait()).await;
        }
    }

    /// Reads one long answer.
    async fn read(&self, client: &GatewayClient) -> Result<AnswerEnd, ApiError> {
        let opening = client.notices(self.producer, self.variation);
        let Ok(opened) = timeout(FIRST_LINE_TIMEOUT, opening).await else {
            return Ok(AnswerEnd::HeldBack);
        };
        let mut response = opened?;
        let (mut rest, mut limit) = (Vec::new(), FIRST_LINE_TIMEOUT);
        loop {
            let piece = match timeout(limit, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None) | Err(_)) => return Ok(AnswerEnd::Closed),
                Err(_elapsed) if limit == FIRST_LINE_TIMEOUT => return Ok(AnswerEnd::HeldBack),
                Err(_elapsed) => return Ok(AnswerEnd::Closed),
            };
            limit = MAX_SILENCE;
            self.take(&mut rest, &piece);
            self.notices
                .send_if_modified(|notices| !std::mem::replace(&mut notices.is_live, true));
        }
    }

    /// Asks again and again for what holds.
    async fn keep_asking(&self, client: &GatewayClient) {
        loop {
            sleep(POLL_INTERVAL).await;
            match client.notices_once(self.producer, self.variation).await {
                Ok(lines) => self.take(&mut Vec::new(), &lines),
                Err(error) => tracing::debug!(%error, "cannot ask for commands, retrying"),
            }
        }
    }

    /// Takes the whole lines of what has arrived, and keeps the rest.
    fn take(&self, rest: &mut Vec<u8>, piece: &Bytes) {
        rest.extend_from_slice(piece);
        let Some(end) = memchr::memrchr(b'\n', rest) else {
            if rest.len() > MAX_LINE_BYTES {
                rest.clear();
            }
            return;
        };
        for line in rest[..end].split(|byte| *byte == b'\n') {
            match serde_json::from_slice::<NoticeLine>(line) {
                Ok(line) => self.apply(line),
                Err(error) => tracing::debug!(%error, "a notice cannot be parsed and is ignored"),
            }
        }
        rest.drain(..=end);
    }

    fn apply(&self, line: NoticeLine) {
        if let Some(durable) = line.durable {
            self.notices.send_if_modified(|notices| {
                let is_newer = durable > notices.durable;
                notices.durable = notices.durable.max(durable);
                is_newer
            });
        }
        if let Some(command) = line.command {
            let entry = command.into_entry(self.variation);
            self.notices.send_if_modified(|notices| {
                let is_new = notices.commands.iter().all(|one| one.entry != entry.entry);
                if is_new {
                    if notices.commands.len() == MAX_PENDING_COMMANDS {
                        notices.commands.remove(0);
                    }
                    notices.commands.push(entry);
                }
                is_new
            });
        }
    }
}

impl CommandLine {
    fn into_entry(self, variation: u16) -> CommandEntry {
        let action = self.command.parse::<Action>().ok();
        CommandEntry {
            entry: self.entry,
            command: action.map(|action| Command {
                id: self.id,
                action,
                variation,
                by: self.by,
                data: self.data,
            }),
        }
    }
}
