//! How much one may ask.
//!
//! - [`policy`]: of what there may be only so much, and how much. [`subject`]: whose requests are counted together.
//! - [`RateLimiter`] counts in Redis for all replicas, by one script; while Redis does not answer, in this process alone
//!   ([`process`]).
//! - [`layer`] asks before a request is carried out, and tells how much is left in the headers of its answer.
//! - [`guesses`]: who shows wrong credentials too often is not looked up any more.
//! - [`places`]: how many streams may be open.
//!
//! Time: a request waits for Redis for [`DEADLINE`] at most, and only the first ones do: then all are counted here
//! until [`RateLimiter::run`] has seen Redis answer again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runcast_common::backoff::Backoff;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::rate_limit::{self, Quota, QuotaCheck, QuotaStatus};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::rate_limit::concurrency::ConcurrencyLimiter;
use crate::rate_limit::failed_attempts::FailedAttempts;
use crate::rate_limit::local::LocalLimiter;
use crate::rate_limit::metrics::Metrics;
use crate::rate_limit::policy::{LimitConfig, Policy};
use crate::rate_limit::subject::RateKey;

/// Longest wait of a request for the answer of Redis: a hundred times what it takes, and no stall to a user.
const DEADLINE: Duration = Duration::from_millis(500);

/// Waits between two looks at a Redis that does not answer, first and longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Who counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Redis, for all replicas.
    Redis,
    /// This process alone.
    Process,
}

impl Source {
    /// Its name in metrics and in `/readyz`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Process => "process",
        }
    }
}

/// What the policies say to a request.
#[derive(Debug, Clone)]
pub struct Decision {
    source: Source,
    standings: Vec<(Policy, Quota, QuotaStatus)>,
}

/// The limits of one gateway.
#[derive(Debug)]
pub struct RateLimiter {
    rules: LimitConfig,
    redis: Redis,
    keys: Keys,
    in_process: LocalLimiter,
    /// What Redis did not answer, while it does not.
    unanswered: Mutex<Option<(Slot, Vec<QuotaCheck>)>>,
    source: watch::Sender<Source>,
    meter: Metrics,
    guesses: FailedAttempts,
    places: Arc<ConcurrencyLimiter>,
}

impl RateLimiter {
    /// Limits by these rules. [`RateLimiter::run`] must be running for Redis to be asked again after an outage.
    #[must_use]
    pub fn new(rules: LimitConfig, redis: Redis, keys: Keys, meter: Metrics) -> Arc<Self> {
        Arc::new(Self {
            in_process: LocalLimiter::new(&rules),
            rules,
            redis,
            keys,
            unanswered: Mutex::default(),
            source: watch::Sender::new(Source::Redis),
            guesses: FailedAttempts::default(),
            places: ConcurrencyLimiter::new(meter.clone()),
            meter,
        })
    }

    /// Who counts at the moment.
    #[must_use]
    pub fn source(&self) -> Source {
        *self.source.borrow()
    }

    /// What is limited.
    #[must_use]
    pub const fn rules(&self) -> &LimitConfig {
        &self.rules
    }

    /// Takes `cost` of what a subject may have, by each policy that is on, or nothing if one refuses.
    pub async fn ask(&self, subject: RateKey, policies: &[Policy], cost: u64) -> Decision {
        let on = policies.iter().filter_map(|policy| {
            let quota = self.rules.quota(*policy)?;
            Some((*policy, quota))
        });
        let on: Vec<(Policy, Quota)> = on.collect();
        if on.is_empty() {
            return Decision {
                source: self.source(),
                standings: Vec::new(),
            };
        }
        let name = subject.to_string();
        let answered = match self.source() {
            Source::Redis => self.ask_redis(&name, &on, cost).await,
            Source::Process => None,
        };
        let (source, standings) = match answered {
            Some(standings) => {
                let each = on.iter().zip(standings);
                let each = each.map(|((policy, quota), standing)| (*policy, *quota, standing));
                (Source::Redis, each.collect())
            }
            None => {
                let mut standings = Vec::new();
                for (policy, quota) in on {
                    let Some(standing) = self.in_process.ask(subject, policy, cost) else {
                        continue;
                    };
                    standings.push((policy, quota, standing));
                    if !standing.allowed {
                        break;
                    }
                }
                (Source::Process, standings)
            }
        };
        let verdict = Decision { source, standings };
        self.meter.decided(source);
        if let Some(refusal) = verdict.refusal() {
            self.meter.limited(refusal.policy, source);
        }
        verdict
    }

    async fn ask_redis(
        &self,
        subject: &str,
        policies: &[(Policy, Quota)],
        cost: u64,
    ) -> Option<Vec<QuotaStatus>> {
        let ask = |(policy, quota): &(Policy, Quota)| QuotaCheck {
            key: self.keys.rate(subject, policy.name()),
            quota: *quota,
            cost,
        };
        let asks: Vec<QuotaCheck> = policies.iter().map(ask).collect();
        let slot = Slot::of(&asks.first()?.key);
        match timeout(DEADLINE, self.call(slot, &asks)).await {
            Ok(Ok(standings)) => Some(standings),
            Ok(Err(error)) => {
                self.goes_unanswered(slot, asks, &error.to_string());
                None
            }
            Err(_elapsed) => {
                self.goes_unanswered(slot, asks, &format!("no answer within {DEADLINE:?}"));
                None
            }
        }
    }

    async fn call(
        &self,
        slot: Slot,
        asks: &[QuotaCheck],
    ) -> Result<Vec<QuotaStatus>, RedisFailure> {
        let calling = async |connection: &mut _| rate_limit::ask(asks, connection).await;
        self.redis.run(slot, calling).await
    }

    fn goes_unanswered(&self, slot: Slot, asks: Vec<QuotaCheck>, why: &str) {
        *lock(&self.unanswered) = Some((slot, asks));
        if self.source.send_replace(Source::Process) == Source::Redis {
            warn!(
                error = why,
                "Redis does not count requests; each process counts for itself"
            );
        }
    }

    /// Looks after a Redis that does not answer, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let looking = async {
            let mut source = self.source.subscribe();
            // The sender lives in `self`, so waiting cannot fail.
            while source
                .wait_for(|source| *source == Source::Process)
                .await
                .is_ok()
            {
                let mut backoff = Backoff::new(LOOKS.0, LOOKS.1);
                loop {
                    sleep(backoff.next_wait()).await;
                    let unanswered = lock(&self.unanswered).clone();
                    let Some((slot, mut asks)) = unanswered else {
                        break;
                    };
                    // The same again, as it would be asked, but for what it takes; as long as a connection may take.
                    asks.iter_mut().for_each(|ask| ask.cost = 0);
                    if self.call(slot, &asks).await.is_ok() {
                        break;
                    }
                }
                self.source.send_replace(Source::Redis);
                self.in_process.tidy();
                info!("Redis counts requests again, for all processes");
            }
        };
        stop.run_until_cancelled(looking).await;
    }

    /// Counts an attempt to sign in as somebody, before it is looked whether the proof is right. Where it came from was
    /// counted already.
    ///
    /// # Errors
    /// [`Denial`] if there were too many.
    pub async fn sign_in_as(&self, name: &str) -> Result<(), Denial> {
        let verdict = self.ask(RateKey::named(name), &[Policy::SignIn], 1).await;
        verdict.refusal().map_or(Ok(()), Err)
    }

    /// Which addresses presented wrong credentials too often.
    #[must_use]
    pub const fn failed_attempts(&self) -> &FailedAttempts {
        &self.guesses
    }

    /// How many streams are open, and for whom.
    #[must_use]
    pub const fn streams(&self) -> &Arc<ConcurrencyLimiter> {
        &self.places
    }

    /// Counts a request that was refused without asking Redis.
    pub fn count_refused(&self, policy: Policy) {
        self.meter.limited(policy, self.source());
    }
}

/// Which policy refuses a request, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The policy.
    pub policy: Policy,
    /// For how long it is no use to ask again.
    pub retry_after: Duration,
}

impl Denial {
    /// In words.
    #[must_use]
    pub fn reason(&self) -> String {
        let what = match self.policy {
            Policy::Write => "changes",
            Policy::Read => "requests",
            Policy::Search => "searches",
            Policy::SignIn => "attempts to sign in",
            Policy::Ingest => "requests that publish",
            Policy::Publish => "bytes published to this run",
            Policy::Failed => "wrong credentials from this address",
        };
        format!("too many {what}: limit {}", self.policy.name())
    }
}

impl Decision {
    /// What these policies decided.
    #[must_use]
    pub const fn new(source: Source, standings: Vec<(Policy, Quota, QuotaStatus)>) -> Self {
        Self { source, standings }
    }

    /// The refusal that lasts longest, if there is one.
    #[must_use]
    pub fn refusal(&self) -> Option<Denial> {
        let refused = self
            .standings
            .iter()
            .filter(|(.., standing)| !standing.allowed);
        refused
            .map(|(policy, _, standing)| Denial {
                policy: *policy,
                retry_after: standing.retry_after,
            })
            .max_by_key(|refusal| refusal.retry_after)
    }

    /// Who counted.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Each policy that was asked, with what it allows and what is left.
    #[must_use]
    pub fn standings(&self) -> &[(Policy, Quota, QuotaStatus)] {
        &self.standings
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
