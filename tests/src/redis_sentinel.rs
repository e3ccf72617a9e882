//! A master, its replica, and three sentinels that declare a master down after one second.

use crate::eventually::eventually_within;
use crate::redis_node::{RedisDeployment, RedisNode, START_DEADLINE};

/// The master's name in the sentinels.
const MASTER_NAME: &str = "story";

/// The running servers.
#[derive(Debug)]
pub struct RedisSentinels {
    /// Their shared settings.
    pub deployment: RedisDeployment,
    /// The initial master.
    pub master: RedisNode,
    /// The replica that gets promoted.
    pub replica: RedisNode,
    sentinels: Vec<RedisNode>,
}

impl RedisSentinels {
    /// Starts all, and waits until they have discovered each other.
    pub async fn start(deployment: RedisDeployment) -> Self {
        let master = deployment.start_node("master", |_port| String::new()).await;
        let from = format!("replicaof 127.0.0.1 {}\n", master.port());
        let replica = deployment.start_node("replica", |_port| from.clone()).await;
        eventually_within(START_DEADLINE, "the replica is in sync", async || {
            let info: String = replica.query(&["INFO", "replication"]).await;
            if info.contains("master_link_status:up") {
                Ok(())
            } else {
                Err(info)
            }
        })
        .await;
        let [services, agents] = [&deployment.password, &deployment.sentinel_password];
        let lines = format!(
            "sentinel monitor {MASTER_NAME} 127.0.0.1 {} 2\n\
             sentinel auth-user {MASTER_NAME} default\nsentinel auth-pass {MASTER_NAME} {services}\n\
             sentinel down-after-milliseconds {MASTER_NAME} 1000\nsentinel failover-timeout {MASTER_NAME} 5000\n\
             sentinel sentinel-user default\nsentinel sentinel-pass {services}\n\
             user default on >{services} ~* &* +@all\n\
             user publisher on >{agents} -@all +sentinel|get-master-addr-by-name\n",
            master.port()
        );
        let mut sentinels = Vec::new();
        for number in 1..=3 {
            let name = format!("sentinel-{number}");
            sentinels.push(
                deployment
                    .start_sentinel(&name, &deployment.services_user(), &lines)
                    .await,
            );
        }
        let all = Self {
            deployment,
            master,
            replica,
            sentinels,
        };
        all.wait_until_discovered().await;
        all
    }

    /// The URLs for services and for agents, whose user is for the sentinels alone.
    pub fn urls(&self) -> [String; 2] {
        let hosts = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()));
        let hosts: Vec<String> = hosts.collect();
        let deployment = &self.deployment;
        let users = [
            (
                format!("{}@", deployment.services_user()),
                "default",
                &deployment.password,
            ),
            (String::new(), "publisher", &deployment.sentinel_password),
        ];
        users.map(|(user, name, password)| {
            format!(
                "{}+sentinel://{user}{}/{MASTER_NAME}?sentinel_user={name}&sentinel_password={password}",
                deployment.scheme(),
                hosts.join(",")
            )
        })
    }

    async fn wait_until_discovered(&self) {
        for sentinel in &self.sentinels {
            eventually_within(
                START_DEADLINE,
                "the sentinels know each other",
                async || {
                    let state: std::collections::HashMap<String, String> =
                        sentinel.query(&["SENTINEL", "MASTER", MASTER_NAME]).await;
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
