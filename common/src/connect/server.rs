//! One server and one shared, multiplexed connection to it, reopened whenever it breaks.
//!
//! Behind sentinels the server is the current master, looked up for each connection. One attempt to
//! connect runs at a time, with a jittered backoff between attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, PushInfo, RedisError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};

use super::dial::{self, Dial};
use super::error::{RedisFailure, breaks_connection, first_error};
use super::sentinel::Service;
use crate::backoff::Backoff;
use crate::protocol::limits::REDIS_DEADLINE;

/// A server with a shared connection that reopens itself. Cloning is cheap.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    address: String,
    healthy: AtomicBool,
    connection: Mutex<ConnectionState>,
}

/// How to find the server.
#[derive(Clone)]
pub(super) enum Route {
    /// A fixed address.
    Fixed(Client),
    /// The current master of a service.
    Master(Service),
}

struct ConnectionState {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not break a newer one.
    generation: u64,
    backoff: Backoff,
    /// The error of the last attempt, and until when all callers get it instead of a new attempt.
    last_failure: Option<(RedisError, Instant)>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(route: Route, address: String) -> Self {
        Self {
            shared: Arc::new(Shared {
                route,
                address,
                healthy: AtomicBool::new(false),
                connection: Mutex::new(ConnectionState {
                    connection: None,
                    generation: 0,
                    backoff: Backoff::for_connections(),
                    last_failure: None,
                }),
            }),
        }
    }

    pub(super) fn fixed(dial: &Dial) -> Result<Self, RedisError> {
        Ok(Self::new(Route::Fixed(dial.client()?), dial.address()))
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Returns whether the last call got a reply.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// The same server with its own connections.
    pub(super) fn with_new_connections(&self) -> Self {
        Self::new(self.shared.route.clone(), self.shared.address.clone())
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn service(&self) -> Option<&Service> {
        match &self.shared.route {
            Route::Fixed(_) => None,
            Route::Master(service) => Some(service),
        }
    }

    /// Sends one command on the shared connection, within [`REDIS_DEADLINE`]. After an error the
    /// server may or may not have executed it.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.run(async |connection| command.query_async(connection).await)
            .await
    }

    /// Runs calls on the shared connection, all together within [`REDIS_DEADLINE`]. After an error
    /// the server may or may not have executed them.
    pub async fn run<T>(
        &self,
        calls: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisFailure> {
        let deadline = REDIS_DEADLINE;
        let mut used_generation = None;
        let outcome = timeout(deadline, async {
            let (generation, mut connection) = self.connection().await?;
            used_generation = Some(generation);
            calls(&mut connection).await
        })
        .await;
        let (result, broken) = match outcome {
            Ok(Ok(value)) => (Ok(value), false),
            Ok(Err(error)) => {
                let error = first_error(error);
                let broken = breaks_connection(&error);
                (Err(self.failure(error)), broken)
            }
            Err(_elapsed) => {
                let address = self.shared.address.clone();
                (Err(RedisFailure::TimedOut { address, deadline }), true)
            }
        };
        self.shared.healthy.store(!broken, Ordering::Relaxed);
        if let (true, Some(generation)) = (broken, used_generation) {
            self.discard(generation).await;
        }
        result
    }

    pub(super) async fn dedicated(&self) -> Result<MultiplexedConnection, RedisFailure> {
        let opened = self.shared.route.open(&dial::long_lived()).await;
        opened.map_err(|error| self.failure(error))
    }

    /// Opens a connection like [`Redis::subscriber`](super::Redis::subscriber).
    pub async fn subscriber(
        &self,
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>), RedisFailure> {
        // Unbounded: pushes are small, and their reader only looks up a name, so it keeps up with
        // the socket.
        let (sender, receiver) = mpsc::unbounded_channel();
        let config = dial::long_lived().set_push_sender(sender);
        let opened = self.shared.route.open(&config).await;
        Ok((opened.map_err(|error| self.failure(error))?, receiver))
    }

    fn failure(&self, error: RedisError) -> RedisFailure {
        RedisFailure::Failed {
            address: self.shared.address.clone(),
            error,
        }
    }

    /// The shared connection, reopened if necessary. Callers queue behind one attempt. After a
    /// failed one all callers get its error at once until the next attempt is due, rather than
    /// wait.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut state = self.shared.connection.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.generation, connection.clone()));
        }
        if let Some((error, until)) = &state.last_failure
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match self.shared.route.open(&dial::long_lived()).await {
            Ok(connection) => {
                state.backoff.reset();
                state.last_failure = None;
                state.generation += 1;
                state.connection = Some(connection.clone());
                Ok((state.generation, connection))
            }
            Err(error) => {
                let until = Instant::now() + state.backoff.next_wait();
                state.last_failure = Some((error.clone(), until));
                Err(error)
            }
        }
    }

    async fn discard(&self, generation: u64) {
        let mut state = self.shared.connection.lock().await;
        if state.generation == generation {
            state.connection = None;
        }
    }
}

impl Route {
    async fn open(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        match self {
            Self::Fixed(client) => {
                client
                    .get_multiplexed_async_connection_with_config(config)
                    .await
            }
            Self::Master(service) => service.open(config).await,
        }
    }
}
