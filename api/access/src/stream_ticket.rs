//! Stream tickets: what opens a stream where a browser can show neither a token nor a cookie.
//!
//! An `EventSource` of another origin has nothing but its address to say who asks, and an address is written down on its
//! way: in histories, by proxies. So no token stands in it but a ticket, which is good for one stream, within [`LIFE`], and for
//! reading alone. A ticket stands for the credential that made it: that is looked up again when the ticket is used, and
//! a stream that was opened by it ends with that credential.
//!
//! Data: one key in Redis for each ticket, by its SHA-256, and nowhere else: `GETDEL` takes it, so that of all who show it, at
//! whichever replicas, one is let in. That needs one place which all replicas ask; without Redis there are no tickets. It is as
//! good as Redis is: a failover to a replica that lagged behind may bring a used ticket back, for the rest of its life.

use std::time::Duration;

use redis::Cmd;
use runcast_common::connect::RedisFailure;
use runcast_common::protocol::keys::Slot;
use runcast_common::redis;
use tracing::debug;

use super::principal::Principal;
use super::secret::{IssueError, Secret};
use crate::Access;
use crate::credential::{AuthSource, Bounds};

/// How long a ticket can be used: a page asks for it right before it opens a stream.
pub const LIFE: Duration = Duration::from_secs(30);

/// What every ticket begins with.
const PREFIX: &str = "rcs_";

impl Principal {
    /// What is left of it for whoever shows a ticket with these bounds; all of it for whoever shows none.
    #[must_use]
    pub(super) fn by_ticket(self, bounds: Option<&Bounds>) -> Self {
        let Some(bounds) = bounds else {
            return self;
        };
        let within = bounds.grants();
        let mut grants = Vec::new();
        for own in &self.grants {
            for both in within.iter().filter_map(|bound| own.and(bound)) {
                // Several roles may all read.
                if !grants.contains(&both) {
                    grants.push(both);
                }
            }
        }
        Self {
            grants,
            basis: AuthSource {
                ticket: Some(bounds.clone()),
                ..self.basis
            },
            ..self
        }
    }
}

impl Access {
    /// Makes a ticket for a principal, within these bounds.
    ///
    /// # Errors
    /// [`IssueError`] if there is no randomness, or Redis could not take it.
    pub async fn ticket(
        &self,
        principal: &Principal,
        bounds: Bounds,
    ) -> Result<Secret, IssueError> {
        let ticket = Secret::generate(PREFIX)?;
        let basis = AuthSource {
            ticket: Some(bounds),
            ..principal.basis().clone()
        };
        let key = self.keys().ticket(&ticket.hash());
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(serde_json::to_string(&basis)?);
        command.arg("EX").arg(LIFE.as_secs());
        let asked = self.redis().query::<()>(Slot::of(&key), &command);
        asked.await?;
        Ok(ticket)
    }

    /// Uses a ticket up: what it stands for, unless it has expired, was used already or never was.
    ///
    /// # Errors
    /// [`RedisFailure`]; whether it is used up then nobody knows.
    pub(super) async fn take_ticket(
        &self,
        ticket: &Secret,
    ) -> Result<Option<AuthSource>, RedisFailure> {
        if !ticket.begins_with(PREFIX) {
            return Ok(None);
        }
        let key = self.keys().ticket(&ticket.hash());
        let take = Cmd::get_del(&key);
        let taken = self.redis().query::<Option<String>>(Slot::of(&key), &take);
        let Some(text) = taken.await? else {
            return Ok(None);
        };
        let basis = serde_json::from_str(&text);
        let basis = basis.inspect_err(|error| debug!(%error, "a ticket of another version"));
        Ok(basis.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;
    use uuid::Uuid;

    #[test]
    fn what_a_ticket_stands_for_survives_the_way_through_redis() {
        for bounds in [Bounds::default(), Bounds::of([Uuid::from_u128(7)])] {
            for credential in [
                Credential::Token([7; 32]),
                Credential::Session([8; 32]),
                Credential::User(Uuid::from_u128(9)),
            ] {
                let basis = AuthSource {
                    credential,
                    ticket: Some(bounds.clone()),
                };
                let text = serde_json::to_string(&basis).expect("JSON");
                assert_eq!(
                    serde_json::from_str::<AuthSource>(&text).expect(&text),
                    basis
                );
            }
        }
    }
}
