//! [`GatewayClient`]: calls one gateway with one token.
//!
//! An agent is configured by `RUNCAST_URL` and `RUNCAST_TOKEN` alone: it publishes through the
//! gateway, or to Redis if the gateway's reply says where that is. `RUNCAST_TRANSPORT` chooses.
//! `REDIS_URL` overrides the address of Redis where the agent reaches it by another one, and
//! `RUNCAST_REDIS_CA` the certificates that it trusts there.
//!
//! Time: [`CONNECT_TIMEOUT`] for a connection, [`CALL_TIMEOUT`] for a call, [`MAX_ATTEMPTS`] while
//! the gateway is unreachable or overloaded. A stream has no total limit; its reader bounds the
//! silence.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, RequestBuilder, Response, StatusCode};
use runcast_common::backoff::Backoff;
use runcast_common::config::{Ca, ConfigError, Env, RedisUrl, ServerUrl, redis_ca, redis_url};
use runcast_common::connect::Authorities;
use runcast_common::protocol::event::Channel;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;

use super::error::{A_PAGE, ApiError, hint, is_page, one_line, root_cause};
use super::session::{NewRun, Problem, PublishReply, RedisReply, Session};
use crate::transport_choice::{TransportChoice, UnknownTransport};

/// Longest wait for a connection to the gateway.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for a response, including the connection: the gateway answers these calls with one
/// or two Postgres statements.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts of a call, so that a run does not fail while a gateway is being replaced.
const MAX_ATTEMPTS: u32 = 3;

/// How long an idle connection is kept: less than gateways and common proxies keep it, so that no
/// request leaves on one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls one gateway with one token. Cloning is cheap; clones share their connections.
#[derive(Clone)]
pub struct GatewayClient {
    pub(super) http: reqwest::Client,
    token: SecretString,
    transport: TransportChoice,
    base: Url,
    /// The address without credentials, for messages.
    display_url: String,
    redis: Option<RedisUrl>,
    ca: Option<Ca>,
    trusts_bundled: bool,
}

impl fmt::Debug for GatewayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayClient")
            .field("url", &self.display_url)
            .finish_non_exhaustive()
    }
}

impl GatewayClient {
    /// Creates a client from the settings `RUNCAST_URL`, `RUNCAST_TOKEN`, `REDIS_URL` and
    /// `RUNCAST_REDIS_CA`. Call
    /// [`install_tls_provider`](runcast_common::connect::install_tls_provider) before.
    pub fn from_env(env: &impl Env) -> Result<Self, ApiError> {
        let text = env.get("RUNCAST_URL").ok_or(ConfigError::Missing {
            name: "RUNCAST_URL",
            hint: "set it to the gateway's address, such as http://runcast:7070",
        })?;
        let invalid = |reason: String| ConfigError::Invalid {
            name: "RUNCAST_URL",
            reason,
        };
        let server = ServerUrl::parse(&text, &["http", "https"], "http://runcast:7070")
            .map_err(|error| invalid(error.to_string()))?;
        let base = Url::parse(server.expose()).map_err(|error| invalid(error.to_string()))?;
        let token = env.get("RUNCAST_TOKEN").map(SecretString::from);
        let token = token.ok_or(ConfigError::Missing {
            name: "RUNCAST_TOKEN",
            hint: "set it to a token from `runcastd token create NAME --scope runs:publish`",
        })?;
        let transport = match env.get("RUNCAST_TRANSPORT") {
            None => TransportChoice::default(),
            Some(text) => text
                .parse()
                .map_err(|error: UnknownTransport| ConfigError::Invalid {
                    name: "RUNCAST_TRANSPORT",
                    reason: error.to_string(),
                })?,
        };
        let authorities = authorities(&base)?;
        Ok(Self {
            http: http_client(&token, authorities.as_ref())?,
            token,
            transport,
            base,
            display_url: server.to_string(),
            redis: redis_url(env, "REDIS_URL")?,
            ca: redis_ca(env)?,
            trusts_bundled: authorities.is_some_and(|known| known.are_bundled()),
        })
    }

    /// The same client with its own connections, for another Tokio runtime: a connection belongs to
    /// the runtime that first uses it.
    pub(crate) fn with_new_connections(&self) -> Result<Self, ConfigError> {
        Ok(Self {
            http: http_client(&self.token, authorities(&self.base)?.as_ref())?,
            ..self.clone()
        })
    }

    /// The gateway's address, without credentials.
    pub fn display_url(&self) -> &str {
        &self.display_url
    }

    /// Creates a run. Another call with the same idempotency key returns the same run, so a lost
    /// response does not leave a second run behind.
    pub async fn create_run(&self, run: &NewRun, key: Uuid) -> Result<Session, ApiError> {
        let key = key.to_string();
        let request = || {
            let url = self.url(&["v1", "runs"]);
            self.http
                .post(url)
                .header("Idempotency-Key", &key)
                .json(run)
        };
        let response = self.call("", request).await?;
        self.session(response).await
    }

    /// Joins an existing run.
    pub async fn join_run(&self, run: Uuid) -> Result<Session, ApiError> {
        let run = run.to_string();
        let request = || self.http.post(self.url(&["v1", "runs", &run, "publish"]));
        let response = self.call(&run, request).await?;
        self.session(response).await
    }

    /// Requests the event stream of a run. The response is 200 (a stream) or 204 (the run is over).
    /// After an error, [`ApiError::is_transient`] says whether to try again.
    pub async fn stream(
        &self,
        run: &str,
        channels: &[Channel],
        after: Option<&str>,
    ) -> Result<Response, ApiError> {
        let mut url = self.url(&["v1", "runs", run, "stream"]);
        if !channels.is_empty() {
            url.query_pairs_mut().extend_pairs(
                channels
                    .iter()
                    .map(|channel| ("channel", channel_name(*channel))),
            );
        }
        let mut request = self.http.get(url).header("Accept", "text/event-stream");
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        // The limit covers the response head only; the body lasts as long as the run.
        let sent = tokio::time::timeout(CALL_TIMEOUT, request.send()).await;
        match sent {
            Ok(Ok(response)) => self.check(run, response).await,
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_elapsed) => Err(ApiError::Unreachable {
                url: self.display_url.clone(),
                reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            }),
        }
    }

    /// Requests the events behind a cursor as JSON lines; the last line says how to continue. The
    /// gateway waits up to `wait` for the first event.
    pub async fn events(
        &self,
        run: &str,
        channels: &[Channel],
        after: Option<&str>,
        wait: Duration,
    ) -> Result<String, ApiError> {
        let mut url = self.url(&["v1", "runs", run, "events"]);
        url.query_pairs_mut()
            .append_pair("after", after.unwrap_or("0-0"))
            .append_pair("wait", &wait.as_secs().to_string())
            .extend_pairs(
                channels
                    .iter()
                    .map(|channel| ("channel", channel_name(*channel))),
            );
        let request = self.http.get(url).header("Accept", "application/x-ndjson");
        let sent = request.timeout(wait + CALL_TIMEOUT).send().await;
        let response = match sent {
            Ok(response) => self.check(run, response).await?,
            Err(error) => return Err(self.unreachable(&error)),
        };
        let text = response.text().await;
        text.map_err(|error| self.unreachable(&error))
    }

    /// Deletes a run. Returns whether nothing of it is left; until then another call asks again.
    pub async fn delete_run(&self, run: Uuid) -> Result<bool, ApiError> {
        let run = run.to_string();
        let request = || self.http.delete(self.url(&["v1", "runs", &run]));
        let response = self.call(&run, request).await?;
        Ok(response.status() == StatusCode::OK)
    }

    /// The status of a run, as the API spells it.
    pub async fn status(&self, run: &str) -> Result<String, ApiError> {
        #[derive(serde::Deserialize)]
        struct RunDescription {
            status: String,
        }
        let request = || self.http.get(self.url(&["v1", "runs", run]));
        let response = self.call(run, request).await?;
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let described: Result<RunDescription, _> = serde_json::from_slice(&body);
        described
            .map(|described| described.status)
            .map_err(|error| ApiError::Unexpected {
                url: self.display_url.clone(),
                reason: error.to_string(),
            })
    }

    pub(super) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.set_query(None);
        url
    }

    pub(super) async fn call(
        &self,
        run: &str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, ApiError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        loop {
            let sent = request().timeout(CALL_TIMEOUT).send().await;
            let result = match sent {
                Ok(response) => self.check(run, response).await,
                Err(error) => Err(self.unreachable(&error)),
            };
            match result {
                Err(error) if error.is_transient() && backoff.attempts() + 1 < MAX_ATTEMPTS => {
                    tracing::debug!(%error, "the gateway call failed, retrying");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                result => return result,
            }
        }
    }

    pub(super) async fn check(&self, run: &str, response: Response) -> Result<Response, ApiError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = self.display_url.clone();
        let body = response.bytes().await.unwrap_or_default();
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        let detail = problem.and_then(|problem| problem.detail.or(problem.title));
        let detail = detail.map(|detail| one_line(&detail));
        let detail = detail.or_else(|| is_page(&body).then(|| A_PAGE.to_owned()));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ApiError::Unauthorized {
                url,
                status,
                detail: detail.unwrap_or_else(|| {
                    "create one with `runcastd token create NAME --scope runs:publish`".into()
                }),
            },
            StatusCode::NOT_FOUND if !run.is_empty() => ApiError::NoSuchRun {
                run: run.to_owned(),
                url,
            },
            _ => ApiError::Refused {
                url,
                status,
                detail: detail.unwrap_or_else(|| "no explanation".into()),
            },
        })
    }

    async fn session(&self, response: Response) -> Result<Session, ApiError> {
        let unexpected = |reason: String| ApiError::Unexpected {
            url: self.display_url.clone(),
            reason,
        };
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let reply: PublishReply = serde_json::from_slice(&body).map_err(|error| {
            unexpected(match is_page(&body) {
                true => A_PAGE.to_owned(),
                false => error.to_string(),
            })
        })?;
        let handed_out = reply.redis.as_ref().map(RedisReply::parse).transpose();
        let handed_out =
            handed_out.map_err(|error| unexpected(format!("the address of Redis: {error}")))?;
        // `REDIS_URL` may be the command's own, so without an address to override it counts only
        // where Redis is asked for.
        let may_override = handed_out.is_some() || self.transport == TransportChoice::Redis;
        let override_url = self.redis.clone().filter(|_| may_override);
        let redis = match (override_url, handed_out) {
            (Some(url), Some(handed_out)) => Some(with_credentials(url, &handed_out)),
            (url, handed_out) => url.or(handed_out),
        };
        let run = reply.run.id;
        Ok(Session {
            run,
            page: reply.url.unwrap_or_else(|| self.page(run)),
            token: reply.token.map(SecretString::from),
            redis: redis.map(|redis| redis.trusting(self.ca.clone())),
            prefix: reply.redis.map(|redis| redis.prefix).unwrap_or_default(),
            client: self.clone(),
            transport: self.transport,
        })
    }

    fn page(&self, run: Uuid) -> String {
        let mut url = self.url(&[""]);
        url.set_fragment(Some(&format!("/runs/{run}")));
        // Credentials in the address must not appear on the screen.
        if url.set_password(None).and(url.set_username("")).is_err() {
            return self.display_url.clone();
        }
        url.into()
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let reason = root_cause(error);
        let hint = hint(&reason, self.trusts_bundled);
        ApiError::Unreachable {
            url: self.display_url.clone(),
            reason: format!("{reason}{hint}"),
        }
    }
}

/// Another address of Redis: unless it names a user, with the user of the run.
fn with_credentials(url: RedisUrl, handed_out: &RedisUrl) -> RedisUrl {
    match (url.credentials(), handed_out.credentials()) {
        (None, Some((name, password))) => url.with_user(name, password),
        _ => url,
    }
}

/// A channel, as the API spells it.
fn channel_name(channel: Channel) -> String {
    match channel.variation {
        Some(variation) => format!("{}:{variation}", channel.kind),
        None => channel.kind.to_string(),
    }
}

/// The authorities that are trusted. Those of a machine that cannot be read do not matter without
/// TLS, unless the gateway redirects to it.
fn authorities(base: &Url) -> Result<Option<Authorities>, ConfigError> {
    match Authorities::load() {
        Ok(authorities) => Ok(Some(authorities)),
        Err(error) if base.scheme() == "http" => {
            tracing::debug!(%error, "no certificate authority is trusted");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn http_client(
    token: &SecretString,
    authorities: Option<&Authorities>,
) -> Result<reqwest::Client, ConfigError> {
    let bearer = format!("Bearer {}", token.expose_secret());
    let mut bearer =
        HeaderValue::try_from(bearer).map_err(|_unprintable| ConfigError::Invalid {
            name: "RUNCAST_TOKEN",
            reason: "it contains characters that no token has, such as a line break".into(),
        })?;
    bearer.set_sensitive(true);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
    let certificates = authorities.into_iter().flat_map(Authorities::certificates);
    reqwest::Client::builder()
        .tls_certs_only(certificates.flat_map(Certificate::from_der))
        .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| ConfigError::Invalid {
            name: "RUNCAST_URL",
            reason: root_cause(&error),
        })
}
