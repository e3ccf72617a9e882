//! A master, its replica, and three sentinels that agree within a second that a master is gone.

use crate::eventually::eventually_within;
use crate::redis_node::{Fleet, Node, START_DEADLINE};

/// What the sentinels call the master.
const SERVICE: &str = "story";

/// The running servers.
#[derive(Debug)]
pub struct Sentinels {
    /// What they share.
    pub fleet: Fleet,
    /// The first master.
    pub master: Node,
    /// Takes its place.
    pub replica: Node,
    sentinels: Vec<Node>,
}

impl Sentinels {
    /// Starts all, and waits until they know each other.
    ///
    /// # Panics
    /// If that fails.
    pub async fn start(fleet: Fleet) -> Self {
        let master = fleet.start("master", |_port| String::new()).await;
        let from = format!("replicaof 127.0.0.1 {}\n", master.port());
        let replica = fleet.start("replica", |_port| from.clone()).await;
        eventually_within(START_DEADLINE, "the replica follows", async || {
            let info: String = replica.ask(&["INFO", "replication"]).await;
            if info.contains("master_link_status:up") {
                Ok(())
            } else {
                Err(info)
            }
        })
        .await;
        let [services, agents] = [&fleet.password, &fleet.publisher_password];
        let lines = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {} 2\n\
             sentinel auth-user {SERVICE} default\nsentinel auth-pass {SERVICE} {services}\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n\
             sentinel sentinel-user default\nsentinel sentinel-pass {services}\n\
             user default on >{services} ~* &* +@all\n\
             user publisher on >{agents} -@all +sentinel|get-master-addr-by-name\n",
            master.port()
        );
        let mut sentinels = Vec::new();
        for number in 1..=3 {
            let name = format!("sentinel-{number}");
            sentinels.push(fleet.start_sentinel(&name, &fleet.users()[0], &lines).await);
        }
        let all = Self {
            fleet,
            master,
            replica,
            sentinels,
        };
        all.know_each_other().await;
        all
    }

    /// The addresses for services and for agents.
    #[must_use]
    pub fn urls(&self) -> [String; 2] {
        let hosts = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()));
        let hosts: Vec<String> = hosts.collect();
        self.fleet.users().map(|user| {
            let (name, password) = user.split_once(':').expect("a user with a password");
            format!(
                "{}+sentinel://{user}@{}/{SERVICE}?sentinel_user={name}&sentinel_password={password}",
                self.fleet.scheme(),
                hosts.join(",")
            )
        })
    }

    async fn know_each_other(&self) {
        for sentinel in &self.sentinels {
            eventually_within(
                START_DEADLINE,
                "the sentinels know each other",
                async || {
                    let state: std::collections::HashMap<String, String> =
                        sentinel.ask(&["SENTINEL", "MASTER", SERVICE]).await;
                    let known = |name: &str| state.get(name).map_or("", String::as_str);
                    match (known("num-other-sentinels"), known("num-slaves")) {
                        ("2", "1") => Ok(()),
                        _ => Err(format!("{state:?}")),
                    }
                },
            )
            .await;
        }
    }
}
