//! Every Redis key and channel that exists; nothing else spells one.
//!
//! | key | type | what | life |
//! |---|---|---|---|
//! | `{p}:run:<run>:stream` | stream | entries of the run | stored part: the live window; gone 15 min after sealing |
//! | `{p}:run:<run>:meta` | hash | epoch, seq, watermark, producers | with the stream |
//! | `{p}:run:<run>:bell` | sharded pub/sub | "there is more, up to id" | none |
//! | `{p}:run:<run>:control` | stream | commands to agents | until acknowledged; with the run |
//! | `{p}:run:<run>:pulse` | sharded pub/sub | signs of life of its agents | none |
//! | `{p}:run:<run>:state` | sharded pub/sub | it is lost, found, or whole | none |
//! | `{p}:ready` | stream, group `persisters` | runs with unstored events | until acknowledged |
//! | `{p}:pulses` | sorted set | agents by the time of their last sign of life | until lost |
//! | `{p}:pulses:new` | sorted set | agents that were heard first, or again after a silence | until the worker took them |
//! | `{p}:pulses:watch` | hash | since when, and when last, a worker looked at them | 1 day |
//! | `updates` | pub/sub | the same of all runs | none |
//! | `agent:<agent>` | hash | what an agent says of itself | 5 min |
//! | `agent:<agent>:heartbeat` | string | its last sign of life | 30 s |
//! | `rate:{<subject>}:<policy>` | string | how much somebody has asked for | until it is forgiven |
//! | `ticket:<sha256>` | string, JSON | a stream ticket: the credential that it stands for, and its bounds | until used, 30 s at most |
//! | `session:<sha256>` | string, JSON | copy of a session: whose it is, and until when | as the session, 24 h at most |
//! | `auth:token:<sha256>` | string, JSON | copy of a token: owner, scopes, bounds, expiry | 1 h |
//! | `auth:perm:<user>` | string, JSON | copy of what a user may do by all their roles | 5 min |
//! | `auth:attempt:<sha256>` | string, JSON | a sign-in by OpenID Connect that goes on: nonce, verifier | taken once, 10 min |
//! | `auth:changes` | pub/sub | tokens, sessions and users that changed | none |
//!
//! `{p}` is the run's partition, a hash tag: all keys of a run lie in one cluster slot, so that one
//! script can touch them, and the 64 tags spread evenly over the slots. A prefix in front of every
//! key lets several installations share a server.

use uuid::Uuid;

/// Number of partitions.
pub const PARTITIONS: usize = 64;

/// Consumer group of the persisters on every ready stream.
pub const PERSISTERS: &str = "persisters";

/// One hash tag per partition. Tag `i` hashes close to the middle of the `i`-th 64th of a cluster's
/// 16,384 slots, so any number of shards up to 64 gets a fair share.
#[rustfmt::skip]
const TAGS: [&str; PARTITIONS] = [
    "mm", "6q", "9i", "e8", "29", "21", "ap", "ax", "0j", "kv", "dn", "df", "3g", "o6", "gc", "xw",
    "8g", "d6", "lc", "02", "g3", "4c", "on", "4r", "99", "91", "1d", "m5", "fm", "yy", "2i", "iu",
    "7a", "k0", "ce", "8y", "4l", "op", "x9", "x1", "jf", "1z", "zj", "b3", "ik", "2w", "yg", "fs",
    "bk", "9w", "6o", "ms", "af", "an", "5b", "i3", "c5", "dp", "kh", "0t", "xi", "xa", "he", "44",
];

/// The slots of the partitions, each found once, when this is compiled.
const SLOTS: [Slot; PARTITIONS] = {
    let mut slots = [Slot(0); PARTITIONS];
    let mut partition = 0;
    while partition < PARTITIONS {
        slots[partition] = Slot(crc16(TAGS[partition].as_bytes()) % Slot::COUNT);
        partition += 1;
    }
    slots
};

/// Where a key lies in a Redis Cluster: each node holds some of the [`Slot::COUNT`] slots. For a single
/// server it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Number of slots.
    pub const COUNT: u16 = 16_384;

    /// The slot of a key: of what stands within its first braces, if anything does.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let tag = key
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
        Self(crc16(tag.unwrap_or(key).as_bytes()) % Self::COUNT)
    }

    /// Its number, below [`Slot::COUNT`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// CRC-16/XMODEM, by which a Redis Cluster maps a key to its slot.
const fn crc16(bytes: &[u8]) -> u16 {
    let (mut crc, mut at) = (0u16, 0);
    while at < bytes.len() {
        crc ^= (bytes[at] as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        at += 1;
    }
    crc
}

/// Spells the keys of one installation.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    prefix: String,
}

/// The keys that one run's scripts touch, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKeys {
    /// The run itself.
    pub run: Uuid,
    /// Where all of them lie.
    pub slot: Slot,
    /// Its entries.
    pub stream: String,
    /// Its bookkeeping.
    pub meta: String,
    /// Its wake-up channel.
    pub bell: String,
    /// The channel of its agents' signs of life.
    pub pulse: String,
    /// The channel of what changes about it without being an event.
    pub state: String,
    /// The ready stream of its partition.
    pub ready: String,
    /// The signs of life of its partition.
    pub fleet: FleetKeys,
    /// Commands to its agents.
    pub control: String,
}

/// The keys of a partition from which the worker learns who lives, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FleetKeys {
    /// Agents by the time of their last sign of life.
    pub pulses: String,
    /// Agents that were heard first, or again after a silence.
    pub news: String,
    /// Since when, and when last, a worker looked.
    pub watch: String,
}

/// A pub/sub channel of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSubChannel {
    /// There is more to read.
    Bell,
    /// An agent lives.
    Pulse,
    /// The run is lost, found, or whole.
    State,
}

impl Keys {
    /// Keys with `prefix` in front; an empty one for an installation with a server of its own.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The prefix, as agents must be told it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The partition of a run, below [`PARTITIONS`].
    #[must_use]
    pub fn partition(run: Uuid) -> usize {
        // The last byte of a UUIDv7 is random, whoever minted it.
        usize::from(run.as_bytes()[15]) % PARTITIONS
    }

    /// The slot of a partition below [`PARTITIONS`]: of all its runs and of its ready stream.
    #[must_use]
    pub const fn slot(partition: usize) -> Slot {
        SLOTS[partition]
    }

    /// The keys of one run.
    #[must_use]
    pub fn run(&self, run: Uuid) -> RunKeys {
        let partition = Self::partition(run);
        let base = format!("{}{{{}}}", self.prefix, TAGS[partition]);
        RunKeys {
            run,
            slot: Self::slot(partition),
            stream: format!("{base}:run:{run}:stream"),
            meta: format!("{base}:run:{run}:meta"),
            bell: format!("{base}:run:{run}:bell"),
            pulse: format!("{base}:run:{run}:pulse"),
            state: format!("{base}:run:{run}:state"),
            control: format!("{base}:run:{run}:control"),
            ready: self.ready(partition),
            fleet: self.fleet(partition),
        }
    }

    /// From which the worker learns who lives, for a partition below [`PARTITIONS`].
    #[must_use]
    pub fn fleet(&self, partition: usize) -> FleetKeys {
        let pulses = format!("{}{{{}}}:pulses", self.prefix, TAGS[partition]);
        FleetKeys {
            news: format!("{pulses}:new"),
            watch: format!("{pulses}:watch"),
            pulses,
        }
    }

    /// The run that a channel belongs to and which of its channels that is, if it is one of ours.
    #[must_use]
    pub fn parse_channel(&self, channel: &[u8]) -> Option<(Uuid, PubSubChannel)> {
        let text = std::str::from_utf8(channel).ok()?;
        let (_, rest) = text.strip_prefix(&self.prefix)?.split_once(":run:")?;
        let (run, name) = rest.split_once(':')?;
        let channel = match name {
            "bell" => PubSubChannel::Bell,
            "pulse" => PubSubChannel::Pulse,
            "state" => PubSubChannel::State,
            _ => return None,
        };
        Some((Uuid::try_parse(run).ok()?, channel))
    }

    /// The pattern of every key, for `SCAN`.
    #[must_use]
    pub fn all(&self) -> String {
        // A prefix holds no character that means something in a pattern.
        format!("{}*", self.prefix)
    }

    /// The run that a key belongs to, if it is one of a run's.
    #[must_use]
    pub fn parse_run(&self, key: &[u8]) -> Option<Uuid> {
        let text = std::str::from_utf8(key).ok()?;
        let (tag, rest) = text.strip_prefix(&self.prefix)?.split_once(":run:")?;
        let (run, name) = rest.split_once(':')?;
        let ours = tag.starts_with('{') && ["stream", "meta", "control"].contains(&name);
        ours.then(|| Uuid::try_parse(run).ok()).flatten()
    }

    /// A key again if it is one of an agent's.
    #[must_use]
    pub fn parse_agent<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text.strip_prefix(&self.prefix)?.strip_prefix("agent:")?;
        let id = rest.strip_suffix(":heartbeat").unwrap_or(rest);
        Uuid::try_parse(id).ok().map(|_agent| text)
    }

    /// The channel of updates of all runs.
    #[must_use]
    pub fn updates(&self) -> String {
        format!("{}updates", self.prefix)
    }

    /// What an agent says of itself.
    #[must_use]
    pub fn agent(&self, agent: Uuid) -> String {
        format!("{}agent:{agent}", self.prefix)
    }

    /// The last sign of life of an agent.
    #[must_use]
    pub fn heartbeat(&self, agent: Uuid) -> String {
        format!("{}agent:{agent}:heartbeat", self.prefix)
    }

    /// How much a subject has asked for, by a policy. All keys of a subject share a slot; its name holds no braces.
    #[must_use]
    pub fn rate(&self, subject: &str, policy: &str) -> String {
        format!("{}rate:{{{subject}}}:{policy}", self.prefix)
    }

    /// A stream ticket, by its SHA-256.
    #[must_use]
    pub fn ticket(&self, hash: &[u8; 32]) -> String {
        format!("{}ticket:{}", self.prefix, hex(hash))
    }

    /// The copy of a session, by the SHA-256 of its id.
    #[must_use]
    pub fn session(&self, hash: &[u8; 32]) -> String {
        format!("{}session:{}", self.prefix, hex(hash))
    }

    /// The copy of a token, by its SHA-256.
    #[must_use]
    pub fn token(&self, hash: &[u8; 32]) -> String {
        format!("{}auth:token:{}", self.prefix, hex(hash))
    }

    /// The copy of what a user may do.
    #[must_use]
    pub fn permissions(&self, user: Uuid) -> String {
        format!("{}auth:perm:{user}", self.prefix)
    }

    /// A sign-in by OpenID Connect that goes on, by the SHA-256 of what leads to it.
    #[must_use]
    pub fn attempt(&self, hash: &[u8; 32]) -> String {
        format!("{}auth:attempt:{}", self.prefix, hex(hash))
    }

    /// The channel of changes of tokens, sessions and users.
    #[must_use]
    pub fn access_changes(&self) -> String {
        format!("{}auth:changes", self.prefix)
    }

    /// The ready stream of a partition below [`PARTITIONS`].
    #[must_use]
    pub fn ready(&self, partition: usize) -> String {
        format!("{}{{{}}}:ready", self.prefix, TAGS[partition])
    }

    /// The Redis ACL rules of an agent: it may append to runs by the append script, take the commands
    /// that are given to runs, give signs of life, ask which node of a cluster holds a slot, and nothing
    /// else; it cannot read what runs printed. They serve every topology; whether a server is a master is
    /// told by `HELLO`. On sentinels, where users are asked for there, `+sentinel|get-master-addr-by-name`.
    #[must_use]
    pub fn publisher_acl(&self) -> Vec<String> {
        let prefix = &self.prefix;
        let mut rules = vec![
            "resetkeys".to_owned(),
            "resetchannels".to_owned(),
            "-@all".to_owned(),
            format!("~{prefix}{{*}}:run:*:stream"),
            format!("~{prefix}{{*}}:run:*:meta"),
            format!("~{prefix}{{*}}:run:*:bell"),
            format!("~{prefix}{{*}}:ready"),
            format!("&{prefix}{{*}}:run:*:bell"),
            format!("&{prefix}{{*}}:run:*:pulse"),
        ];
        let commands = "hello ping evalsha script|load client|setname time \
                        hmget hset hdel persist xlen xadd spublish cluster|slots";
        rules.extend(commands.split_whitespace().map(|name| format!("+{name}")));
        // Selectors: these commands on these keys alone, and no other command on them.
        let control = format!("~{prefix}{{*}}:run:*:control");
        rules.push("clearselectors".to_owned());
        rules.push(format!("(-@all +xread +xdel {control})"));
        rules.push(format!("(-@all +set +hset +expire ~{prefix}agent:*)"));
        rules.push(format!(
            "(-@all +evalsha +time +zscore +zadd +spublish ~{prefix}{{*}}:pulses ~{prefix}{{*}}:pulses:new \
             ~{prefix}{{*}}:run:*:pulse &{prefix}{{*}}:run:*:pulse)"
        ));
        rules
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_spread_evenly_over_the_slots_of_a_cluster() {
        assert_eq!(Slot::of("123456789").number(), 0x31c3);
        for (partition, tag) in TAGS.iter().enumerate() {
            let slot = usize::from(Keys::slot(partition).number());
            assert_eq!(slot / (16_384 / PARTITIONS), partition, "{tag}");
        }
    }

    #[test]
    fn a_key_lies_where_its_braces_say() {
        let plain = Slot::of("user1000");
        assert_eq!(Slot::of("{user1000}.following"), plain);
        assert_eq!(Slot::of("a{user1000}b{other}"), plain);
        assert_ne!(Slot::of("{}user1000"), plain);
        assert_ne!(Slot::of("{user1000"), plain);
    }

    #[test]
    fn the_keys_of_a_run_share_a_slot_and_a_bell_names_its_run() {
        let keys = Keys::new("test:");
        let run = Uuid::now_v7();
        let names = keys.run(run);
        let tag =
            |key: &str| key[key.find('{').expect("tag")..=key.find('}').expect("tag")].to_owned();
        for key in [&names.stream, &names.meta, &names.ready, &names.control] {
            assert_eq!(tag(key), tag(&names.bell));
            assert!(key.starts_with("test:{"));
        }
        assert_eq!(Slot::of(&names.stream), names.slot);
        let parsed = |channel: &str| keys.parse_channel(channel.as_bytes());
        assert_eq!(parsed(&names.bell), Some((run, PubSubChannel::Bell)));
        assert_eq!(parsed(&names.pulse), Some((run, PubSubChannel::Pulse)));
        assert_eq!(parsed(&names.state), Some((run, PubSubChannel::State)));
        assert_eq!(parsed(&names.stream), None);
        assert_eq!(Keys::default().parse_channel(b"{mm}:run:x:bell"), None);
    }

    #[test]
    fn keys_tell_whose_they_are() {
        let keys = Keys::new("test:");
        let run = Uuid::now_v7();
        let names = keys.run(run);
        for key in [&names.stream, &names.meta, &names.control] {
            assert_eq!(keys.parse_run(key.as_bytes()), Some(run));
            assert_eq!(Keys::new("other:").parse_run(key.as_bytes()), None);
        }
        for key in [&names.bell, &names.ready, &names.fleet.pulses] {
            assert_eq!(keys.parse_run(key.as_bytes()), None);
            assert_eq!(keys.parse_agent(key.as_bytes()), None);
        }
        for key in [keys.agent(run), keys.heartbeat(run)] {
            assert_eq!(keys.parse_agent(key.as_bytes()), Some(key.as_str()));
        }
        assert_eq!(keys.parse_agent(b"test:agent:x"), None);
    }
}
