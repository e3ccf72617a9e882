//! Connections to Redis as Runcast needs them.
//!
//! - [`Redis`] is one shared, multiplexed connection that is made again whenever it breaks. A call
//!   has a deadline; a call that times out or fails on the wire breaks the connection, because a
//!   half-open one never answers again; so does `READONLY`, the answer of a demoted master. The
//!   failed call itself is never repeated here: only its caller knows whether that is safe.
//! - [`Redis::dedicated`] opens one more connection, for a blocking read or for subscriptions.
//!
//! Attempts to connect are spread by a jittered backoff, and only one is under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, IntoConnectionInfo as _, ProtocolVersion};
use redis::{PushInfo, RedisError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::config::RedisUrl;
use crate::limits::REDIS_DEADLINE;

/// Chooses the cryptography of every TLS connection of this process (Redis, Postgres, HTTPS). To be
/// called once, first thing in a program; a later call changes nothing.
pub fn install_tls_provider() {
    // An error says that a provider is installed already, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Longest wait for a connection to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// When the kernel starts to ask a silent peer whether it still lives, and how often it asks.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// The server or the wire said so.
    #[error("Redis at {address}: {error}")]
    Failed {
        /// Where, without credentials.
        address: String,
        /// What exactly.
        error: RedisError,
    },
    /// No answer in time.
    #[error("Redis at {address} did not answer within {} ms", deadline.as_millis())]
    Silent {
        /// Where, without credentials.
        address: String,
        /// How long it was waited for.
        deadline: Duration,
    },
}

impl RedisFailure {
    /// The code of an error that the server answered with, such as `NOGROUP`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } => error.code(),
            Self::Silent { .. } => None,
        }
    }

    /// True if the server could not be reached, as opposed to having refused something.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Failed { error, .. } => breaks(error),
            Self::Silent { .. } => true,
        }
    }
}

/// True if an error leaves the connection unusable or pointing at the wrong server.
fn breaks(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"))
}

/// A failed pipeline fails with all errors of its commands; the first one tells enough.
fn first_of(error: RedisError) -> RedisError {
    let errors = error.clone().into_server_errors();
    match errors.as_deref().and_then(<[_]>::first) {
        Some((_, first)) => first.clone().into(),
        None => error,
    }
}

/// A shared connection that heals itself. Cloning is cheap.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    client: redis::Client,
    address: String,
    healthy: AtomicBool,
    link: Mutex<Link>,
}

struct Link {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not break its successor.
    generation: u64,
    backoff: Backoff,
    /// Why the last attempt to connect failed, and until when that answers for everybody.
    refused: Option<(RedisError, Instant)>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares connections to a server; nothing is sent yet.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn new(url: &RedisUrl) -> Result<Self, RedisFailure> {
        let address = url.to_string();
        let failed = |error| RedisFailure::Failed {
            address: address.clone(),
            error,
        };
        let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        let info = url.0.expose().into_connection_info().map_err(failed)?;
        // Sharded pub/sub messages arrive as RESP3 pushes.
        let redis = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
        let client = redis::Client::open(info).map_err(failed)?;
        Ok(Self::of(client, address))
    }

    fn of(client: redis::Client, address: String) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                address,
                healthy: AtomicBool::new(false),
                link: Mutex::new(Link {
                    connection: None,
                    generation: 0,
                    backoff: Backoff::for_connections(),
                    refused: None,
                }),
            }),
        }
    }

    /// The same server, by connections of its own: they belong to the runtime that they are first used in.
    #[must_use]
    pub fn separate(&self) -> Self {
        Self::of(self.shared.client.clone(), self.shared.address.clone())
    }

    /// Where the server is, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// True if the last call got an answer.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// Sends one command on the shared connection, within [`REDIS_DEADLINE`].
    ///
    /// # Errors
    /// [`RedisFailure`]; the command may or may not have been carried out.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.run(async |connection| command.query_async(connection).await)
            .await
    }

    /// Runs calls on the shared connection, all together within [`REDIS_DEADLINE`].
    ///
    /// # Errors
    /// [`RedisFailure`]; the calls may or may not have been carried out.
    pub async fn run<T>(
        &self,
        calls: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisFailure> {
        let deadline = REDIS_DEADLINE;
        let mut used = None;
        let outcome = timeout(deadline, async {
            let (generation, mut connection) = self.connection().await?;
            used = Some(generation);
            calls(&mut connection).await
        })
        .await;
        let (result, broken) = match outcome {
            Ok(Ok(value)) => (Ok(value), false),
            Ok(Err(error)) => {
                let error = first_of(error);
                let broken = breaks(&error);
                (Err(self.failure(error)), broken)
            }
            Err(_elapsed) => {
                let address = self.shared.address.clone();
                (Err(RedisFailure::Silent { address, deadline }), true)
            }
        };
        self.shared.healthy.store(!broken, Ordering::Relaxed);
        if let (true, Some(generation)) = (broken, used) {
            self.discard(generation).await;
        }
        result
    }

    /// Opens a connection of its own, for blocking reads: it has no response timeout, so its owner
    /// must bound every wait and drop the connection when one runs out.
    ///
    /// # Errors
    /// [`RedisFailure`] if the server cannot be reached.
    pub async fn dedicated(&self) -> Result<MultiplexedConnection, RedisFailure> {
        self.open(config()).await
    }

    /// Opens a connection of its own whose pushes (pub/sub messages, and the end of the connection)
    /// go to the returned receiver.
    ///
    /// # Errors
    /// [`RedisFailure`] if the server cannot be reached.
    pub async fn subscriber(
        &self,
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>), RedisFailure> {
        // Pushes are small and their reader does nothing but look a name up, so it keeps pace with
        // the socket.
        let (sender, receiver) = mpsc::unbounded_channel();
        let connection = self.open(config().set_push_sender(sender)).await?;
        Ok((connection, receiver))
    }

    async fn open(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisFailure> {
        let opened = self
            .shared
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        opened.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: RedisError) -> RedisFailure {
        RedisFailure::Failed {
            address: self.shared.address.clone(),
            error,
        }
    }

    /// The shared connection, made anew if need be. Callers queue behind one attempt; after a failed
    /// one all get its error at once until the next is due, so that none waits for nothing.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut link = self.shared.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((link.generation, connection.clone()));
        }
        if let Some((error, until)) = &link.refused
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let opened = self
            .shared
            .client
            .get_multiplexed_async_connection_with_config(&config())
            .await;
        match opened {
            Ok(connection) => {
                link.backoff.reset();
                link.refused = None;
                link.generation += 1;
                link.connection = Some(connection.clone());
                Ok((link.generation, connection))
            }
            Err(error) => {
                let until = Instant::now() + link.backoff.next_wait();
                link.refused = Some((error.clone(), until));
                Err(error)
            }
        }
    }

    async fn discard(&self, generation: u64) {
        let mut link = self.shared.link.lock().await;
        if link.generation == generation {
            link.connection = None;
        }
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(None)
}
