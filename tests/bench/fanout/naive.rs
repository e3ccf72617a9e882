//! The usual first implementation of a gateway: axum's `Sse` over a broadcast channel of tokio, one
//! task per viewer.
//!
//! It is a process of its own, so that its memory and CPU time can be told from those of the bench:
//! the same program, started with [`NAIVE_ARGUMENT`]. It stores nothing: a viewer receives what is
//! published while it is connected, and one that falls behind misses what was overwritten.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::broadcast::{Sender, error::RecvError};

/// The first argument that makes this program the gateway; the port follows.
pub(crate) const NAIVE_ARGUMENT: &str = "naive-gateway";

/// Channels: as many as any part publishes to.
const CHANNEL_COUNT: usize = 100;

/// Messages that a channel keeps for slow viewers.
const CHANNEL_CAPACITY_MESSAGES: usize = 1024;

type Channels = Arc<Vec<Sender<Arc<str>>>>;

/// Serves until it is killed.
pub(crate) async fn serve(port: u16) {
    let channels = (0..CHANNEL_COUNT).map(|_| Sender::new(CHANNEL_CAPACITY_MESSAGES));
    let channels: Channels = Arc::new(channels.collect());
    let router = Router::new()
        .route("/{channel}", get(subscribe).post(publish))
        .with_state(channels);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.unwrap_or_else(|error| panic!("{address}: {error}"));
    crate::measure::say(format_args!("ready"));
    axum::serve(listener, router)
        .await
        .expect("the gateway serves");
}

async fn publish(
    State(channels): State<Channels>,
    Path(channel): Path<usize>,
    message: String,
) -> StatusCode {
    let Some(sender) = channels.get(channel) else {
        return StatusCode::NOT_FOUND;
    };
    // Fails only without viewers, so none misses it.
    drop(sender.send(message.into()));
    StatusCode::NO_CONTENT
}

async fn subscribe(
    State(channels): State<Channels>,
    Path(channel): Path<usize>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, StatusCode> {
    let sender = channels.get(channel).ok_or(StatusCode::NOT_FOUND)?;
    let events = unfold(sender.subscribe(), async |mut receiver| {
        loop {
            match receiver.recv().await {
                Ok(message) => {
                    let event = Event::default().event("output");
                    return Some((Ok(event.data(message.as_ref())), receiver));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
