//! Follows a run in a terminal, from wherever it stood, across restarts of the gateway.
//!
//! The cursor is the id of the last whole frame; a reconnect goes on behind it. Time limits:
//! [`FIRST_CONTACT`] until the gateway has answered once, [`SILENCE`] without a byte (a gateway
//! sends a keep-alive every 15 s) before the connection counts as half open, and between two
//! connections what the gateway asks for by `retry:` plus a jittered wait of up to [`WAIT_MOST`].
//!
//! A gateway sends the first frame of a stream at once. Where it does not come within [`FIRST_BYTE`]
//! something in between holds the stream back, and the run is followed by long polls instead ([`poll`]).

mod poll;
mod print;
mod sse;

use std::io::{self, BufWriter};
use std::time::Duration;

use reqwest::{Response, StatusCode};
use runcast_common::backoff::Backoff;
use runcast_common::config::Env;
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use self::print::{Printer, Shown};
use self::sse::{Item, Reader};
use crate::api::{ApiError, Client};
use crate::{UNAVAILABLE, say};

/// How long a gateway that has never answered is tried.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// Three keep-alives.
const SILENCE: Duration = Duration::from_secs(45);

/// How long the first bytes of a stream may take.
const FIRST_BYTE: Duration = Duration::from_secs(8);

/// Wait before a reconnect unless the gateway says otherwise.
const RETRY: Duration = Duration::from_secs(1);

/// Bounds of what is added to that wait, so that many viewers do not come back at once.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MOST: Duration = Duration::from_secs(10);

/// What to follow, and how to show it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run.
    pub run: Uuid,
    /// The channels to show; all if empty.
    pub channels: Vec<Channel>,
    /// The event id behind which to start; at the beginning if absent.
    pub after: Option<EventId>,
    /// Show JSON lines instead of text.
    pub json: bool,
}

/// Why a connection ended.
enum Left {
    /// The run is over.
    End,
    /// Nobody reads what is shown.
    Unread,
    /// It broke, or the gateway closed it.
    Cut,
    /// Nothing of it has come through.
    HeldBack,
}

type Terminal = Printer<BufWriter<io::Stdout>, io::Stderr>;

/// Follows a run until it is over.
///
/// # Errors
/// [`ApiError`] if it cannot be followed; its exit code is documented with the program.
pub async fn run(options: &Options, env: &impl Env) -> Result<(), ApiError> {
    let client = Client::from_env(env)?;
    let mut tail = Tail {
        run: options.run.to_string(),
        cursor: options.after.map(|id| id.to_string()),
        retry: RETRY,
        backoff: Backoff::new(WAIT_FIRST, WAIT_MOST),
        printer: Printer::new(options.json, BufWriter::new(io::stdout()), io::stderr()),
    };
    tail.follow(&client, &options.channels).await
}

/// The exit code of `runcast tail`, by `sysexits.h`, after telling what went wrong.
#[must_use]
pub fn exit_code(result: &Result<(), ApiError>) -> u8 {
    let Err(error) = result else { return 0 };
    say(format_args!("{error}"));
    match error {
        ApiError::NoSuchRun { .. } => 66,
        ApiError::Unreachable { .. } => UNAVAILABLE,
        ApiError::Unauthorized { .. } => 77,
        ApiError::Config(_) => 78,
        ApiError::Refused { .. } | ApiError::Unexpected { .. } => 1,
    }
}

struct Tail {
    run: String,
    cursor: Option<String>,
    retry: Duration,
    backoff: Backoff,
    printer: Terminal,
}

impl Tail {
    async fn follow(&mut self, client: &Client, channels: &[Channel]) -> Result<(), ApiError> {
        let give_up = Instant::now() + FIRST_CONTACT;
        let mut reached = false;
        loop {
            let asked = client.stream(&self.run, channels, self.cursor.as_deref());
            match asked.await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => return Ok(()),
                Ok(response) => {
                    reached = true;
                    match self.read(response).await {
                        Left::End | Left::Unread => return Ok(()),
                        Left::Cut => {}
                        Left::HeldBack => {
                            say(format_args!(
                                "nothing of the stream arrives: something between here and RUNCAST_URL holds it back; asking by long polls instead"
                            ));
                            return self.poll(client, channels).await;
                        }
                    }
                }
                Err(error) if error.is_passing() && (reached || Instant::now() < give_up) => {
                    if self.backoff.attempts() == 0 {
                        say(format_args!("{error}; trying again"));
                    }
                }
                Err(error) => return Err(error),
            }
            sleep(self.retry + self.backoff.next_wait()).await;
        }
    }

    /// Reads one connection to its end.
    async fn read(&mut self, mut response: Response) -> Left {
        let mut reader = Reader::default();
        let mut patience = FIRST_BYTE;
        loop {
            let bytes = match timeout(patience, response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return Left::Cut,
                Ok(Err(error)) => {
                    tracing::info!(%error, "the stream broke, connecting again");
                    return Left::Cut;
                }
                Err(_elapsed) if patience == FIRST_BYTE => return Left::HeldBack,
                Err(_elapsed) => {
                    tracing::info!("the stream is silent, connecting again");
                    return Left::Cut;
                }
            };
            patience = SILENCE;
            let items = match reader.push(&bytes) {
                Ok(items) => items,
                Err(error) => {
                    tracing::warn!(%error, "the stream cannot be read, connecting again");
                    return Left::Cut;
                }
            };
            match self.take(items) {
                Ok(Shown::More) => {}
                Ok(Shown::End) => return Left::End,
                Err(error) => {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        say(format_args!("events cannot be shown: {error}"));
                    }
                    return Left::Unread;
                }
            }
        }
    }

    fn take(&mut self, items: Vec<Item>) -> io::Result<Shown> {
        for item in items {
            let frame = match item {
                Item::Retry(wait) => {
                    self.retry = wait;
                    continue;
                }
                Item::Frame(frame) => frame,
            };
            let shown = self.printer.show(&frame)?;
            if let Some(id) = frame.id {
                self.cursor = Some(id).filter(|id| !id.is_empty());
                self.backoff.reset();
            }
            if shown == Shown::End {
                self.printer.flush()?;
                return Ok(shown);
            }
        }
        self.printer.flush()?;
        Ok(Shown::More)
    }
}
