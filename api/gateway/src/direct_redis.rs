//! [`DirectRedis`]: gives agents that publish to Redis directly its address, with a user that may
//! touch the keys of their run alone.
//!
//! Where Redis does not answer, the address is still handed out: an agent that Redis refuses
//! asks again. Where the services may not manage users, no address is handed out, and agents
//! publish through the gateway. Time: [`CREATE_DEADLINE`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runcast_access::run_user::RunUserCredentials;
use runcast_access::secret::Secret;
use runcast_common::config::RedisUrl;
use runcast_common::run_users::RunUsers;
use serde::Serialize;
use tokio::time::timeout;
use tracing::{debug, error, warn};
use utoipa::ToSchema;
use uuid::Uuid;

/// Longest wait for a user to be created.
const CREATE_DEADLINE: Duration = Duration::from_secs(2);

/// How an agent reaches Redis. Holds credentials, so it has no `Debug`.
#[derive(Serialize, ToSchema)]
pub(crate) struct RedisAccess {
    /// The address, with user and password.
    url: String,
    /// Certificates of the authorities that signed for it, as PEM, where the platform does not know
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    /// The prefix of all keys.
    prefix: String,
}

/// The Redis that agents may publish to.
#[derive(Debug)]
pub struct DirectRedis {
    url: RedisUrl,
    prefix: String,
    users: RunUsers,
    /// Whether the log has said that no users can be created.
    is_refused: AtomicBool,
}

impl DirectRedis {
    /// A Redis that agents reach by `url`, whatever user that names, and whose keys begin with
    /// `prefix`.
    #[must_use]
    pub fn new(url: RedisUrl, prefix: &str, users: RunUsers) -> Self {
        Self {
            url,
            prefix: prefix.to_owned(),
            users,
            is_refused: AtomicBool::new(false),
        }
    }

    /// Creates the user of a token of a run. None if that is not allowed here.
    pub(crate) async fn access(&self, token: &Secret, run: Uuid) -> Option<RedisAccess> {
        let credentials = match RunUserCredentials::of(token, run) {
            Ok(credentials) => credentials,
            Err(failed) => {
                error!(error = %failed, "cannot derive the password of a Redis user");
                return None;
            }
        };
        let (user, password) = (credentials.user, credentials.password);
        let hash = password.hash();
        match timeout(CREATE_DEADLINE, self.users.create(&user, &hash)).await {
            Ok(Ok(())) => self.is_refused.store(false, Ordering::Relaxed),
            Ok(Err(failure)) if !failure.is_outage() => {
                if !self.is_refused.swap(true, Ordering::Relaxed) {
                    warn!(
                        error = %failure,
                        "agents get no address of Redis and publish through the gateway: the user of \
                         REDIS_URL may not manage users; see `runcastd check`"
                    );
                }
                return None;
            }
            Ok(Err(failure)) => debug!(error = %failure, %run, "cannot create a Redis user now"),
            Err(_elapsed) => debug!(%run, "Redis is slow to create a user"),
        }
        Some(RedisAccess {
            url: self
                .url
                .with_user(&self.users.name(&user), password.expose())
                .expose()
                .to_owned(),
            ca: self.url.ca().map(|ca| ca.pem().to_owned()),
            prefix: self.prefix.clone(),
        })
    }
}
