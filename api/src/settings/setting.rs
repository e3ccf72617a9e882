//! One setting: what [`super::table`] declares, and how its value is read from the environment.

use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use runcast_common::config::{ConfigError, Env, optional};
use url::Url;

/// A program or service that reads a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `runcastd gateway`.
    Gateway,
    /// `runcastd persister`.
    Persister,
    /// `runcastd worker`.
    Worker,
    /// `runcastd dev`, which reads what the three services read as well.
    Dev,
    /// What publishes or follows a run: `runcast`, and programs that link the publisher.
    Agent,
}

impl Program {
    /// Its name in help texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persister => "persister",
            Self::Worker => "worker",
            Self::Dev => "dev",
            Self::Agent => "agent",
        }
    }
}

/// What applies where a setting is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value, read by the setting's own parser.
    Value(&'static str),
    /// What these words say, for defaults that depend on something else.
    Words(&'static str),
    /// Nothing.
    Unset,
}

impl DefaultValue {
    /// The default as people read it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Value(text) | Self::Words(text) => text,
            Self::Unset => "none",
        }
    }
}

/// A setting without the type of its value.
#[derive(Debug)]
pub struct Entry {
    /// The environment variable.
    pub name: &'static str,
    /// The programs that read it.
    pub readers: &'static [Program],
    /// What applies where it is not given.
    pub default: DefaultValue,
    /// What it does: one or a few sentences, Markdown as far as backticks go.
    pub help: &'static str,
    /// Makes a given value fit to print: secrets, and passwords in addresses, are hidden.
    pub printable: fn(&str) -> String,
    /// Whether a value can be read.
    pub check: fn(&str) -> Result<(), String>,
}

/// A setting whose values are of type `T`.
#[derive(Debug)]
pub struct Setting<T> {
    /// All but the type.
    pub entry: Entry,
    value: PhantomData<fn() -> T>,
}

impl<T: FromStr<Err: Display>> Setting<T> {
    /// A setting without a default.
    pub const fn new(name: &'static str, readers: &'static [Program], help: &'static str) -> Self {
        let entry = Entry {
            name,
            readers,
            default: DefaultValue::Unset,
            help,
            printable: as_given,
            check: check::<T>,
        };
        let value = PhantomData;
        Self { entry, value }
    }

    /// The same with a default value.
    pub const fn default_value(mut self, text: &'static str) -> Self {
        self.entry.default = DefaultValue::Value(text);
        self
    }

    /// The same with a default that only words can say.
    pub const fn default_words(mut self, text: &'static str) -> Self {
        self.entry.default = DefaultValue::Words(text);
        self
    }

    /// The same, never printed.
    pub const fn secret(mut self) -> Self {
        self.entry.printable = hidden;
        self
    }

    /// The same, an address that is printed without its password.
    pub const fn address(mut self) -> Self {
        self.entry.printable = without_password;
        self
    }

    /// The given value, if there is one.
    pub fn given(&self, env: &impl Env) -> Result<Option<T>, ConfigError> {
        optional(env, self.entry.name)
    }

    /// The given value, else the default value of the table.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] also where the table has no default value; a unit test holds that
    /// it has one, and that it can be read.
    pub fn given_or_default(&self, env: &impl Env) -> Result<T, ConfigError> {
        if let Some(value) = self.given(env)? {
            return Ok(value);
        }
        let text = match self.entry.default {
            DefaultValue::Value(text) => text,
            DefaultValue::Words(_) | DefaultValue::Unset => "",
        };
        text.parse().map_err(|error: T::Err| self.invalid(error))
    }

    /// The error for a value that makes no sense.
    pub fn invalid(&self, reason: impl Display) -> ConfigError {
        ConfigError::Invalid {
            name: self.entry.name,
            reason: reason.to_string(),
        }
    }
}

impl<T: FromStr<Err: Display> + Display> Setting<T> {
    /// The same for types that hide their own secrets when they are printed.
    pub const fn prints_itself(mut self) -> Self {
        self.entry.printable = printed_by::<T>;
        self
    }
}

fn check<T: FromStr<Err: Display>>(text: &str) -> Result<(), String> {
    let read = text.parse::<T>();
    read.map(drop).map_err(|error| error.to_string())
}

/// Control characters would let a value write over the rest of the report.
fn as_given(text: &str) -> String {
    text.escape_debug().collect()
}

fn hidden(_text: &str) -> String {
    "***".to_owned()
}

fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return hidden(text);
    };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return hidden(text);
    }
    url.into()
}

fn printed_by<T: FromStr + Display>(text: &str) -> String {
    text.parse::<T>()
        .map_or_else(|_unreadable| hidden(text), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use runcast_common::config::RedisUrl;

    use super::*;

    #[test]
    fn secrets_and_passwords_in_addresses_are_not_printed() {
        let readers = &[Program::Gateway];
        let secret = Setting::<String>::new("A", readers, "").secret();
        let address = Setting::<Url>::new("B", readers, "").address();
        let redis = Setting::<RedisUrl>::new("C", readers, "").prints_itself();
        for (entry, value, printed) in [
            (&secret.entry, "s3cret", "***"),
            (
                &address.entry,
                "https://me:s3cret@host/",
                "https://me:***@host/",
            ),
            (&address.entry, "s3cret", "***"),
            (&redis.entry, "redis://:s3cret@host", "redis://:***@host"),
            (&redis.entry, "redis+cluster://:s3cret@", "***"),
        ] {
            assert_eq!((entry.printable)(value), printed);
        }
    }

    #[test]
    fn a_given_value_comes_before_the_default() {
        let setting = Setting::<u16>::new("PORT", &[], "").default_value("80");
        let env = std::collections::HashMap::from([("PORT", "443")]);
        assert_eq!(setting.given_or_default(&env), Ok(443));
        let empty = std::collections::HashMap::<&str, &str>::new();
        assert_eq!(setting.given_or_default(&empty), Ok(80));
        assert_eq!(setting.given(&empty), Ok(None));
    }
}
