//! Stream tickets: how a browser opens a stream where it can send neither a token nor a cookie.
//!
//! An `EventSource` of another origin can carry a credential only in its URL, and browser histories
//! and proxies record URLs. So the URL carries no token but a ticket, which opens one stream,
//! within [`TICKET_TTL`], and allows nothing but reading. A ticket stands for the credential that
//! created it: that is looked up again when the ticket is used, and the stream ends with it. To
//! reconnect, a client gets another ticket and continues with `after=`.
//!
//! Data: one key in Redis for each ticket, named by the SHA-256 of the ticket, with the
//! [`AuthSource`]; it is stored nowhere else. `GETDEL` redeems a ticket, so of several requests
//! with one ticket, at any gateways, one gets in. That needs a single place which all gateways ask:
//! without Redis there are no tickets. It holds as far as Redis does: a failover to a replica that
//! lagged behind may bring a used ticket back, for the rest of its life.

use std::time::Duration;

use redis::Cmd;
use runcast_common::connect::{Redis, RedisFailure};
use runcast_common::protocol::keys::{Keys, Slot};
use runcast_common::redis;
use tracing::debug;

use crate::credential::{AuthSource, Bounds};
use crate::principal::Principal;
use crate::secret::{IssueError, Secret};

/// How long a ticket can be used: a page gets it right before it opens a stream.
pub const TICKET_TTL: Duration = Duration::from_secs(30);

/// What every ticket begins with.
const TICKET_PREFIX: &str = "rcs_";

impl Principal {
    /// The principal within the bounds of a ticket; unchanged without one.
    pub(super) fn by_ticket(self, bounds: Option<&Bounds>) -> Self {
        let Some(bounds) = bounds else {
            return self;
        };
        let within = bounds.grants();
        let mut grants = Vec::new();
        for own in &self.grants {
            for both in within.iter().filter_map(|bound| own.and(bound)) {
                // Several roles may grant the same.
                if !grants.contains(&both) {
                    grants.push(both);
                }
            }
        }
        Self {
            grants,
            auth_source: AuthSource {
                ticket: Some(bounds.clone()),
                ..self.auth_source
            },
            ..self
        }
    }
}

/// Issues and redeems tickets.
#[derive(Debug)]
pub(crate) struct StreamTickets {
    redis: Redis,
    keys: Keys,
}

impl StreamTickets {
    pub(crate) const fn new(redis: Redis, keys: Keys) -> Self {
        Self { redis, keys }
    }

    /// Issues a ticket for the credential of `creator`, within these bounds.
    pub(crate) async fn issue(
        &self,
        creator: &AuthSource,
        bounds: Bounds,
    ) -> Result<Secret, IssueError> {
        let ticket = Secret::generate(TICKET_PREFIX)?;
        let auth_source = AuthSource {
            ticket: Some(bounds),
            ..creator.clone()
        };
        let key = self.keys.ticket(&ticket.hash());
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(serde_json::to_string(&auth_source)?);
        set.arg("EX").arg(TICKET_TTL.as_secs());
        self.redis.query::<()>(Slot::of(&key), &set).await?;
        Ok(ticket)
    }

    /// Uses a ticket up and returns what it stands for; none if it is unknown, expired or used
    /// already. After an error the ticket may be used up or not.
    pub(crate) async fn redeem(&self, ticket: &Secret) -> Result<Option<AuthSource>, RedisFailure> {
        if !ticket.begins_with(TICKET_PREFIX) {
            return Ok(None);
        }
        let key = self.keys.ticket(&ticket.hash());
        let get_del = Cmd::get_del(&key);
        let stored = self.redis.query::<Option<String>>(Slot::of(&key), &get_del);
        let Some(text) = stored.await? else {
            return Ok(None);
        };
        let auth_source = serde_json::from_str(&text).inspect_err(
            |error| debug!(%error, "cannot read a stream ticket: another version issued it"),
        );
        Ok(auth_source.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;
    use uuid::Uuid;

    #[test]
    fn an_auth_source_survives_a_round_trip_through_redis() {
        for bounds in [Bounds::default(), Bounds::of([Uuid::from_u128(7)])] {
            for credential in [
                Credential::Token([7; 32]),
                Credential::Session([8; 32]),
                Credential::User(Uuid::from_u128(9)),
            ] {
                let auth_source = AuthSource {
                    credential,
                    ticket: Some(bounds.clone()),
                };
                let text = serde_json::to_string(&auth_source).expect("JSON");
                assert_eq!(
                    serde_json::from_str::<AuthSource>(&text).expect(&text),
                    auth_source
                );
            }
        }
    }
}
