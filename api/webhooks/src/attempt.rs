//! One attempt: sign, send, look at the answer.
//!
//! Limits: [`Policy::timeout`] for all of it, [`MOST_ANSWER`] bytes of the answer, no redirects, no proxy, a new
//! connection for each attempt (so that addresses are judged anew). Any 2xx counts as received.

use std::error::Error as _;
use std::time::Duration;

use chrono::Utc;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::Instant;
use url::Url;

use super::egress::{EgressPolicy, Resolver};
use super::signature;
use runcast_store::webhook_deliveries::{DeliveryAttempt, DueDelivery};

/// Bytes of an answer that are read: what a receiver says of an error fits, and nothing else is of use.
const MOST_ANSWER: usize = 2048;

/// Characters of it in the log of deliveries.
const SHOWN_ANSWER: usize = 200;

/// Longest wait that a receiver may ask for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Sends deliveries. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    allowed: EgressPolicy,
    https: Client,
    http: Client,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) attempt: DeliveryAttempt,
    /// The receiver wants no more.
    pub(super) gone: bool,
    /// How long the receiver asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// What went wrong, in words, and the status of the answer if there was one.
type Failure = (Option<StatusCode>, String);

impl Sender {
    /// # Errors
    /// If no client can be made, such as without any authority to trust.
    pub(super) fn new(allowed: EgressPolicy, timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = |secure: bool| {
            let allowed = allowed.clone();
            Client::builder()
                .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(timeout)
                .https_only(secure)
                .dns_resolver(Resolver { allowed, secure })
                .build()
        };
        Ok(Self {
            https: client(true)?,
            http: client(false)?,
            allowed,
        })
    }

    /// Sends a delivery once.
    pub(super) async fn send(&self, due: &DueDelivery) -> Outcome {
        let begun = Instant::now();
        let (answer, retry_after) = match self.exchange(due).await {
            Ok(response) => {
                let retry_after = retry_after(&response);
                (judge(response).await, retry_after)
            }
            Err(failure) => (Err(failure), None),
        };
        let (status, error) = match answer {
            Ok(status) => (Some(status), None),
            Err((status, error)) => (status, Some(error)),
        };
        Outcome {
            attempt: DeliveryAttempt {
                took: begun.elapsed(),
                status: status.map(|status| status.as_u16()),
                error,
            },
            gone: status == Some(StatusCode::GONE),
            retry_after,
        }
    }

    async fn exchange(&self, due: &DueDelivery) -> Result<Response, Failure> {
        let refused = |error: &dyn std::fmt::Display| (None, error.to_string());
        let url: Url = due.url.parse().map_err(|error| refused(&error))?;
        self.allowed.check(&url).map_err(|error| refused(&error))?;
        let id = format!("msg_{}", due.id.simple());
        let now = Utc::now().timestamp();
        let signature = signature::signature(&due.secret, &id, now, &due.body)
            .map_err(|error| refused(&error))?;
        let client = match url.scheme() {
            "https" => &self.https,
            _ => &self.http,
        };
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(due.body.clone());
        request.send().await.map_err(|error| (None, cause(&error)))
    }
}

/// Whether an answer says that the delivery was received.
async fn judge(mut response: Response) -> Result<StatusCode, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(status);
    }
    if status.is_redirection() {
        let error = format!("{status}: redirects are not followed");
        return Err((Some(status), error));
    }
    let mut answer = Vec::new();
    while answer.len() < MOST_ANSWER {
        match response.chunk().await {
            Ok(Some(piece)) => answer.extend_from_slice(&piece),
            // What it says is only for people; the status has told enough.
            Ok(None) | Err(_) => break,
        }
    }
    let said = String::from_utf8_lossy(&answer);
    let said: String = said.trim().chars().take(SHOWN_ANSWER).collect();
    let error = if said.is_empty() {
        status.to_string()
    } else {
        format!("{status}: {said}")
    };
    Err((Some(status), error))
}

/// `Retry-After` in seconds, of an answer that may bear it.
fn retry_after(response: &Response) -> Option<Duration> {
    let asks = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    let asks = asks.contains(&response.status());
    let header = response.headers().get(RETRY_AFTER).filter(|_| asks)?;
    let seconds = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MOST_RETRY_AFTER))
}

/// The innermost reason, which is the one that tells something; never the address.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match error.source() {
        Some(_) => innermost.to_string(),
        None => "the request failed".to_owned(),
    }
}
