//! [`Access`]: the parts of this crate for one gateway, made once and handed out.
//!
//! Each part owns its data and the stores it needs. The methods here only connect parts; what they
//! do is written at the part. Cloning shares everything.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use runcast_common::cache::LeaseCache;
use runcast_common::connect::Redis;
use runcast_common::protocol::keys::Keys;
use runcast_common::run_users::RunUsers;
use runcast_store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::credential::{Bounds, Credential};
use crate::credential_cache::CredentialCache;
use crate::invalidation::Invalidator;
use crate::metrics::{AccessHealth, Metrics};
use crate::oidc::{
    Accounts, CallbackParams, CompletedLogin, LoginStates, Oidc, SignInRefused, StartedLogin,
};
use crate::open_streams::OpenStreams;
use crate::password::{PasswordError, Passwords};
use crate::principal::Principal;
use crate::read_through::ReadThrough;
use crate::secret::{IssueError, Secret};
use crate::session::lifetime::Sessions;
use crate::sign_in_code::SignInCode;
use crate::stream_ticket::StreamTickets;
use crate::usage_log::UsageLog;

/// Authentication and authorization of one gateway. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Access(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    redis: Redis,
    keys: Keys,
    cache: LeaseCache,
    credentials: CredentialCache,
    sessions: Arc<Sessions>,
    tickets: StreamTickets,
    sign_in_code: SignInCode,
    passwords: Passwords,
    accounts: Accounts,
    login_states: LoginStates,
    invalidator: Invalidator,
    open_streams: Arc<OpenStreams>,
    usage_log: UsageLog,
    metrics: Metrics,
}

impl Access {
    /// Connects the parts to Postgres and Redis. A session ends after `session_life` without a
    /// request. Redis users of tokens end with these, if agents have any.
    pub fn new(
        store: Store,
        redis: Redis,
        keys: Keys,
        session_life: Duration,
        run_users: Option<RunUsers>,
    ) -> Result<Self, PasswordError> {
        let metrics = Metrics::default();
        // One cache for all parts: after Redis failed, all of them leave it alone for a while.
        let cache = LeaseCache::new(redis.clone());
        let read_through = ReadThrough::new(cache.clone(), metrics.clone());
        Ok(Self(Arc::new(Parts {
            credentials: CredentialCache::new(store.clone(), keys.clone(), read_through.clone()),
            sessions: Arc::new(Sessions::new(
                store.clone(),
                keys.clone(),
                read_through,
                session_life,
            )),
            tickets: StreamTickets::new(redis.clone(), keys.clone()),
            sign_in_code: SignInCode::default(),
            passwords: Passwords::new()?,
            accounts: Accounts::new(store.clone()),
            login_states: LoginStates::new(redis.clone(), keys.clone()),
            invalidator: Invalidator::new(
                store.clone(),
                redis.clone(),
                keys.clone(),
                cache.clone(),
                run_users,
                metrics.clone(),
            ),
            open_streams: Arc::default(),
            usage_log: UsageLog::new(store.clone(), metrics.clone()),
            store,
            metrics,
            redis,
            keys,
            cache,
        })))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn redis(&self) -> &Redis {
        &self.0.redis
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(crate) fn credentials(&self) -> &CredentialCache {
        &self.0.credentials
    }

    /// The browser sessions of this installation.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.0.sessions
    }

    pub(crate) fn tickets(&self) -> &StreamTickets {
        &self.0.tickets
    }

    /// Starts a sign-in at an issuer. Afterwards the browser returns to a path of this server.
    pub async fn begin_login(
        &self,
        oidc: &Oidc,
        return_to: &str,
        client: Option<String>,
    ) -> Result<StartedLogin, SignInRefused> {
        oidc.begin(&self.0.login_states, return_to, client).await
    }

    /// Completes a sign-in: verifies what the browser brings back, and finds its user.
    pub async fn finish_login(
        &self,
        oidc: &Oidc,
        headers: &HeaderMap,
        returned: CallbackParams,
    ) -> Result<CompletedLogin, SignInRefused> {
        let (login_states, accounts) = (&self.0.login_states, &self.0.accounts);
        oidc.finish(login_states, accounts, headers, returned).await
    }

    pub(crate) fn usage_log(&self) -> &UsageLog {
        &self.0.usage_log
    }

    /// The open streams of this process, by the credential that opened them.
    pub fn open_streams(&self) -> &Arc<OpenStreams> {
        &self.0.open_streams
    }

    /// Hashes and verifies passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// The metrics of access.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The state of access, for `/readyz`.
    pub fn health(&self) -> AccessHealth {
        self.0.metrics.health(self.0.cache.is_available())
    }

    /// Issues a stream ticket: see [`crate::stream_ticket`].
    pub async fn ticket(
        &self,
        principal: &Principal,
        bounds: Bounds,
    ) -> Result<Secret, IssueError> {
        self.0.tickets.issue(principal.auth_source(), bounds).await
    }

    /// Lets `code` sign in once as `token`, for
    /// [`SIGN_IN_CODE_TTL`](crate::sign_in_code::SIGN_IN_CODE_TTL) from now. It replaces a code
    /// that was offered before. The caller generates the code with at least 128 random bits, as
    /// [`Secret::generate`] does.
    pub fn offer_sign_in_code(&self, code: &Secret, token: &Secret) {
        self.0.sign_in_code.offer(code, token);
    }

    /// Uses a sign-in code up and returns the token it stands for, or none if the code is wrong,
    /// expired or used already, which is counted as a denial.
    pub fn redeem_sign_in_code(&self, code: &Secret) -> Option<Credential> {
        let redeemed = self.0.sign_in_code.redeem(code);
        if redeemed.is_none() {
            self.0.metrics.denied("sign_in_code");
        }
        redeemed
    }

    /// Records that a sign-in as this user failed.
    pub fn record_failed_sign_in(&self, user: Uuid, name: &str) {
        self.0.usage_log.record_failed_sign_in(user, name);
    }

    /// Applies all changes of access that Postgres holds, the caller's own among them, before the
    /// caller answers: see [`crate::invalidation`].
    pub async fn settle(&self) {
        self.0.invalidator.apply_now().await;
    }

    /// Applies changes of access as they come, until `stop`.
    pub async fn propagate_changes(self, stop: CancellationToken) {
        self.0.invalidator.run(stop).await;
    }

    /// Writes token uses and failed sign-ins to Postgres, until `stop`.
    pub async fn write_usage_log(self, stop: CancellationToken) {
        self.0.usage_log.run(stop).await;
    }
}
