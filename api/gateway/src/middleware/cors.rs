//! Pages of other origins that may ask the gateway: none, unless they are listed.
//!
//! They show a token, or for an `EventSource` a ticket; cookies of ours are not sent to them, nor taken from them.

use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;
use url::Url;

/// How long a browser may remember what is allowed.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// `RUNCAST_CORS_ORIGINS`: origins such as `https://app.example.com`, with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<HeaderValue>);

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origins = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        let origin = |text: &str| {
            let url = Url::parse(text).ok();
            let own = url.map(|url| url.origin().ascii_serialization());
            match own {
                Some(own) if own == text => HeaderValue::from_str(text).ok(),
                _ => None,
            }
            .ok_or_else(|| format!("{text:?} is no origin, such as https://app.example.com"))
        };
        Ok(Self(origins.map(origin).collect::<Result<_, _>>()?))
    }
}

impl Origins {
    /// What answers browsers who ask for them.
    pub fn layer(&self) -> CorsLayer {
        let name = HeaderName::from_static;
        CorsLayer::new()
            .allow_origin(self.0.clone())
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::CONTENT_ENCODING,
                header::CACHE_CONTROL,
                name("idempotency-key"),
                name("last-event-id"),
                name("producer-id"),
                name("producer-epoch"),
                name("producer-seq"),
            ])
            .expose_headers([
                header::CONTENT_RANGE,
                header::ETAG,
                header::RETRY_AFTER,
                name("ratelimit"),
                name("ratelimit-policy"),
            ])
            .max_age(REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed_exactly() {
        let two: Origins = "https://a.example, http://b.example:8080"
            .parse()
            .expect("origins");
        assert_eq!(two.0.len(), 2);
        assert_eq!("".parse(), Ok(Origins::default()));
        for nonsense in [
            "*",
            "a.example",
            "https://a.example/",
            "https://a.example/path",
            "null",
        ] {
            nonsense.parse::<Origins>().expect_err(nonsense);
        }
    }
}
