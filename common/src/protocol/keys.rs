//! The catalogue of Redis keys and channels. No other file spells one.
//!
//! | key | type | content | time to live |
//! |---|---|---|---|
//! | `{p}:run:<run>:stream` | stream | entries of the run | the live window once stored |
//! | `{p}:run:<run>:meta` | hash | epoch, seq, watermark, producers | with the stream |
//! | `{p}:run:<run>:bell` | sharded pub/sub | wake-up: new events up to an id | |
//! | `{p}:run:<run>:control` | stream | commands to agents | until acknowledged; with the run |
//! | `{p}:run:<run>:pulse` | sharded pub/sub | heartbeats of its agents | |
//! | `{p}:run:<run>:state` | sharded pub/sub | updates: lost, back, sealed | |
//! | `{p}:run:<run>:notice` | sharded pub/sub | its agents have something to read | |
//! | `wake:{p}:<run>` | hash | touched by agents: the run has unstored events | none: never left |
//! | `{p}:ready` | stream, group `persisters` | runs with unstored events | until acknowledged |
//! | `{p}:users` | sorted set | Redis users of agents by time of their check | until removed |
//! | `{p}:pulses` | sorted set | agents by time of the last heartbeat | until lost |
//! | `{p}:pulses:new` | sorted set | agents that are new or came back | until the worker saw them |
//! | `{p}:pulses:watch` | hash | since when, and when last, workers scanned | 1 day |
//! | `updates` | pub/sub | updates of all runs | |
//! | `agent:<agent>` | hash | description of an agent | 5 min |
//! | `agent:<agent>:heartbeat` | string | last heartbeat | 30 s |
//! | `rate:{<subject>}:<policy>` | string | state of a rate limit | until the quota is full |
//! | `ticket:<sha256>` | string, JSON | stream ticket: credential, bounds | until used, max. 30 s |
//! | `session:<sha256>` | string, JSON | cached session: user, expiry | of the session, max. 24 h |
//! | `auth:token:<sha256>` | string, JSON | cached token: owner, scopes, bounds, expiry | 1 h |
//! | `auth:perm:<user>` | string, JSON | cached permissions by all roles of a user | 5 min |
//! | `auth:attempt:<sha256>` | string, JSON | pending OpenID Connect login | until used, 10 min |
//! | `auth:changes` | pub/sub | tokens, sessions and users that changed | |
//!
//! The keys of a run expire 15 minutes after it was sealed. Of a deleted run only `meta` stays, for
//! a week, and says so. A pending OpenID Connect login holds nonce and verifier.
//!
//! `{p}` is the partition of the run, a hash tag: all keys of a run share one slot of a cluster, so
//! that one script can use them, and the 64 tags are spread evenly over the slots. A prefix before
//! every key lets several installations share a server.

use uuid::Uuid;

pub use super::slot::Slot;

/// Number of partitions.
pub const PARTITION_COUNT: usize = 64;

/// Consumer group of the persisters on every ready stream.
pub const PERSISTER_GROUP: &str = "persisters";

/// What the names of Redis users of agents begin with.
const USER_PREFIX: &str = "publisher-";

/// The hash tag of each partition. Tag `i` hashes close to the middle of the `i`-th 64th of the
/// 16,384 slots, so any number of shards up to 64 gets a fair share.
#[rustfmt::skip]
const HASH_TAGS: [&str; PARTITION_COUNT] = [
    "mm", "6q", "9i", "e8", "29", "21", "ap", "ax", "0j", "kv", "dn", "df", "3g", "o6", "gc", "xw",
    "8g", "d6", "lc", "02", "g3", "4c", "on", "4r", "99", "91", "1d", "m5", "fm", "yy", "2i", "iu",
    "7a", "k0", "ce", "8y", "4l", "op", "x9", "x1", "jf", "1z", "zj", "b3", "ik", "2w", "yg", "fs",
    "bk", "9w", "6o", "ms", "af", "an", "5b", "i3", "c5", "dp", "kh", "0t", "xi", "xa", "he", "44",
];

/// The slot of each partition, computed at compile time.
const PARTITION_SLOTS: [Slot; PARTITION_COUNT] = {
    let mut slots = [Slot::of_tag(HASH_TAGS[0]); PARTITION_COUNT];
    let mut partition = 1;
    while partition < PARTITION_COUNT {
        slots[partition] = Slot::of_tag(HASH_TAGS[partition]);
        partition += 1;
    }
    slots
};

/// The keys of one installation.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    prefix: String,
}

/// The keys and channels of one run, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKeys {
    /// The run.
    pub run: Uuid,
    /// Their slot.
    pub slot: Slot,
    /// Stream of its entries.
    pub stream: String,
    /// Hash of its state: see `append.lua`.
    pub meta: String,
    /// Wake-up channel.
    pub wakeups: String,
    /// Channel of its agents' heartbeats.
    pub heartbeats: String,
    /// Channel of its updates.
    pub updates: String,
    /// Channel that says that its agents have something to read: a command, or a durable seq.
    pub notices: String,
    /// Ready stream of its partition.
    pub ready: String,
    /// Heartbeat keys of its partition.
    pub heartbeat_keys: HeartbeatKeys,
    /// Stream of commands to its agents.
    pub control: String,
    /// Hash that an agent with a Redis user of its own touches when it has appended: it may not
    /// write to `ready`.
    pub wake: String,
    /// Redis users of agents that publish to runs of its partition.
    pub users: String,
}

/// The heartbeat keys of a partition, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeartbeatKeys {
    /// Sorted set of agents by the time of their last heartbeat.
    pub last_heartbeats: String,
    /// Sorted set of agents that are new, or came back after a silence.
    pub returned: String,
    /// Hash: since when, and when last, workers scanned the partition.
    pub watch: String,
}

/// A pub/sub channel of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSubChannel {
    /// Wake-up: there are new events.
    Wakeup,
    /// Heartbeat of an agent.
    Heartbeat,
    /// Update of the run.
    Update,
    /// Agents of the run have something to read.
    Notice,
}

impl Keys {
    /// Keys that start with `prefix`; empty for an installation with its own server.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The prefix, which agents need too.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The partition of a run, below [`PARTITION_COUNT`].
    #[must_use]
    pub fn partition(run: Uuid) -> usize {
        // The last byte of a UUIDv7 is random.
        usize::from(run.as_bytes()[15]) % PARTITION_COUNT
    }

    /// The slot of a partition below [`PARTITION_COUNT`]: of its runs, ready stream and heartbeats.
    #[must_use]
    pub const fn slot(partition: usize) -> Slot {
        PARTITION_SLOTS[partition]
    }

    /// The keys of one run.
    #[must_use]
    pub fn run(&self, run: Uuid) -> RunKeys {
        let partition = Self::partition(run);
        let tag = HASH_TAGS[partition];
        let base = format!("{}{{{tag}}}", self.prefix);
        RunKeys {
            run,
            slot: Self::slot(partition),
            stream: format!("{base}:run:{run}:stream"),
            meta: format!("{base}:run:{run}:meta"),
            wakeups: format!("{base}:run:{run}:bell"),
            heartbeats: format!("{base}:run:{run}:pulse"),
            updates: format!("{base}:run:{run}:state"),
            notices: format!("{base}:run:{run}:notice"),
            control: format!("{base}:run:{run}:control"),
            wake: format!("{}{{{tag}}}:{run}", self.wakes()),
            users: self.users(partition),
            ready: self.ready(partition),
            heartbeat_keys: self.heartbeat_keys(partition),
        }
    }

    /// The heartbeat keys of a partition below [`PARTITION_COUNT`].
    #[must_use]
    pub fn heartbeat_keys(&self, partition: usize) -> HeartbeatKeys {
        let last_heartbeats = format!("{}{{{}}}:pulses", self.prefix, HASH_TAGS[partition]);
        HeartbeatKeys {
            returned: format!("{last_heartbeats}:new"),
            watch: format!("{last_heartbeats}:watch"),
            last_heartbeats,
        }
    }

    /// The run and the kind of a channel, if it is a run channel with our prefix.
    #[must_use]
    pub fn parse_channel(&self, channel: &[u8]) -> Option<(Uuid, PubSubChannel)> {
        let text = std::str::from_utf8(channel).ok()?;
        let (_, rest) = text.strip_prefix(&self.prefix)?.split_once(":run:")?;
        let (run, name) = rest.split_once(':')?;
        let channel = match name {
            "bell" => PubSubChannel::Wakeup,
            "pulse" => PubSubChannel::Heartbeat,
            "state" => PubSubChannel::Update,
            "notice" => PubSubChannel::Notice,
            _ => return None,
        };
        Some((Uuid::try_parse(run).ok()?, channel))
    }

    /// The pattern of every key, for `SCAN`.
    #[must_use]
    pub fn all(&self) -> String {
        // A prefix contains no pattern characters.
        format!("{}*", self.prefix)
    }

    /// The run of a key, if it is a run key with our prefix.
    #[must_use]
    pub fn parse_run(&self, key: &[u8]) -> Option<Uuid> {
        if let Some(run) = self.parse_wake(key) {
            return Some(run);
        }
        let text = std::str::from_utf8(key).ok()?;
        let (tag, rest) = text.strip_prefix(&self.prefix)?.split_once(":run:")?;
        let (run, name) = rest.split_once(':')?;
        let is_run_key = tag.starts_with('{') && ["stream", "meta", "control"].contains(&name);
        is_run_key.then(|| Uuid::try_parse(run).ok()).flatten()
    }

    /// The key as text, if it is an agent key with our prefix.
    #[must_use]
    pub fn parse_agent<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text.strip_prefix(&self.prefix)?.strip_prefix("agent:")?;
        let id = rest.strip_suffix(":heartbeat").unwrap_or(rest);
        Uuid::try_parse(id).ok().map(|_agent| text)
    }

    /// Whether a key stands in the place of a run's or an agent's key but holds no id. A publisher
    /// may write such keys; nothing reads them.
    #[must_use]
    pub fn is_invalid(&self, key: &[u8]) -> bool {
        let Some(rest) = key.strip_prefix(self.prefix.as_bytes()) else {
            return false;
        };
        let is_agent = rest.starts_with(b"agent:");
        let is_run = HASH_TAGS.iter().any(|tag| {
            let rest = rest.strip_prefix(b"{");
            let rest = rest.and_then(|rest| rest.strip_prefix(tag.as_bytes()));
            rest.is_some_and(|rest| rest.starts_with(b"}:run:"))
        });
        (is_agent && self.parse_agent(key).is_none()) || (is_run && self.parse_run(key).is_none())
    }

    /// The channel of updates of all runs.
    #[must_use]
    pub fn updates(&self) -> String {
        format!("{}updates", self.prefix)
    }

    /// The mark of the database that services have seen last.
    #[must_use]
    pub fn database_mark(&self) -> String {
        format!("{}database", self.prefix)
    }

    /// The description of an agent.
    #[must_use]
    pub fn agent(&self, agent: Uuid) -> String {
        format!("{}agent:{agent}", self.prefix)
    }

    /// The last heartbeat of an agent.
    #[must_use]
    pub fn heartbeat(&self, agent: Uuid) -> String {
        format!("{}agent:{agent}:heartbeat", self.prefix)
    }

    /// The state of a rate limit. All limits of a subject share a slot; its name contains no
    /// braces.
    #[must_use]
    pub fn rate(&self, subject: &str, policy: &str) -> String {
        format!("{}rate:{{{subject}}}:{policy}", self.prefix)
    }

    /// A stream ticket, by its SHA-256.
    #[must_use]
    pub fn ticket(&self, hash: &[u8; 32]) -> String {
        format!("{}ticket:{}", self.prefix, hex(hash))
    }

    /// A cached session, by the SHA-256 of its id.
    #[must_use]
    pub fn session(&self, hash: &[u8; 32]) -> String {
        format!("{}session:{}", self.prefix, hex(hash))
    }

    /// A cached token, by its SHA-256.
    #[must_use]
    pub fn token(&self, hash: &[u8; 32]) -> String {
        format!("{}auth:token:{}", self.prefix, hex(hash))
    }

    /// The cached permissions of a user.
    #[must_use]
    pub fn permissions(&self, user: Uuid) -> String {
        format!("{}auth:perm:{user}", self.prefix)
    }

    /// A pending OpenID Connect login, by the SHA-256 of its secrets.
    #[must_use]
    pub fn attempt(&self, hash: &[u8; 32]) -> String {
        format!("{}auth:attempt:{}", self.prefix, hex(hash))
    }

    /// The channel of changes of tokens, sessions and users.
    #[must_use]
    pub fn access_changes(&self) -> String {
        format!("{}auth:changes", self.prefix)
    }

    /// The ready stream of a partition below [`PARTITION_COUNT`].
    #[must_use]
    pub fn ready(&self, partition: usize) -> String {
        format!("{}{{{}}}:ready", self.prefix, HASH_TAGS[partition])
    }

    /// What the wake keys of all runs begin with, and no other key.
    #[must_use]
    pub fn wakes(&self) -> String {
        format!("{}wake:", self.prefix)
    }

    /// The run of a wake key with our prefix.
    #[must_use]
    pub fn parse_wake(&self, key: &[u8]) -> Option<Uuid> {
        let text = std::str::from_utf8(key).ok()?;
        let (_, run) = text.strip_prefix(&self.wakes())?.split_once(':')?;
        Uuid::try_parse(run).ok()
    }

    /// The users of agents in a partition below [`PARTITION_COUNT`].
    #[must_use]
    pub fn users(&self, partition: usize) -> String {
        format!("{}{{{}}}:users", self.prefix, HASH_TAGS[partition])
    }

    /// The name of the Redis user of a run's token, of which it has the first bytes of the SHA-256.
    #[must_use]
    pub fn user(&self, run: Uuid, token: [u8; 8]) -> String {
        format!("{}{USER_PREFIX}{run}-{}", self.prefix, hex(&token))
    }

    /// The run and the token of a Redis user with our prefix.
    #[must_use]
    pub fn parse_user(&self, name: &str) -> Option<(Uuid, [u8; 8])> {
        let text = name.strip_prefix(&self.prefix)?.strip_prefix(USER_PREFIX)?;
        let (run, token) = text.rsplit_once('-')?;
        let is_token = token.len() == 16 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let token = u64::from_str_radix(token, 16).ok().filter(|_| is_token)?;
        Some((Uuid::try_parse(run).ok()?, token.to_be_bytes()))
    }
}

/// Bytes as hexadecimal text.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_spread_evenly_over_the_slots() {
        for (partition, tag) in HASH_TAGS.iter().enumerate() {
            let slot = usize::from(Keys::slot(partition).number());
            assert_eq!(slot / (16_384 / PARTITION_COUNT), partition, "{tag}");
        }
    }

    #[test]
    fn keys_of_a_run_share_a_slot_and_channels_name_the_run() {
        let keys = Keys::new("test:");
        let run = Uuid::now_v7();
        let names = keys.run(run);
        let tag =
            |key: &str| key[key.find('{').expect("tag")..=key.find('}').expect("tag")].to_owned();
        for key in [
            &names.stream,
            &names.meta,
            &names.ready,
            &names.control,
            &names.wake,
            &names.users,
        ] {
            assert_eq!(tag(key), tag(&names.wakeups));
            assert!(key.starts_with("test:"));
        }
        assert_eq!(Slot::of(&names.stream), names.slot);
        let parsed = |channel: &str| keys.parse_channel(channel.as_bytes());
        assert_eq!(parsed(&names.wakeups), Some((run, PubSubChannel::Wakeup)));
        assert_eq!(
            parsed(&names.heartbeats),
            Some((run, PubSubChannel::Heartbeat))
        );
        assert_eq!(parsed(&names.updates), Some((run, PubSubChannel::Update)));
        assert_eq!(parsed(&names.notices), Some((run, PubSubChannel::Notice)));
        assert_eq!(parsed(&names.stream), None);
        assert_eq!(Keys::default().parse_channel(b"{mm}:run:x:bell"), None);
    }

    #[test]
    fn keys_are_parsed_back_to_their_run_or_agent() {
        let keys = Keys::new("test:");
        let run = Uuid::now_v7();
        let names = keys.run(run);
        for key in [&names.stream, &names.meta, &names.control, &names.wake] {
            assert_eq!(keys.parse_run(key.as_bytes()), Some(run));
            assert!(!keys.is_invalid(key.as_bytes()));
            assert_eq!(Keys::new("other:").parse_run(key.as_bytes()), None);
        }
        for key in [
            &names.wakeups,
            &names.ready,
            &names.heartbeat_keys.last_heartbeats,
        ] {
            assert_eq!(keys.parse_run(key.as_bytes()), None);
            assert_eq!(keys.parse_agent(key.as_bytes()), None);
        }
        assert!(!keys.is_invalid(names.ready.as_bytes()));
        assert!(!keys.is_invalid(b"other:agent:x"));
        for key in [
            &b"test:agent:x"[..],
            b"test:agent:\xff:heartbeat",
            b"test:{mm}:run:x:stream",
            b"test:{mm}:run:",
        ] {
            assert!(keys.is_invalid(key));
        }
        for key in [keys.agent(run), keys.heartbeat(run)] {
            assert_eq!(keys.parse_agent(key.as_bytes()), Some(key.as_str()));
        }
        assert_eq!(keys.parse_agent(b"test:agent:x"), None);
    }

    #[test]
    fn names_of_users_are_parsed_back_to_their_tokens() {
        let keys = Keys::new("test:");
        let (run, token) = (Uuid::from_u128(7), [0xa7; 8]);
        let name = keys.user(run, token);
        assert_eq!(keys.parse_user(&name), Some((run, token)));
        let short = &name[..name.len() - 1];
        let signed = name.replace("-a7a7", "-+7a7");
        for other in [
            "default",
            "publisher",
            "test:publisher-",
            "",
            short,
            &signed,
        ] {
            assert_eq!(keys.parse_user(other), None, "{other}");
        }
        assert_eq!(Keys::new("other:").parse_user(&name), None);
        assert_eq!(keys.parse_wake(b"test:wake:{mm}:x"), None);
    }
}
