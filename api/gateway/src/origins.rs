//! The setting `RUNCAST_CORS_ORIGINS`: origins whose pages may call the API.

use std::str::FromStr;

use axum::http::HeaderValue;
use url::Url;

/// Origins such as `https://app.example.com`, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    pub(crate) fn values(&self) -> &[HeaderValue] {
        &self.0
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let origins = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        let origin = |text: &str| {
            let url = Url::parse(text).ok();
            let serialized = url.map(|url| url.origin().ascii_serialization());
            match serialized {
                Some(origin) if origin == text => HeaderValue::from_str(text).ok(),
                _ => None,
            }
            .ok_or_else(|| format!("{text:?} is no origin, such as https://app.example.com"))
        };
        Ok(Self(origins.map(origin).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
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
