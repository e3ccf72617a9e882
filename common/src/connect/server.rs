//! One server, and one shared, multiplexed connection to it that is made again whenever it breaks.
//!
//! Which server that is may change: behind sentinels it is whatever is the master when a connection is
//! made. Attempts to connect are spread by a jittered backoff, and only one is under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, PushInfo, RedisError};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};

use super::dial::{self, Dial};
use super::error::{RedisFailure, breaks, first_of};
use super::sentinel::Service;
use crate::backoff::Backoff;
use crate::protocol::limits::REDIS_DEADLINE;

/// A server with a shared connection that heals itself. Cloning is cheap.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    address: String,
    healthy: AtomicBool,
    link: Mutex<Link>,
}

/// What is connected to.
#[derive(Clone)]
pub(super) enum Route {
    /// Always the same.
    Fixed(Client),
    /// Whichever is the master.
    Master(Service),
}

struct Link {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not break its successor.
    generation: u64,
    backoff: Backoff,
    /// Why the last attempt to connect failed, and until when that answers for everybody.
    refused: Option<(RedisError, Instant)>,
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
                link: Mutex::new(Link {
                    connection: None,
                    generation: 0,
                    backoff: Backoff::for_connections(),
                    refused: None,
                }),
            }),
        }
    }

    pub(super) fn fixed(dial: &Dial) -> Result<Self, RedisError> {
        Ok(Self::new(Route::Fixed(dial.client()?), dial.place()))
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// True if the last call got an answer.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// The same server, by connections of its own.
    pub(super) fn separate(&self) -> Self {
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

    pub(super) async fn dedicated(&self) -> Result<MultiplexedConnection, RedisFailure> {
        let opened = self.shared.route.open(&dial::lasting()).await;
        opened.map_err(|error| self.failure(error))
    }

    pub(super) async fn subscriber(
        &self,
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>), RedisFailure> {
        // Pushes are small and their reader does nothing but look a name up, so it keeps pace with
        // the socket.
        let (sender, receiver) = mpsc::unbounded_channel();
        let config = dial::lasting().set_push_sender(sender);
        let opened = self.shared.route.open(&config).await;
        Ok((opened.map_err(|error| self.failure(error))?, receiver))
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
        match self.shared.route.open(&dial::lasting()).await {
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
