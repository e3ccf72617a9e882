//! Calls for code that must not wait: counting an event that had no room, and waiting for room.

use super::handle::Publisher;

impl Publisher {
    /// Counts events that could not be published, and their bytes, in a `gap` event at this place
    /// of the stream. The gap takes no room in the queue, and is sent even if nothing follows it.
    ///
    /// For callers of [`try_publish`](Self::try_publish) that go on without the event. After
    /// `close` this does nothing, because the stream has ended.
    pub fn note_lost(&self, events: u64, bytes: u64) {
        self.shared.queue.note_lost(events, bytes);
    }

    /// Waits until an event of this kind has room, or the publisher accepts nothing any more.
    #[cfg(feature = "llm")]
    pub(crate) async fn wait_for_room(&self, kind: runcast_common::protocol::event::Kind) {
        self.shared.queue.wait_for_room(kind).await;
    }
}

#[cfg(all(test, feature = "llm"))]
impl Publisher {
    /// A publisher that neither sends nor stores: everything stays in its queue.
    pub(crate) fn with_queue_only() -> Self {
        use crate::options::Options;
        use crate::target::Target;
        let target = Target::in_redis(
            "redis://127.0.0.1:1".parse().expect("an address"),
            "",
            uuid::Uuid::now_v7(),
            0,
        );
        let options = Options {
            buffer_bytes: 0,
            ..Options::default()
        };
        Self::start(&target, options).expect("started")
    }

    /// Takes the events that wait in the queue.
    pub(crate) fn take_queued(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        while let crate::queue::event_queue::QueueItem::Batch(batch) = self.shared.queue.take(true)
        {
            let body = batch.body.split(|byte| *byte == b'\n');
            let body = body.filter(|line| !line.is_empty());
            lines.extend(body.map(|line| serde_json::from_slice(line).expect("JSON")));
        }
        lines
    }
}
