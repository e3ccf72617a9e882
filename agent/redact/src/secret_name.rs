//! What the name of a variable, a field or an option says about its value.
//!
//! Names are compared in one spelling, so `clientSecret`, `client-secret` and `CLIENT_SECRET` are
//! the same:
//!
//! - [`NameClass::Secret`]: `*TOKEN*`, `*SECRET*`, `*PASSWORD*`, `*_PASS`, `*API_KEY*`, `*_PAT`,
//!   `*_AUTH`, `*_DSN`, `*KUBECONFIG*` and the rest of [`SECRET_NAMES`];
//! - [`NameClass::Key`]: other names with `KEY`. Data, caches and sorting have keys too, so the
//!   value must not look like an identifier;
//! - [`NameClass::DataKey`]: `*PARTITION_KEY`, `*CACHE_KEY` and the rest of [`DATA_KEYS`],
//!   which are never secret;
//! - [`NameClass::Setting`]: a setting of a secret rather than the secret, such as `*TOKEN_TTL` and
//!   `*SECRET_NAME`. Only a value that can hardly be anything but a secret is one;
//! - [`NameClass::Other`]: no word of a secret, or one of the [`HARMLESS_NAMES`]: paths, files,
//!   numbers of tokens as language models have them, public keys.

use super::name_pattern::matches;

/// What a name says about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameClass {
    Secret,
    Key,
    DataKey,
    Setting,
    Other,
}

const SECRET_NAMES: [&str; 51] = [
    "*TOKEN*",
    "*SECRET*",
    "*PASSWORD*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*PASSCODE*",
    "*SSHPASS*",
    "*PGPASS*",
    "*_PASS",
    "*_PASS_?",
    "*_PWD",
    "*_PW",
    "*_PAT",
    "*_PAT_?",
    "*_PSK",
    "*_JWT",
    "*_SALT",
    "*_CRED",
    "*_CREDS",
    "*CREDENTIAL*",
    "*_AUTH",
    "*BASIC_AUTH*",
    "*AUTH_CONFIG*",
    "*AUTHCONFIG*",
    "*AUTHORIZATION*",
    "*BEARER*",
    "*_COOKIE",
    "*_COOKIES",
    "*_DSN",
    "*CONNECTION_STRING*",
    "*CONN_STR*",
    "*CONNSTR*",
    "*WEBHOOK*",
    "*_SAS",
    "*MNEMONIC*",
    "*SEED_PHRASE*",
    "*KUBECONFIG*",
    "*KUBE_CONFIG*",
    "*DOCKERCONFIG*",
    "*NETRC*",
    "*NPMRC*",
    "*PYPIRC*",
    "*APIKEY*",
    "*API_KEY*",
    "*ACCESS_KEY*",
    "*ACCOUNT_KEY*",
    "*AUTH_KEY*",
    "*AUTHKEY*",
    "*PRIVATE_KEY*",
    "*ENCRYPTION_KEY*",
    "*SIGNING_KEY*",
];

const KEY_NAMES: [&str; 8] = [
    "*_KEY",
    "*_KEYS",
    "*_KEY?",
    "*_KEY_*",
    "*_PEM",
    "*_PFX",
    "*_HMAC",
    "*SERVICE_ACCOUNT*",
];

/// Keys of databases, queues, caches and trackers.
const DATA_KEYS: [&str; 26] = [
    "*PARTITION_KEY",
    "*PARTITIONKEY",
    "*SORT_KEY",
    "*RANGE_KEY",
    "*HASH_KEY",
    "*PRIMARY_KEY",
    "*FOREIGN_KEY",
    "*UNIQUE_KEY",
    "*INDEX_KEY",
    "*SHARD_KEY",
    "*SHARDING_KEY",
    "*CLUSTERING_KEY",
    "*DISTRIBUTION_KEY",
    "*ROW_KEY",
    "*RECORD_KEY",
    "*ROUTING_KEY",
    "*GROUP_KEY",
    "*MESSAGE_KEY",
    "*CACHE_KEY",
    "*CACHE_KEY_?*",
    "*RESTORE_KEYS",
    "*LOOKUP_KEY",
    "*ORDER_KEY",
    "*ISSUE_KEY",
    "*IDEMPOTENCY_KEY",
    "*OBJECT_KEY",
];

const HARMLESS_NAMES: [&str; 18] = [
    "*MAX*TOKENS*",
    "*NUM*TOKENS*",
    "*TOTAL*TOKENS*",
    "*TOKENS_PER_*",
    "*TOKENIZER*",
    "*PUBLIC_KEY*",
    "*_KEYBOARD*",
    "*_KEYMAP*",
    "*PATH",
    "*_FILE",
    "*_FILES",
    "*_DIR",
    "*_SOCK",
    "*_KEY_ID",
    "*_KEY_NAME",
    "*_KEY_ARN",
    "*_KEY_TYPE",
    "*_KEY_SIZE",
];

/// Last words of the names of settings.
const SETTINGS: [&str; 48] = [
    "ALGORITHM",
    "ALGO",
    "ARN",
    "AUDIENCE",
    "BITS",
    "CLASS",
    "COLUMN",
    "COUNT",
    "DURATION",
    "ENABLED",
    "ENDPOINT",
    "ENGINE",
    "EXPIRATION",
    "EXPIRES",
    "EXPIRY",
    "FIELD",
    "FORMAT",
    "HEADER",
    "HELPER",
    "HOST",
    "ISSUER",
    "LENGTH",
    "LIFETIME",
    "LIMIT",
    "METHOD",
    "MODE",
    "NAME",
    "NAMESPACE",
    "POLICY",
    "PORT",
    "PREFIX",
    "PROVIDER",
    "REGION",
    "REQUIRED",
    "SCOPE",
    "SCOPES",
    "SIZE",
    "STORE",
    "SUFFIX",
    "TIMEOUT",
    "TTL",
    "TYPE",
    "URI",
    "URL",
    "USER",
    "USERNAME",
    "VERSION",
    "ROTATION",
];

impl NameClass {
    /// The class of a name, in any spelling.
    pub(super) fn of(name: &[u8]) -> Self {
        let name = normalized(name);
        let any = |names: &[&str]| names.iter().any(|one| matches(one.as_bytes(), &name));
        let is_setting = || {
            let last = name.rsplit(|byte| *byte == b'_').next().unwrap_or_default();
            SETTINGS.iter().any(|word| last == word.as_bytes())
        };
        let is_webhook = || matches(b"*WEBHOOK*", &name);
        match () {
            () if any(&HARMLESS_NAMES) => Self::Other,
            () if any(&DATA_KEYS) => Self::DataKey,
            // The address of a webhook is its secret.
            () if any(&SECRET_NAMES) && is_setting() && !is_webhook() => Self::Setting,
            () if any(&SECRET_NAMES) => Self::Secret,
            () if any(&KEY_NAMES) && is_setting() => Self::Setting,
            () if any(&KEY_NAMES) => Self::Key,
            () => Self::Other,
        }
    }
}

/// A name in capitals, with an underscore in front and between its words.
fn normalized(name: &[u8]) -> Vec<u8> {
    let mut normalized = vec![b'_'];
    let mut before = b'_';
    for byte in name {
        let is_word_start = before.is_ascii_lowercase() && byte.is_ascii_uppercase();
        if is_word_start {
            normalized.push(b'_');
        }
        match byte.is_ascii_alphanumeric() {
            true => normalized.push(byte.to_ascii_uppercase()),
            false if normalized.last() != Some(&b'_') => normalized.push(b'_'),
            false => {}
        }
        before = *byte;
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_their_value_is() {
        for (names, expected) in [
            (
                "DEPLOY_TOKEN db_password clientSecret client-secret _authToken pass GH_PAT PAT \
                 DOCKER_AUTH_CONFIG KUBECONFIG_DATA PGPASSWORD MYSQL_PWD aws_secret_access_key \
                 SLACK_WEBHOOK_URL Authorization Proxy-Authorization X-Auth-Token SSHPASS \
                 ConnectionStrings__Default_PASSWORD SENTRY_DSN sslpassword api-key apiKey \
                 AZURE_STORAGE_CONNECTION_STRING VAULT_SECRET_ID auth pwd basic_auth",
                NameClass::Secret,
            ),
            (
                "STRIPE_KEY client-key-data KEY_2 SSH_KEYS key.pem",
                NameClass::Key,
            ),
            (
                "PARTITION_KEY SORT_KEY sortKey CACHE_KEY PRIMARY_KEY KAFKA_PARTITION_KEY",
                NameClass::DataKey,
            ),
            (
                "TOKEN_TTL OAUTH_TOKEN_URL SECRET_NAME passwordPolicy token_uri PASSWORD_LENGTH \
                 CREDENTIAL_HELPER",
                NameClass::Setting,
            ),
            (
                "HOME MAX_TOKENS AWS_ACCESS_KEY_ID SSH_KEY_PATH DB_PASSWORD_FILE PUBLIC_KEY \
                 MONKEY COMPASS PATTERN AUTHOR tokenizer user",
                NameClass::Other,
            ),
        ] {
            for name in names.split_ascii_whitespace() {
                assert_eq!(NameClass::of(name.as_bytes()), expected, "{name}");
            }
        }
    }
}
