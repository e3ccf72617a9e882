//! Calls that mask what a run has printed.

use std::fmt;

use runcast_common::protocol::event_id::EventId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use super::client::GatewayClient;
use super::error::ApiError;

/// What to mask in a run: a text, or all that some events say.
#[derive(Debug, Serialize)]
pub struct NewRedaction {
    /// The text; without one all that the events say.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    pub text: Option<SecretString>,
    /// The first event.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub from: Option<EventId>,
    /// The last event.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub to: Option<EventId>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a redaction is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RedactionState {
    /// Its id.
    pub id: Uuid,
    /// Events that it has changed so far.
    pub events: u64,
    /// When it was finished, as RFC 3339.
    #[serde(default)]
    pub finished_at: Option<String>,
    /// Why it was given up.
    #[serde(default)]
    pub failure: Option<String>,
}

#[derive(Deserialize)]
struct RedactionList {
    redactions: Vec<RedactionState>,
}

impl GatewayClient {
    /// Requests a redaction. Where the response is lost it is requested again: then it is recorded
    /// twice, and masks no more than once.
    pub async fn redact(&self, run: Uuid, new: &NewRedaction) -> Result<RedactionState, ApiError> {
        let run = run.to_string();
        let url = self.url(&["v1", "runs", &run, "redactions"]);
        let request = || self.http.post(url.clone()).json(new);
        let response = self.call(&run, request).await?;
        let body = response.bytes().await;
        self.parsed(&body.map_err(|error| self.unreachable(&error))?)
    }

    /// Reads how far a redaction is; none if the run has no such redaction any more.
    pub async fn redaction(
        &self,
        run: Uuid,
        redaction: Uuid,
    ) -> Result<Option<RedactionState>, ApiError> {
        let run = run.to_string();
        let request = || self.http.get(self.url(&["v1", "runs", &run, "redactions"]));
        let response = self.call(&run, request).await?;
        let body = response.bytes().await;
        let list: RedactionList = self.parsed(&body.map_err(|error| self.unreachable(&error))?)?;
        let mut redactions = list.redactions.into_iter();
        Ok(redactions.find(|one| one.id == redaction))
    }

    fn parsed<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, ApiError> {
        serde_json::from_slice(body).map_err(|error| ApiError::Unexpected {
            url: self.display_url().to_owned(),
            reason: error.to_string(),
        })
    }
}

fn exposed<S: Serializer>(text: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    let text = text.as_ref().map_or("", |text| text.expose_secret());
    to.serialize_str(text)
}

fn as_text<S: Serializer>(text: &Option<impl fmt::Display>, to: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => to.collect_str(text),
        None => to.serialize_none(),
    }
}
