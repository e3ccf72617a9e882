//! One attempt: sign the delivery, send it, judge the answer.
//!
//! Limits: the receiver's timeout for all of it, [`MAX_ANSWER_BYTES`] of the answer, no redirects,
//! no proxy, and a new connection for each attempt, so that addresses are checked anew. Any 2xx
//! counts as received.

use std::error::Error as _;
use std::time::Duration;

use chrono::Utc;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use runcast_common::connect::Authorities;
use runcast_common::protocol::event::line_separators;
use tokio::time::Instant;
use url::Url;

use crate::egress::{EgressPolicy, Resolver};
use crate::signature;
use runcast_store::webhook_deliveries::{DeliveryAttempt, DueDelivery};

/// Bytes of an answer that are read: the text of an error fits, and nothing else is of use.
const MAX_ANSWER_BYTES: usize = 2048;

/// Characters of it in the log of deliveries.
const MAX_LOGGED_CHARS: usize = 200;

/// Longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Sends deliveries. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    egress: EgressPolicy,
    https: Client,
    http: Client,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) attempt: DeliveryAttempt,
    /// The receiver answered 410 Gone: it wants no further notifications.
    pub(crate) is_gone: bool,
    /// How long the receiver asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// The status of the answer if there was one, and what went wrong in words.
type Failure = (Option<StatusCode>, String);

impl Sender {
    /// Makes the clients; fails if the certificate authorities to trust cannot be read.
    pub(crate) fn new(egress: EgressPolicy, timeout: Duration) -> Result<Self, String> {
        let authorities = Authorities::load().map_err(|error| error.to_string())?;
        let client = |secure: bool| {
            let egress = egress.clone();
            let certificates = authorities.certificates().flat_map(Certificate::from_der);
            Client::builder()
                .tls_certs_only(certificates)
                .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(timeout)
                .https_only(secure)
                .dns_resolver(Resolver { egress, secure })
                .build()
                .map_err(|error| error.to_string())
        };
        Ok(Self {
            https: client(true)?,
            http: client(false)?,
            egress,
        })
    }

    /// Sends a delivery once.
    pub(crate) async fn send(&self, due: &DueDelivery) -> Outcome {
        let started = Instant::now();
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
                took: started.elapsed(),
                status: status.map(|status| status.as_u16()),
                error,
            },
            is_gone: status == Some(StatusCode::GONE),
            retry_after,
        }
    }

    async fn exchange(&self, due: &DueDelivery) -> Result<Response, Failure> {
        let failed = |error: &dyn std::fmt::Display| (None, error.to_string());
        let url: Url = due.url.parse().map_err(|error| failed(&error))?;
        self.egress.check(&url).map_err(|error| failed(&error))?;
        let id = format!("msg_{}", due.id.simple());
        let now = Utc::now().timestamp();
        // The receiver may log the body, or pass it on, as one line.
        let body =
            String::from_utf8_lossy(&line_separators::escaped(due.body.as_bytes())).into_owned();
        let signature =
            signature::sign(&due.secret, &id, now, &body).map_err(|error| failed(&error))?;
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
            .body(body);
        request.send().await.map_err(|error| (None, cause(&error)))
    }
}

/// Judges by its answer whether the receiver took the delivery.
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
    while answer.len() < MAX_ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => answer.extend_from_slice(&chunk),
            // The text is only for people; the status decides.
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let text: String = text.trim().chars().take(MAX_LOGGED_CHARS).collect();
    let error = if text.is_empty() {
        status.to_string()
    } else {
        format!("{status}: {text}")
    };
    Err((Some(status), error))
}

/// `Retry-After` in seconds, of an answer whose status allows the header.
fn retry_after(response: &Response) -> Option<Duration> {
    let statuses = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    let is_allowed = statuses.contains(&response.status());
    let header = response.headers().get(RETRY_AFTER).filter(|_| is_allowed)?;
    let seconds = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The innermost reason, which is the informative one; never the address.
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
