//! What the client sends and receives when it creates or joins a run.

use std::collections::BTreeMap;

use runcast_common::config::{InvalidRedisUrl, RedisUrl};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::client::GatewayClient;
use crate::transport_choice::TransportChoice;

/// A run to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRun {
    /// Its display name.
    pub name: String,
    /// Number of variations.
    pub variations: u16,
    /// Labels to find and group it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl NewRun {
    /// A run with one variation and no labels.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            variations: 1,
            labels: BTreeMap::new(),
        }
    }
}

/// A run and the permission to publish to it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The run.
    pub run: Uuid,
    /// The address of its page.
    pub page: String,
    /// A token of this run alone; none from a gateway of an older version.
    pub token: Option<SecretString>,
    /// None where agents publish through the gateway alone.
    pub(crate) redis: Option<RedisUrl>,
    pub(crate) prefix: String,
    pub(crate) client: GatewayClient,
    pub(crate) transport: TransportChoice,
}

impl Session {
    /// The address of Redis, if the agent may publish to it.
    pub(crate) const fn redis_url(&self) -> Option<&RedisUrl> {
        self.redis.as_ref()
    }
}

#[derive(Deserialize)]
pub(super) struct PublishReply {
    pub(super) run: RunReply,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) token: Option<String>,
    #[serde(default)]
    pub(super) redis: Option<RedisReply>,
}

#[derive(Deserialize)]
pub(super) struct RunReply {
    pub(super) id: Uuid,
}

#[derive(Deserialize)]
pub(super) struct RedisReply {
    url: String,
    /// Certificates of the private authorities that sign for it, if there are any.
    #[serde(default)]
    ca: Option<String>,
    #[serde(default)]
    pub(super) prefix: String,
}

impl RedisReply {
    /// The address of Redis with its certificates.
    pub(super) fn parse(&self) -> Result<RedisUrl, String> {
        let url: RedisUrl = self
            .url
            .parse()
            .map_err(|error: InvalidRedisUrl| error.to_string())?;
        let ca = self.ca.as_deref().map(str::parse).transpose()?;
        Ok(url.trusting(ca))
    }
}

#[derive(Deserialize)]
pub(super) struct Problem {
    pub(super) title: Option<String>,
    pub(super) detail: Option<String>,
}
