//! Follows a run by long polls, where something between here and the gateway holds streams back.
//!
//! Each poll waits for up to [`WAIT`] and brings events with the cursor behind them; the next goes on
//! from there at once. After a failure that passes, the same waits as between two streams.

use std::io;
use std::time::Duration;

use runcast_common::protocol::event::Channel;
use serde::Deserialize;
use tokio::time::sleep;

use super::Tail;
use super::sse::{Frame, Item};
use crate::api::{ApiError, Client};
use crate::say;

/// Longest wait of one poll: proxies give up on a silent request after 30 to 60 s.
const WAIT: Duration = Duration::from_secs(25);

/// What is needed of a line.
#[derive(Deserialize)]
struct Line {
    kind: String,
    #[serde(default)]
    id: Option<String>,
    /// With the kind `page`: how to go on.
    #[serde(default)]
    newer: Option<String>,
    #[serde(default)]
    ended: bool,
}

impl Tail {
    /// Follows the run until it is over, or nobody reads what is shown.
    pub(super) async fn poll(
        &mut self,
        client: &Client,
        channels: &[Channel],
    ) -> Result<(), ApiError> {
        loop {
            let page = client.events(&self.run, channels, self.cursor.as_deref(), WAIT);
            let text = match page.await {
                Ok(text) => text,
                Err(error) if error.is_passing() => {
                    if self.backoff.attempts() == 0 {
                        say(format_args!("{error}; trying again"));
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
                items.push(Item::Frame(Frame {
                    event: "end".to_owned(),
                    data: data.to_string(),
                    id: None,
                }));
            }
            if let Err(error) = self.take(items) {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    say(format_args!("events cannot be shown: {error}"));
                }
                return Ok(());
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The events of a page, and whether it is the last. An empty page moves the cursor as well.
    fn frames(&mut self, text: &str) -> (Vec<Item>, bool) {
        let (mut items, mut ended) = (Vec::new(), false);
        for data in text.lines() {
            let Ok(line) = serde_json::from_str::<Line>(data) else {
                say(format_args!("an event cannot be read: {data}"));
                continue;
            };
            if line.kind == "page" {
                ended = line.ended;
                self.cursor = line.newer.or(self.cursor.take());
                self.backoff.reset();
                continue;
            }
            items.push(Item::Frame(Frame {
                event: line.kind,
                data: data.to_owned(),
                id: line.id,
            }));
        }
        (items, ended)
    }
}
