//! What goes to the gateway and comes back when a run is created or joined.

use std::collections::BTreeMap;

use runcast_common::config::{InvalidRedisUrl, RedisUrl};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::publisher::Target;

/// What a run to be created is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRun {
    /// Its name, for people.
    pub name: String,
    /// How many attempts run side by side.
    pub variations: u16,
    /// What it is found and grouped by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl NewRun {
    /// A plain run of one variation.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            variations: 1,
            labels: BTreeMap::new(),
        }
    }
}

/// A run that may be published to.
#[derive(Debug, Clone)]
pub struct Session {
    /// The run.
    pub run: Uuid,
    /// Its page.
    pub page: String,
    pub(super) redis: RedisUrl,
    pub(super) prefix: String,
}

impl Session {
    /// Where one variation of the run is published.
    #[must_use]
    pub fn target(&self, variation: u16) -> Target {
        Target {
            redis: self.redis.clone(),
            prefix: self.prefix.clone(),
            run: self.run,
            variation,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Reply {
    pub(super) run: RunReply,
    #[serde(default)]
    pub(super) url: Option<String>,
    pub(super) redis: RedisReply,
}

#[derive(Deserialize)]
pub(super) struct RunReply {
    pub(super) id: Uuid,
}

#[derive(Deserialize)]
pub(super) struct RedisReply {
    url: String,
    /// Certificates of the authorities that sign for it, if they are private ones.
    #[serde(default)]
    ca: Option<String>,
    #[serde(default)]
    pub(super) prefix: String,
}

impl RedisReply {
    /// Where Redis is, in a form that can be used.
    pub(super) fn read(&self) -> Result<RedisUrl, String> {
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
