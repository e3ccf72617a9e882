//! Redis users of agents: who publishes to Redis directly has a user that may touch the keys of one
//! run alone, and run none but the scripts that a service has loaded.
//!
//! There is one user for each token of a run, so it ends with that token. A gateway creates it when
//! it hands out the address of Redis, as often as it is asked. Redis neither replicates users nor
//! keeps them when it restarts, so a user may be missing at any time: then Redis refuses the agent,
//! which asks the gateway anew, and that creates it again. The same holds for the append script.
//!
//! A user is created on every server that holds data or may come to: on replicas, so that a
//! failover costs nothing, and on all nodes of a cluster, since an agent asks any of them for the
//! slots. What fails on a server other than that of the run is left to the next question.
//!
//! Before a user is created it is written down, with its run, in a sorted set that agents cannot
//! touch. By it users are found whose token has ended ([`RunUsers::take_due`]), and runs whose
//! wake-up may be lost ([`RunUsers::runs`]). Redis may lose what is written down (a flush) or the
//! users (a restart), so a look at all of them reads the names of users as well
//! ([`RunUsers::listed`]).
//!
//! Bounds: [`MAX_CALL_USERS`] users in one call. Time: [`NODE_DEADLINE`] for each further server.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use redis::{Pipeline, Value};
use tokio::time::{Instant, timeout};
use tracing::debug;
use uuid::Uuid;

use crate::connect::{Redis, RedisFailure, RedisMode, Server};
use crate::protocol::event::now_ms;
use crate::protocol::keys::{Keys, RunKeys, hex};
use crate::scripts::{append_source, call};

static DUE_USERS_SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("scripts/due_users.lua")));

/// How long after it was created, and after each check, a user is checked.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Users in one call.
pub const MAX_CALL_USERS: usize = 500;

/// Longest wait for a server other than that of the run.
const NODE_DEADLINE: Duration = Duration::from_secs(1);

/// How long the list of servers is used.
const NODES_AGE: Duration = Duration::from_secs(5);

/// The commands of the append script, those to find the server of a run, and those that a
/// connection begins with. `HELLO` says whether a server is a master.
const COMMANDS: &str = "hello ping evalsha client|setname time hmget hset hdel persist xlen xadd \
                        spublish cluster|slots";

/// A user: the token of a run that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunUser {
    /// The run.
    pub run: Uuid,
    /// The first bytes of the SHA-256 of the token: enough to tell the tokens of one run apart.
    pub token: [u8; 8],
}

/// Creates and removes the users. Cloning is cheap; clones share the list of servers.
#[derive(Debug, Clone)]
pub struct RunUsers {
    redis: Redis,
    keys: Keys,
    nodes: Arc<Mutex<Option<KnownNodes>>>,
}

/// The servers, and when they were listed.
type KnownNodes = (Instant, Vec<Server>);

impl RunUser {
    /// The user of a token of a run, by the SHA-256 of the token.
    #[must_use]
    pub fn new(run: Uuid, hash: &[u8; 32]) -> Self {
        let mut token = [0; 8];
        token.copy_from_slice(&hash[..8]);
        Self { run, token }
    }

    /// Whether it is the user of the token with this SHA-256.
    #[must_use]
    pub fn is_of(&self, hash: &[u8; 32]) -> bool {
        hash.starts_with(&self.token)
    }
}

/// The rules of the user of a run, with the SHA-256 of its password.
///
/// It cannot read what the run prints: `XREAD` is for commands to its agents alone. As Redis checks
/// the rights of the caller for each command of a script, it can also send the commands of the
/// append script by itself.
#[must_use]
pub fn rules(keys: &RunKeys, password_hash: &[u8; 32]) -> Vec<String> {
    let mut rules = vec![
        "reset".to_owned(),
        "on".to_owned(),
        format!("#{}", hex(password_hash)),
        format!("&{}", keys.wakeups),
    ];
    let keys_of_run = [&keys.stream, &keys.meta, &keys.wakeups, &keys.wake];
    rules.extend(keys_of_run.map(|key| format!("~{key}")));
    rules.extend(COMMANDS.split_whitespace().map(|name| format!("+{name}")));
    rules.push(format!("(+xread +xdel ~{})", keys.control));
    rules
}

impl RunUsers {
    /// Users of this deployment, by a connection that may manage them.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Self {
        Self {
            redis,
            keys,
            nodes: Arc::default(),
        }
    }

    /// The name of a user.
    #[must_use]
    pub fn name(&self, user: &RunUser) -> String {
        self.keys.user(user.run, user.token)
    }

    /// Creates a user, and loads the append script for it. Safe to repeat: connections of the user
    /// go on.
    pub async fn create(
        &self,
        user: &RunUser,
        password_hash: &[u8; 32],
    ) -> Result<(), RedisFailure> {
        let keys = self.keys.run(user.run);
        let mut set_up = redis::pipe();
        set_up.cmd("SCRIPT").arg("LOAD").arg(append_source());
        let rules = rules(&keys, password_hash);
        let set_user = set_up.cmd("ACL").arg("SETUSER").arg(self.name(user));
        set_user.arg(&rules);
        // First where the run is: written down, then created.
        let due = now_ms() + u64::try_from(CHECK_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let mut here = redis::pipe();
        here.zadd(&keys.users, self.name(user), due);
        for command in set_up.cmd_iter() {
            here.add_command(command.clone());
        }
        let here = &here;
        self.redis
            .run(keys.slot, async |connection| {
                here.exec_async(connection).await
            })
            .await?;
        self.run_elsewhere(&set_up).await;
        Ok(())
    }

    /// Removes users and ends their connections. One that does not exist is no error.
    pub async fn remove(&self, users: &[RunUser]) -> Result<(), RedisFailure> {
        for users in users.chunks(MAX_CALL_USERS) {
            let names: Vec<String> = users.iter().map(|user| self.name(user)).collect();
            let mut remove = redis::pipe();
            remove.cmd("ACL").arg("DELUSER").arg(&names);
            let masters = self.redis.masters().await?;
            let removals = masters.iter().map(|server| execute(server, &remove));
            try_join_all(removals).await?;
            self.run_elsewhere(&remove).await;
        }
        Ok(())
    }

    /// Removes users that are written down, and what is written down of them.
    pub async fn forget(&self, users: &[RunUser]) -> Result<(), RedisFailure> {
        self.remove(users).await?;
        for user in users {
            let keys = self.keys.run(user.run);
            let mut remove = redis::cmd("ZREM");
            remove.arg(&keys.users).arg(self.name(user));
            self.redis.query::<u64>(keys.slot, &remove).await?;
        }
        Ok(())
    }

    /// The users of a partition that are due to be checked. They are due again after
    /// [`CHECK_INTERVAL`].
    pub async fn take_due(&self, partition: usize) -> Result<Vec<RunUser>, RedisFailure> {
        let mut take = redis::cmd("EVALSHA");
        take.arg(DUE_USERS_SCRIPT.get_hash()).arg(1);
        take.arg(self.keys.users(partition));
        take.arg(CHECK_INTERVAL.as_millis().to_string())
            .arg(MAX_CALL_USERS);
        let members: Vec<String> = self
            .redis
            .run(Keys::slot(partition), async |connection| {
                let reply = call(&DUE_USERS_SCRIPT, &take, connection).await?;
                Ok(redis::from_redis_value(reply)?)
            })
            .await?;
        Ok(self.parse(&members).collect())
    }

    /// Some of the runs of a partition that have a user, and the cursor for the others: 0 at the
    /// beginning and at the end.
    pub async fn runs(
        &self,
        partition: usize,
        cursor: u64,
    ) -> Result<(u64, Vec<Uuid>), RedisFailure> {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(self.keys.users(partition)).arg(cursor);
        scan.arg("COUNT").arg(MAX_CALL_USERS);
        let (next, pairs): (u64, Vec<String>) =
            self.redis.query(Keys::slot(partition), &scan).await?;
        let members: Vec<String> = pairs.into_iter().step_by(2).collect();
        let runs = self.parse(&members).map(|user| user.run);
        Ok((next, runs.collect()))
    }

    /// All users that some master knows.
    pub async fn listed(&self) -> Result<Vec<RunUser>, RedisFailure> {
        let mut list = redis::cmd("ACL");
        list.arg("USERS");
        let mut users = Vec::new();
        for server in self.redis.masters().await? {
            let names: Vec<String> = server.query(&list).await?;
            users.extend(self.parse(&names));
        }
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    fn parse(&self, names: &[String]) -> impl Iterator<Item = RunUser> {
        let parsed = names.iter().map(|name| self.keys.parse_user(name));
        parsed.flatten().map(|(run, token)| RunUser { run, token })
    }

    /// Runs calls on the servers other than that of a run. What fails is repeated when an agent
    /// asks again.
    async fn run_elsewhere(&self, calls: &Pipeline) {
        let nodes = match self.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => return debug!(%error, "cannot list the servers of Redis"),
        };
        join_all(nodes.iter().map(async |server| {
            match timeout(NODE_DEADLINE, execute(server, calls)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "cannot manage users on a server"),
                Err(_elapsed) => {
                    debug!(
                        server = server.address(),
                        "a server is slow; its users may lag"
                    );
                }
            }
        }))
        .await;
    }

    /// All servers of a cluster, or the replicas of a master. The list is some seconds old at most.
    async fn nodes(&self) -> Result<Vec<Server>, RedisFailure> {
        let known = self
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let known = match known {
            Some((read_at, nodes)) if read_at.elapsed() < NODES_AGE => return Ok(nodes),
            known => known.map(|(_, nodes)| nodes).unwrap_or_default(),
        };
        let mut nodes = match self.redis.kind() {
            RedisMode::Single => return Ok(Vec::new()),
            RedisMode::Sentinel => Vec::new(),
            RedisMode::Cluster => {
                self.redis.suspect_servers();
                self.redis.masters().await?
            }
        };
        // A server that is known already has a connection.
        for replica in self.redis.replicas().await? {
            let same = known
                .iter()
                .find(|server| server.address() == replica.address());
            nodes.push(same.cloned().unwrap_or(replica));
        }
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), nodes.clone()));
        Ok(nodes)
    }
}

async fn execute(server: &Server, calls: &Pipeline) -> Result<(), RedisFailure> {
    let replies: Vec<Value> = server
        .run(async |connection| calls.query_async(connection).await)
        .await?;
    drop(replies);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_keys_of_one_run_and_no_pattern() {
        let keys = Keys::new("test:").run(Uuid::from_u128(7));
        let rules = rules(&keys, &[1; 32]).join(" ");
        for shared in [
            &keys.ready,
            &keys.users,
            &keys.heartbeat_keys.last_heartbeats,
        ] {
            assert!(!rules.contains(&format!("{shared} ")), "{rules}");
        }
        assert!(!rules.contains('*') && !rules.contains('@'), "{rules}");
        assert!(!rules.contains("script"), "{rules}");
    }
}
