//! A receiver of webhooks: a real HTTP server that replies as the story configures it, and records
//! all requests.

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

/// The reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// This status.
    Status(u16),
    /// A redirect to another path of this receiver.
    Redirect,
    /// None while the connection lasts.
    Never,
}

/// A recorded request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl ReceivedRequest {
    /// Its `webhook-id`.
    pub fn id(&self) -> String {
        let id = self.headers.get("webhook-id").expect("a webhook-id");
        id.to_str().expect("ASCII").to_owned()
    }

    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// Checks its signature with the library of the webhook specification, as receivers do.
    pub fn verify(&self, secret: &str) {
        let webhook = Webhook::new(secret).expect("a secret of the specification");
        let checked = webhook.verify(&self.body, &self.headers);
        checked.unwrap_or_else(|error| panic!("{error}: {self:?}"));
    }
}

#[derive(Debug, Default)]
struct ReceiverState {
    replies: VecDeque<Reply>,
    default_reply: Option<Reply>,
    received: Vec<ReceivedRequest>,
}

/// A running receiver; it ends when dropped.
#[derive(Debug)]
pub struct WebhookReceiver {
    address: SocketAddr,
    shared: Arc<Mutex<ReceiverState>>,
    server: AbortHandle,
}

impl WebhookReceiver {
    /// Starts one that replies with 204.
    pub async fn start() -> Self {
        let shared = Arc::new(Mutex::default());
        let (address, server) = serve(loopback(0), &shared).await;
        Self {
            address,
            shared,
            server,
        }
    }

    /// The URL for webhooks.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets the replies to the next requests, in order.
    pub fn reply_next(&self, replies: &[Reply]) {
        self.lock().replies.extend(replies);
    }

    /// Sets the reply to all other requests.
    pub fn reply_default(&self, reply: Reply) {
        self.lock().default_reply = Some(reply);
    }

    /// Refuses connections from now on.
    pub fn stop(&self) {
        self.server.abort();
    }

    /// Listens again at the same address.
    pub async fn restart(&mut self) {
        self.server = serve(self.address, &self.shared).await.1;
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.lock().received.clone()
    }

    /// Waits for this many requests in total, and returns them.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<ReceivedRequest> {
        eventually(&format!("{count} requests arrive"), async || {
            let received = self.received();
            if received.len() >= count {
                Ok(received)
            } else {
                Err(format!("{} came", received.len()))
            }
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReceiverState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    address: SocketAddr,
    shared: &Arc<Mutex<ReceiverState>>,
) -> (SocketAddr, AbortHandle) {
    // The previous socket may take a moment to close.
    let listener = eventually("the webhook receiver listens", async || {
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
    State(shared): State<Arc<Mutex<ReceiverState>>>,
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
            (status, "reply of the webhook receiver").into_response()
        }
        Reply::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Reply::Never => std::future::pending().await,
    }
}
