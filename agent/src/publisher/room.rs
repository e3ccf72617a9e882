//! For those who must not wait: whether there is room, and what to do with an event for which there
//! is none.

use runcast_common::protocol::event::Kind;

use super::Publisher;

impl Publisher {
    /// Counts events that could not be published: a `gap` at this place of the stream tells how many
    /// are missing, and so many bytes of them. It takes no room, and is told even where nothing more
    /// is published.
    ///
    /// For callers of [`try_publish`](Self::try_publish) that go on without the event. After `close`
    /// there is no stream that could tell anything.
    pub fn note_lost(&self, events: u64, bytes: u64) {
        self.shared.queue.note_lost(events, bytes);
    }

    /// Waits until an event of this kind would be taken, or refused for good.
    pub(crate) async fn room_for(&self, kind: Kind) {
        self.shared.queue.room_for(kind).await;
    }
}

#[cfg(test)]
impl Publisher {
    /// One that sends nothing and keeps nothing: whatever is published waits in its queue.
    pub(crate) fn of_its_queue_alone() -> Self {
        use super::{Options, Target};
        let target = Target {
            redis: "redis://127.0.0.1:1".parse().expect("an address"),
            prefix: String::new(),
            run: uuid::Uuid::now_v7(),
            variation: 0,
        };
        let options = Options {
            backlog_bytes: 0,
            ..Options::default()
        };
        Self::start(&target, options).expect("started")
    }

    /// Takes out what waits in its queue.
    pub(crate) fn take_waiting(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        while let crate::queue::Taken::Batch(batch) = self.shared.queue.take(true) {
            let body = batch.body.split(|byte| *byte == b'\n');
            let body = body.filter(|line| !line.is_empty());
            lines.extend(body.map(|line| serde_json::from_slice(line).expect("JSON")));
        }
        lines
    }
}
