//! Follows a run, reconnecting whenever the stream breaks, also across restarts of the gateway.
//!
//! The cursor is the id of the last complete frame; a new connection continues after it. Time:
//! [`FIRST_CONTACT_TIMEOUT`] until the gateway has answered once; [`SILENCE_TIMEOUT`] without a
//! byte (a gateway sends a keep-alive every 15 s) until the connection counts as half open; between
//! two connections the gateway's `retry:` plus a jittered wait of up to [`MAX_RECONNECT_WAIT`].
//!
//! A gateway sends the first frame of a stream at once. If it does not arrive within
//! [`FIRST_BYTE_TIMEOUT`], something in between holds the stream back, and the run is followed by
//! long polling (see `long_poll`).

use std::io::{self, BufWriter};
use std::time::Duration;

use reqwest::{Response, StatusCode};
use runcast_common::backoff::Backoff;
use runcast_common::config::Env;
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;
use runcast_publisher::gateway_client::{ApiError, GatewayClient};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::print::{Printer, StreamState};
use super::sse::{SseItem, SseReader};
use crate::console::print_message;
use crate::exit_code::{EX_CONFIG, EX_NOINPUT, EX_NOPERM, EX_UNAVAILABLE};

/// How long to try a gateway that has never answered.
const FIRST_CONTACT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a stream: three keep-alives.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// Longest wait for the first byte of a stream.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(8);

/// Wait before a reconnect unless the gateway sets another one.
const DEFAULT_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Bounds of the jittered wait that is added, so that many viewers do not reconnect at once.
const MIN_RECONNECT_WAIT: Duration = Duration::from_millis(200);
const MAX_RECONNECT_WAIT: Duration = Duration::from_secs(10);

/// What to follow, and how to print it.
#[derive(Debug, Clone)]
pub struct TailOptions {
    /// The run.
    pub run: Uuid,
    /// The channels to print; all if empty.
    pub channels: Vec<Channel>,
    /// The event id after which to start; the beginning if absent.
    pub after: Option<EventId>,
    /// Print JSON lines instead of text.
    pub json: bool,
}

/// Why a connection ended.
enum ConnectionEnd {
    /// The run is over.
    RunOver,
    /// The output is closed.
    OutputClosed,
    /// The connection broke, or the gateway closed it.
    Broken,
    /// No byte has arrived.
    HeldBack,
}

type TerminalPrinter = Printer<BufWriter<io::Stdout>, io::Stderr>;

/// Follows a run until it is over.
pub async fn run(options: &TailOptions, env: &impl Env) -> Result<(), ApiError> {
    let client = GatewayClient::from_env(env)?;
    let mut follower = Follower {
        run: options.run.to_string(),
        cursor: options.after.map(|id| id.to_string()),
        retry: DEFAULT_RETRY_WAIT,
        backoff: Backoff::new(MIN_RECONNECT_WAIT, MAX_RECONNECT_WAIT),
        printer: Printer::new(options.json, BufWriter::new(io::stdout()), io::stderr()),
    };
    follower.follow(&client, &options.channels).await
}

/// Prints the error, if there is one, and returns the exit code of `runcast tail`.
pub fn exit_code(result: &Result<(), ApiError>) -> u8 {
    let Err(error) = result else { return 0 };
    print_message(format_args!("{error}"));
    match error {
        ApiError::NoSuchRun { .. } => EX_NOINPUT,
        ApiError::Refused { status, .. } if *status == StatusCode::GONE => EX_NOINPUT,
        ApiError::Unreachable { .. } => EX_UNAVAILABLE,
        ApiError::Unauthorized { .. } => EX_NOPERM,
        ApiError::Config(_) => EX_CONFIG,
        ApiError::Refused { .. } | ApiError::Unexpected { .. } => 1,
    }
}

/// A run that is being followed.
pub(super) struct Follower {
    pub(super) run: String,
    pub(super) cursor: Option<String>,
    retry: Duration,
    pub(super) backoff: Backoff,
    printer: TerminalPrinter,
}

impl Follower {
    async fn follow(
        &mut self,
        client: &GatewayClient,
        channels: &[Channel],
    ) -> Result<(), ApiError> {
        let give_up_at = Instant::now() + FIRST_CONTACT_TIMEOUT;
        let mut reached = false;
        loop {
            let request = client.stream(&self.run, channels, self.cursor.as_deref());
            match request.await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => return Ok(()),
                Ok(response) => {
                    reached = true;
                    match self.read(response).await {
                        ConnectionEnd::RunOver | ConnectionEnd::OutputClosed => return Ok(()),
                        ConnectionEnd::Broken => {}
                        ConnectionEnd::HeldBack => {
                            print_message(format_args!(
                                "nothing of the stream arrives: something between here and RUNCAST_URL holds it back; asking by long polls instead"
                            ));
                            return self.poll(client, channels).await;
                        }
                    }
                }
                Err(error) if error.is_transient() && (reached || Instant::now() < give_up_at) => {
                    if self.backoff.attempts() == 0 {
                        print_message(format_args!("{error}; trying again"));
                    }
                }
                Err(error) => return Err(error),
            }
            sleep(self.retry + self.backoff.next_wait()).await;
        }
    }

    /// Reads one connection to its end.
    async fn read(&mut self, mut response: Response) -> ConnectionEnd {
        let mut reader = SseReader::default();
        let mut limit = FIRST_BYTE_TIMEOUT;
        loop {
            let bytes = match timeout(limit, response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return ConnectionEnd::Broken,
                Ok(Err(error)) => {
                    tracing::info!(%error, "the stream broke, reconnecting");
                    return ConnectionEnd::Broken;
                }
                Err(_elapsed) if limit == FIRST_BYTE_TIMEOUT => return ConnectionEnd::HeldBack,
                Err(_elapsed) => {
                    tracing::info!("the stream is silent, reconnecting");
                    return ConnectionEnd::Broken;
                }
            };
            limit = SILENCE_TIMEOUT;
            let items = match reader.push(&bytes) {
                Ok(items) => items,
                Err(error) => {
                    tracing::warn!(%error, "the stream cannot be parsed, reconnecting");
                    return ConnectionEnd::Broken;
                }
            };
            match self.print(items) {
                Ok(StreamState::Open) => {}
                Ok(StreamState::Ended) => return ConnectionEnd::RunOver,
                Err(error) => {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        print_message(format_args!("events cannot be printed: {error}"));
                    }
                    return ConnectionEnd::OutputClosed;
                }
            }
        }
    }

    pub(super) fn print(&mut self, items: Vec<SseItem>) -> io::Result<StreamState> {
        for item in items {
            let frame = match item {
                SseItem::Retry(wait) => {
                    self.retry = wait;
                    continue;
                }
                SseItem::Frame(frame) => frame,
            };
            let state = self.printer.print(&frame)?;
            if let Some(id) = frame.id {
                self.cursor = Some(id).filter(|id| !id.is_empty());
                self.backoff.reset();
            }
            if state == StreamState::Ended {
                self.printer.flush()?;
                return Ok(state);
            }
        }
        self.printer.flush()?;
        Ok(StreamState::Open)
    }
}
