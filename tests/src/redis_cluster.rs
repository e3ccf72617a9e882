//! A Redis Cluster of three masters; the first has a replica.

use runcast_common::protocol::keys::{Keys, PARTITION_COUNT, Slot};

use crate::eventually::{eventually, eventually_within};
use crate::programs;
use crate::redis_node::{RedisDeployment, RedisNode, START_DEADLINE};

/// Masters.
pub const MASTER_COUNT: usize = 3;

/// Silence after which a node counts as failed, in milliseconds.
const NODE_TIMEOUT_MS: u32 = 1000;

/// The running servers.
#[derive(Debug)]
pub struct RedisCluster {
    /// Their shared settings.
    pub deployment: RedisDeployment,
    /// Three masters, then the replica of the first.
    pub nodes: Vec<RedisNode>,
}

impl RedisCluster {
    /// Starts all, and waits until they agree on the slots.
    pub async fn start(deployment: RedisDeployment) -> Self {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for number in 0..=MASTER_COUNT {
            let bus = programs::free_port();
            let lines = |_port| {
                format!(
                    "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {bus}\n\
                     cluster-node-timeout {NODE_TIMEOUT_MS}\ncluster-replica-validity-factor 0\n"
                )
            };
            nodes.push(
                deployment
                    .start_node(&format!("node-{number}"), lines)
                    .await,
            );
            buses.push(bus);
        }
        let cluster = Self { deployment, nodes };
        cluster.join(&buses).await;
        cluster
    }

    async fn join(&self, buses: &[u16]) {
        let (first, others) = self.nodes.split_first().expect("nodes");
        for (node, bus) in others.iter().zip(&buses[1..]) {
            let (port, bus) = (node.port().to_string(), bus.to_string());
            let () = first
                .query(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
                .await;
        }
        for (number, node) in self.nodes[..MASTER_COUNT].iter().enumerate() {
            let bound = |number: usize| number * usize::from(Slot::COUNT) / MASTER_COUNT;
            let (from, upto) = (
                bound(number).to_string(),
                (bound(number + 1) - 1).to_string(),
            );
            let () = node
                .query(&["CLUSTER", "ADDSLOTSRANGE", &from, &upto])
                .await;
        }
        let master = self.id(0).await;
        let replica = &self.nodes[MASTER_COUNT];
        eventually_within(START_DEADLINE, "the replica knows its master", async || {
            replica
                .try_query::<()>(&["CLUSTER", "REPLICATE", &master])
                .await
        })
        .await;
        for node in &self.nodes {
            eventually_within(START_DEADLINE, "the cluster is whole", async || {
                let info: String = node.query(&["CLUSTER", "INFO"]).await;
                let nodes: String = node.query(&["CLUSTER", "NODES"]).await;
                let is_whole = info.contains("cluster_state:ok")
                    && nodes.lines().count() == MASTER_COUNT + 1
                    && nodes.contains("slave");
                if is_whole {
                    Ok(())
                } else {
                    Err(format!("{info}{nodes}"))
                }
            })
            .await;
        }
        eventually_within(START_DEADLINE, "the replica is in sync", async || {
            let info: String = replica.query(&["INFO", "replication"]).await;
            if info.contains("master_link_status:up") {
                Ok(())
            } else {
                Err(info)
            }
        })
        .await;
    }

    /// The URLs for services and for agents. They name two nodes; some stories kill the first.
    pub fn urls(&self) -> [String; 2] {
        let hosts = format!(
            "127.0.0.1:{},127.0.0.1:{}",
            self.nodes[0].port(),
            self.nodes[1].port()
        );
        let scheme = self.deployment.scheme();
        [
            format!("{}@", self.deployment.services_user()),
            String::new(),
        ]
        .map(|user| format!("{scheme}+cluster://{user}{hosts}"))
    }

    /// The number of the master that serves a slot initially.
    pub fn master_of(slot: Slot) -> usize {
        (usize::from(slot.number()) * MASTER_COUNT + MASTER_COUNT - 1) / usize::from(Slot::COUNT)
    }

    /// Waits until no run waits to be stored, on any node.
    pub async fn wait_ready_queue_empty(&self, keys: &Keys) {
        let redis = self.deployment.client(&self.urls()[0]);
        for partition in 0..PARTITION_COUNT {
            let length = redis::cmd("XLEN").arg(keys.ready(partition)).to_owned();
            eventually("no run waits to be stored", async || {
                match redis.query::<u64>(Keys::slot(partition), &length).await {
                    Ok(0) => Ok(()),
                    other => Err(format!("{other:?} in partition {partition}")),
                }
            })
            .await;
        }
    }

    /// Waits until a client subscribes to this wake-up channel at a node.
    pub async fn wait_for_subscriber(&self, node: usize, channel: &str) {
        eventually(
            "a gateway subscribes to the wake-up channel at its new node",
            async || {
                let channels: Vec<String> = self.nodes[node]
                    .try_query(&["PUBSUB", "SHARDCHANNELS"])
                    .await?;
                if channels.iter().any(|one| one == channel) {
                    Ok(())
                } else {
                    Err(format!("{channels:?}"))
                }
            },
        )
        .await;
    }

    /// How many ASK and TRYAGAIN errors a node has returned because a slot was migrating.
    pub async fn migration_errors(&self, node: usize) -> u64 {
        let info: String = self.nodes[node].query(&["INFO", "errorstats"]).await;
        let count = |line: &str| {
            let rest = line
                .strip_prefix("errorstat_ASK:count=")
                .or_else(|| line.strip_prefix("errorstat_TRYAGAIN:count="))?;
            rest.trim_end().parse::<u64>().ok()
        };
        info.lines().filter_map(count).sum()
    }

    /// Waits until a node has returned this many of them.
    pub async fn wait_migration_errors(&self, node: usize, count: u64) {
        eventually("calls hit the migrating slot", async || {
            let refused = self.migration_errors(node).await;
            if refused >= count {
                Ok(())
            } else {
                Err(refused.to_string())
            }
        })
        .await;
    }

    /// The id of a node.
    pub async fn id(&self, node: usize) -> String {
        self.nodes[node].query(&["CLUSTER", "MYID"]).await
    }

    /// Starts the migration of a slot. Until it is [finished](Self::finish_migration) neither node
    /// serves all keys of the slot.
    pub async fn begin_migration(&self, slot: Slot, from: usize, to: usize) {
        let number = slot.number().to_string();
        let (source, target) = (self.id(from).await, self.id(to).await);
        let () = self.nodes[to]
            .query(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source])
            .await;
        let () = self.nodes[from]
            .query(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target])
            .await;
    }

    /// Moves one key of a migrating slot.
    pub async fn migrate_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        let password = self.deployment.password.as_str();
        let command = [
            "MIGRATE",
            "127.0.0.1",
            &port,
            "",
            "0",
            "5000",
            "AUTH2",
            "default",
            password,
            "KEYS",
            key,
        ];
        let _ok_or_nokey: String = self.nodes[from].query(&command).await;
    }

    /// Moves the remaining keys of a migrating slot, and assigns the slot to its new node.
    pub async fn finish_migration(&self, slot: Slot, from: usize, to: usize) {
        let number = slot.number().to_string();
        let keys: Vec<String> = self.nodes[from]
            .query(&["CLUSTER", "GETKEYSINSLOT", &number, "1000"])
            .await;
        for key in keys {
            self.migrate_key(&key, from, to).await;
        }
        let target = self.id(to).await;
        for node in [to, from] {
            let () = self.nodes[node]
                .query(&["CLUSTER", "SETSLOT", &number, "NODE", &target])
                .await;
        }
    }
}
