//! Follows a run by long polling, where something between here and the gateway holds streams back.
//!
//! Each poll waits up to [`POLL_WAIT`] and returns events with the cursor behind them; the next
//! poll continues there at once. After a transient error it waits as long as between two streams.

use std::io;
use std::time::Duration;

use runcast_common::protocol::event::Channel;
use runcast_publisher::gateway_client::{ApiError, GatewayClient};
use serde::Deserialize;
use tokio::time::sleep;

use super::follow::Follower;
use super::sse::{Frame, SseItem};
use crate::console::print_message;

/// Longest wait of one poll: proxies abort a silent request after 30 to 60 s.
const POLL_WAIT: Duration = Duration::from_secs(25);

/// The needed fields of a line.
#[derive(Deserialize)]
struct PolledLine {
    kind: String,
    #[serde(default)]
    id: Option<String>,
    /// With the kind `page`: the cursor for the next poll.
    #[serde(default)]
    newer: Option<String>,
    #[serde(default)]
    ended: bool,
}

impl Follower {
    /// Follows the run until it is over or the output is closed.
    pub(super) async fn poll(
        &mut self,
        client: &GatewayClient,
        channels: &[Channel],
    ) -> Result<(), ApiError> {
        loop {
            let page = client.events(&self.run, channels, self.cursor.as_deref(), POLL_WAIT);
            let text = match page.await {
                Ok(text) => text,
                Err(error) if error.is_transient() => {
                    if self.backoff.attempts() == 0 {
                        print_message(format_args!("{error}; trying again"));
                    }
                    sleep(self.backoff.next_wait()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut items, ended) = self.frames(&text);
            if ended {
                let status = client.status(&self.run).await?;
                let data = serde_json::json!({"kind": "end", "status": status});
                items.push(SseItem::Frame(Frame {
                    event: "end".to_owned(),
                    data: data.to_string(),
                    id: None,
                }));
            }
            if let Err(error) = self.print(items) {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    print_message(format_args!("events cannot be printed: {error}"));
                }
                return Ok(());
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The events of a page, and whether it is the last one. An empty page moves the cursor too.
    fn frames(&mut self, text: &str) -> (Vec<SseItem>, bool) {
        let (mut items, mut ended) = (Vec::new(), false);
        for data in text.lines() {
            let Ok(line) = serde_json::from_str::<PolledLine>(data) else {
                print_message(format_args!("an event cannot be parsed: {data}"));
                continue;
            };
            if line.kind == "page" {
                ended = line.ended;
                self.cursor = line.newer.or(self.cursor.take());
                self.backoff.reset();
                continue;
            }
            items.push(SseItem::Frame(Frame {
                event: line.kind,
                data: data.to_owned(),
                id: line.id,
            }));
        }
        (items, ended)
    }
}
