//! A receiver of webhooks: a real HTTP server that replies as a story tells it to, and keeps what came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::eventually::eventually;
use crate::programs::loopback;

/// How to reply one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With a redirect to another path of this receiver.
    Redirect,
    /// Not at all, while the connection lasts.
    Never,
}

/// One request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl ReceivedRequest {
    /// Its `webhook-id`.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn id(&self) -> String {
        let id = self.headers.get("webhook-id").expect("a webhook-id");
        id.to_str().expect("ASCII").to_owned()
    }

    /// Its body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// Checks its signature as a receiver would, by the library of the specification.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn verify(&self, secret: &str) {
        let webhook = Webhook::new(secret).expect("a secret of the specification");
        let checked = webhook.verify(&self.body, &self.headers);
        checked.unwrap_or_else(|error| panic!("{error}: {self:?}"));
    }
}

#[derive(Debug, Default)]
struct Shared {
    replies: VecDeque<Reply>,
    default_reply: Option<Reply>,
    received: Vec<ReceivedRequest>,
}

/// A running receiver; it ends when dropped.
#[derive(Debug)]
pub struct WebhookReceiver {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    server: AbortHandle,
}

impl WebhookReceiver {
    /// Starts one that replies everything with 204.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let shared = Arc::new(Mutex::default());
        let (address, server) = serve(loopback(0), &shared).await;
        Self {
            address,
            shared,
            server,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next requests are answered like this, one after the other.
    pub fn reply_next(&self, replies: &[Reply]) {
        self.lock().replies.extend(replies);
    }

    /// All others are answered like this.
    pub fn reply_default(&self, reply: Reply) {
        self.lock().default_reply = Some(reply);
    }

    /// Refuses connections from now on.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Is there again, at the same address.
    ///
    /// # Panics
    /// If it cannot listen there.
    pub async fn restart(&mut self) {
        self.server = serve(self.address, &self.shared).await.1;
    }

    /// What came so far.
    #[must_use]
    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.lock().received.clone()
    }

    /// Waits until so much has come, and gives it.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<ReceivedRequest> {
        eventually(&format!("{count} requests come"), async || {
            let received = self.received();
            if received.len() >= count {
                Ok(received)
            } else {
                Err(format!("{} came", received.len()))
            }
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(address: SocketAddr, shared: &Arc<Mutex<Shared>>) -> (SocketAddr, AbortHandle) {
    // The socket of an earlier one may take a moment to go.
    let listener = eventually("the receiver listens", async || {
        TcpListener::bind(address)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let address = listener.local_addr().expect("the address that was bound");
    let router = Router::new()
        .fallback(handle)
        .with_state(Arc::clone(shared));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    (address, server.abort_handle())
}

async fn handle(
    State(shared): State<Arc<Mutex<Shared>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.received.push(ReceivedRequest { headers, body });
        let next = shared.replies.pop_front();
        next.or(shared.default_reply).unwrap_or(Reply::Status(204))
    };
    match reply {
        Reply::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, "said the receiver").into_response()
        }
        Reply::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Reply::Never => std::future::pending().await,
    }
}
