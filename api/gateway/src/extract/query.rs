//! Query parameters, where one name may come several times (`channel=output:0&channel=status`).

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;

use crate::problem::Problem;
use runcast_history::filter::{Filter, LEVELS, Levels};

/// Channels of one request at most; there are seven kinds and a page shows few variations.
const MAX_CHANNELS: usize = 64;

/// The parameters of a request, in their order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Those of an address.
    #[must_use]
    pub fn of(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The last value of a parameter; an empty one counts as absent.
    #[must_use]
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
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|error| Problem::bad_request(format!("parameter {name}: {error}")))
            })
            .transpose()
    }

    /// How many are asked for with `limit`: from 1 to `most`, whatever is said; `usual` if nothing is.
    ///
    /// # Errors
    /// 400 for what is no number.
    pub fn limit(&self, usual: u16, most: u16) -> Result<u16, Problem> {
        let wanted = self.parse::<u64>("limit")?.unwrap_or(usual.into());
        Ok(u16::try_from(wanted).unwrap_or(most).clamp(1, most))
    }

    /// A parameter that is on or off; given without a value it is on.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        let given = self.0.iter().rfind(|(key, _)| key == name);
        match given.map(|(_, value)| value.as_str()) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!(
                "parameter {name}: expected true or false"
            ))),
        }
    }

    /// A cursor.
    ///
    /// # Errors
    /// 400 for anything that is no event id.
    pub fn cursor(&self, name: &str) -> Result<Option<EventId>, Problem> {
        Ok(self.get(name).map(EventId::parse_cursor).transpose()?)
    }

    /// The channels that are asked for.
    ///
    /// # Errors
    /// 400 for one that does not exist, or too many.
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

    /// The levels of logs that are asked for.
    ///
    /// # Errors
    /// 400 for one that does not exist.
    pub fn levels(&self) -> Result<Levels, Problem> {
        let mut levels = Levels::default();
        for name in self.all("level") {
            let level = Levels::named(name);
            if level.is_empty() {
                let known = LEVELS.join(", ");
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
    fn no_limit_is_too_large_to_be_cut() {
        let limit = |text| query(&[("limit", text)]).limit(50, 200);
        for (text, expected) in [("", 50), ("0", 1), ("7", 7), ("201", 200), ("65537", 200)] {
            assert_eq!(limit(text), Ok(expected), "{text}");
        }
        limit("-1").expect_err("400");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let limit = query(&[("limit", "many")])
            .parse::<u16>("limit")
            .expect_err("400");
        assert!(format!("{limit:?}").contains("parameter limit"));
        query(&[("channel", "output:999")])
            .filter()
            .expect_err("400");
    }
}
