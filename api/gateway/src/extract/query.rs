//! Query parameters. A name may occur several times (`channel=output:0&channel=status`).

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;

use crate::problem::Problem;
use runcast_history::filter::{Filter, LOG_LEVELS, Levels};

/// Most channels of one request; there are seven kinds, and a page shows few variations.
const MAX_CHANNELS: usize = 64;

/// The parameters of a request, in their order. Methods that fail answer 400 and name the
/// parameter.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of an address.
    pub fn of(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The last value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// All values of a parameter that are not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A parameter of any parsable type.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|error| Problem::bad_request(format!("parameter {name}: {error}")))
            })
            .transpose()
    }

    /// The parameter `limit`, cut to 1 to `max`; `default` if it is absent.
    pub fn limit(&self, default: u16, max: u16) -> Result<u16, Problem> {
        let limit = self.parse::<u64>("limit")?.unwrap_or(default.into());
        Ok(u16::try_from(limit).unwrap_or(max).clamp(1, max))
    }

    /// A parameter that is on or off; without a value it is on.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        let last = self.0.iter().rfind(|(key, _)| key == name);
        match last.map(|(_, value)| value.as_str()) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!(
                "parameter {name}: expected true or false"
            ))),
        }
    }

    /// An event id.
    pub fn cursor(&self, name: &str) -> Result<Option<EventId>, Problem> {
        Ok(self.get(name).map(EventId::parse_cursor).transpose()?)
    }

    /// The channels in `channel`; all if it is absent.
    pub fn filter(&self) -> Result<Filter, Problem> {
        let channels = self
            .all("channel")
            .map(str::parse)
            .collect::<Result<Vec<Channel>, _>>()?;
        if channels.len() > MAX_CHANNELS {
            let count = channels.len();
            return Err(Problem::bad_request(format!(
                "{count} channels are over the limit of {MAX_CHANNELS}"
            )));
        }
        Ok(Filter::new(channels))
    }

    /// The log levels in `level`; all if it is absent.
    pub fn levels(&self) -> Result<Levels, Problem> {
        let mut levels = Levels::default();
        for name in self.all("level") {
            let level = Levels::named(name);
            if level.is_empty() {
                let known = LOG_LEVELS.join(", ");
                return Err(Problem::bad_request(format!(
                    "parameter level: expected one of {known}"
                )));
            }
            levels = levels.and(level);
        }
        Ok(levels)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Query {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Query(pairs.iter().map(own).collect())
    }

    #[test]
    fn parameters_may_repeat_and_empty_ones_are_absent() {
        let query = query(&[
            ("channel", "output:0"),
            ("channel", "status"),
            ("after", ""),
        ]);
        assert_eq!(query.get("after"), None);
        assert_eq!(query.filter().expect("channels").channels().len(), 2);
    }

    #[test]
    fn a_limit_of_any_size_is_cut_to_the_maximum() {
        let limit = |text| query(&[("limit", text)]).limit(50, 200);
        for (text, expected) in [("", 50), ("0", 1), ("7", 7), ("201", 200), ("65537", 200)] {
            assert_eq!(limit(text), Ok(expected), "{text}");
        }
        limit("-1").expect_err("400");
    }

    #[test]
    fn a_malformed_parameter_is_refused_by_its_name() {
        let limit = query(&[("limit", "many")])
            .parse::<u16>("limit")
            .expect_err("400");
        assert!(format!("{limit:?}").contains("parameter limit"));
        query(&[("channel", "output:999")])
            .filter()
            .expect_err("400");
    }
}
