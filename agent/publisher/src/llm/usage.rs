//! [`TokenUse`]: publishes the tokens and the cost of a model call as a `metric` event.
//!
//! ```no_run
//! # use runcast_publisher::Publisher;
//! # async fn example(publisher: &Publisher) -> Result<(), Box<dyn std::error::Error>> {
//! use runcast_publisher::llm::TokenUse;
//!
//! let used = TokenUse { cost: Some(0.0123), ..TokenUse::new("model-4", 1200, 350) };
//! publisher.tokens(&used).await?;
//!
//! // Or from the usage object of an API response, as OpenAI and Anthropic send it.
//! # let answer = serde_json::json!({});
//! publisher.tokens(&TokenUse::from_usage("model-4", &answer["usage"])?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! {"kind":"metric","variation":0,"time":1763700000000,"model":"model-4",
//!  "values":{"input_tokens":1200,"output_tokens":350,"cost":0.0123}}
//! ```
//!
//! Names and meanings are those of OpenTelemetry's semantic conventions for generative AI: each
//! name except `cost` is the end of an attribute `gen_ai.usage.<name>`, and `model` is
//! `gen_ai.response.model`. As there, `input_tokens` includes tokens that were read from or written
//! to a cache, and `output_tokens` includes reasoning. Each event is one call of a model; a run's
//! total is their sum.

use runcast_common::protocol::event::Kind;
use runcast_common::protocol::limits::MAX_NAME_BYTES;
use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::{InvalidTokenUse, MAX_TOKENS, PublishError};
use crate::publisher::Publisher;

/// What one call of a model used.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenUse<'a> {
    /// The model that answered.
    pub model: &'a str,
    /// All input tokens, including cached ones.
    pub input_tokens: u64,
    /// All output tokens, including those for reasoning.
    pub output_tokens: u64,
    /// Input tokens that were read from a cache, if known.
    pub cache_read_input_tokens: Option<u64>,
    /// Input tokens that were written to a cache, if known.
    pub cache_creation_input_tokens: Option<u64>,
    /// Output tokens that were used for reasoning, if known.
    pub reasoning_output_tokens: Option<u64>,
    /// The cost in US dollars, if known.
    pub cost: Option<f64>,
}

impl<'a> TokenUse<'a> {
    /// A use with the counts that every API returns.
    pub const fn new(model: &'a str, input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            model,
            input_tokens,
            output_tokens,
            cache_read_input_tokens: None,
            cache_creation_input_tokens: None,
            reasoning_output_tokens: None,
            cost: None,
        }
    }

    /// Reads the `usage` object of a response: of OpenAI's Chat Completions (`prompt_tokens`,
    /// `completion_tokens`) or Responses (`input_tokens`, `output_tokens`), of the many APIs that
    /// are compatible with them, or of Anthropic's Messages, whose `input_tokens` exclude cached
    /// tokens; they are added here. Any other object gives [`InvalidTokenUse::Missing`].
    pub fn from_usage(model: &'a str, usage: &Value) -> Result<Self, InvalidTokenUse> {
        let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
        let either = |one: &str, other: &str| count(one).or_else(|| count(other));
        let input = either("/input_tokens", "/prompt_tokens");
        let input = input.ok_or(InvalidTokenUse::Missing("input_tokens or prompt_tokens"))?;
        let output = either("/output_tokens", "/completion_tokens");
        let missing = InvalidTokenUse::Missing("output_tokens or completion_tokens");
        let output = output.ok_or(missing)?;
        let of_input = |name: &str| {
            either(
                &format!("/input_tokens_details/{name}"),
                &format!("/prompt_tokens_details/{name}"),
            )
        };
        let read_separately = count("/cache_read_input_tokens");
        let written_separately = count("/cache_creation_input_tokens");
        let separate = read_separately
            .unwrap_or(0)
            .saturating_add(written_separately.unwrap_or(0));
        Ok(Self {
            cache_read_input_tokens: read_separately.or_else(|| of_input("cached_tokens")),
            cache_creation_input_tokens: written_separately
                .or_else(|| of_input("cache_write_tokens")),
            reasoning_output_tokens: either(
                "/output_tokens_details/reasoning_tokens",
                "/completion_tokens_details/reasoning_tokens",
            ),
            ..Self::new(model, input.saturating_add(separate), output)
        })
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = |name, count: Option<u64>| count.map(|count| (name, count));
        [
            Some(("input_tokens", self.input_tokens)),
            Some(("output_tokens", self.output_tokens)),
            known("cache_read.input_tokens", self.cache_read_input_tokens),
            known(
                "cache_creation.input_tokens",
                self.cache_creation_input_tokens,
            ),
            known("reasoning.output_tokens", self.reasoning_output_tokens),
        ]
        .into_iter()
        .flatten()
    }

    fn check(&self) -> Result<(), InvalidTokenUse> {
        if !(1..=MAX_NAME_BYTES).contains(&self.model.len()) {
            return Err(InvalidTokenUse::Model(self.model.len()));
        }
        if let Some((name, count)) = self.counts().find(|(_name, count)| *count > MAX_TOKENS) {
            return Err(InvalidTokenUse::TooMany { name, count });
        }
        let cached = self.cache_read_input_tokens.unwrap_or(0)
            + self.cache_creation_input_tokens.unwrap_or(0);
        let reasoning = self.reasoning_output_tokens.unwrap_or(0);
        for (part, count, whole, total) in [
            ("cached input", cached, "input_tokens", self.input_tokens),
            (
                "reasoning.output_tokens",
                reasoning,
                "output_tokens",
                self.output_tokens,
            ),
        ] {
            if count > total {
                return Err(InvalidTokenUse::Part {
                    part,
                    count,
                    whole,
                    total,
                });
            }
        }
        match self.cost {
            Some(cost) if !cost.is_finite() || cost < 0.0 => Err(InvalidTokenUse::Cost(cost)),
            _ => Ok(()),
        }
    }
}

/// The values of the metric.
struct TokenValues<'a>(&'a TokenUse<'a>);

impl Serialize for TokenValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut values = serializer.serialize_map(None)?;
        for (name, count) in self.0.counts() {
            values.serialize_entry(name, &count)?;
        }
        if let Some(cost) = self.0.cost {
            values.serialize_entry("cost", &cost)?;
        }
        values.end()
    }
}

impl Serialize for TokenUse<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut metric = serializer.serialize_struct("TokenUse", 2)?;
        metric.serialize_field("model", self.model)?;
        metric.serialize_field("values", &TokenValues(self))?;
        metric.end()
    }
}

impl Publisher {
    /// Publishes what one call of a model used. Invalid counts give [`PublishError::Tokens`].
    pub async fn tokens(&self, used: &TokenUse<'_>) -> Result<(), PublishError> {
        used.check()?;
        self.publish(Kind::Metric, used).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_objects_of_all_apis_are_normalized() {
        let chat = json!({
            "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 30},
        });
        let responses = json!({
            "input_tokens": 100, "output_tokens": 50,
            "input_tokens_details": {"cached_tokens": 80},
            "output_tokens_details": {"reasoning_tokens": 30},
        });
        let expected = TokenUse {
            cache_read_input_tokens: Some(80),
            reasoning_output_tokens: Some(30),
            ..TokenUse::new("m", 100, 50)
        };
        for usage in [&chat, &responses] {
            assert_eq!(TokenUse::from_usage("m", usage), Ok(expected.clone()));
        }
        let messages = json!({
            "input_tokens": 15, "output_tokens": 50,
            "cache_read_input_tokens": 80, "cache_creation_input_tokens": 5,
        });
        let expected = TokenUse {
            cache_read_input_tokens: Some(80),
            cache_creation_input_tokens: Some(5),
            ..TokenUse::new("m", 100, 50)
        };
        let read = TokenUse::from_usage("m", &messages).expect("a usage");
        assert_eq!(read, expected);
        assert_eq!(read.check(), Ok(()));
        for (none, what) in [
            (json!({}), "input_tokens or prompt_tokens"),
            (
                json!({"prompt_tokens": 1}),
                "output_tokens or completion_tokens",
            ),
            (json!(null), "input_tokens or prompt_tokens"),
        ] {
            let read = TokenUse::from_usage("m", &none);
            assert_eq!(read, Err(InvalidTokenUse::Missing(what)));
        }
    }

    #[test]
    fn a_metric_contains_only_known_values() {
        let used = TokenUse {
            cache_read_input_tokens: Some(80),
            cost: Some(0.5),
            ..TokenUse::new("m", 100, 50)
        };
        assert_eq!(
            serde_json::to_string(&used).expect("JSON"),
            r#"{"model":"m","values":{"input_tokens":100,"output_tokens":50,"cache_read.input_tokens":80,"cost":0.5}}"#
        );
    }

    #[test]
    fn invalid_counts_are_rejected_by_name() {
        let good = TokenUse::new("m", 10, 10);
        let cached = TokenUse {
            cache_read_input_tokens: Some(6),
            cache_creation_input_tokens: Some(5),
            ..good.clone()
        };
        let reasoning = TokenUse {
            reasoning_output_tokens: Some(11),
            ..good.clone()
        };
        let cost = |cost| TokenUse {
            cost: Some(cost),
            ..good.clone()
        };
        for (used, says) in [
            (TokenUse::new("", 1, 1), "0 bytes"),
            (
                TokenUse::new("m", u64::MAX, 1),
                "input_tokens is 18446744073709551615",
            ),
            (cached, "cached input is 11, but input_tokens is only 10"),
            (reasoning, "reasoning.output_tokens is 11"),
            (cost(-1.0), "the cost is -1"),
            (cost(f64::NAN), "the cost is NaN"),
        ] {
            let refused = used.check().expect_err("no sense").to_string();
            assert!(refused.contains(says), "{refused}");
        }
        assert_eq!(good.check(), Ok(()));
    }
}
