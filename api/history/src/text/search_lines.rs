//! What the events around a window do not decide about its lines: how a line goes on that is still
//! open behind them, and whether a line that matches began before them.
//!
//! Both are rare, and only the channel of the line is read. Bounds: [`MAX_READS`] reads for all
//! open lines of a window, and [`LOOKBACK_EVENTS`] for each match in doubt.

use runcast_common::protocol::event::{Channel, Kind};
use runcast_common::protocol::event_id::EventId;

use super::lines::{extend_lines, leaves_line_open};
use super::search::{Search, SearchResults, SearchWork, Window};
use crate::filter::Filter;
use crate::reader::{ReadError, Reader};

/// Reads in which the open lines of a window must end. A line of the greatest length that comes
/// word by word takes about ten.
const MAX_READS: usize = 64;

/// Events of a channel that are read to find the one of the stream before a line.
const LOOKBACK_EVENTS: usize = 16;

impl Search {
    /// Reads on `behind` the joined events until the lines of a window are whole, as far as the
    /// bounds allow; there is nothing to read without it.
    pub(super) async fn complete(
        &self,
        reader: &Reader,
        work: &SearchWork,
        window: &mut Window,
        behind: Option<EventId>,
    ) -> Result<(), ReadError> {
        let Some(mut cursor) = behind else {
            return Ok(());
        };
        let lines = window.searched();
        for _ in 0..MAX_READS {
            let mut channels: Vec<Channel> = Vec::new();
            for line in lines.iter().filter(|line| line.is_open) {
                let channel = channel_of(line.kind, line.variation);
                if !channels.contains(&channel) {
                    channels.push(channel);
                }
            }
            if channels.is_empty() || work.is_over() {
                return Ok(());
            }
            let batch = reader
                .batch(self.run, cursor, &Filter::new(channels))
                .await?;
            extend_lines(lines, &batch.items);
            if batch.caught_up || batch.upto == cursor {
                return Ok(());
            }
            cursor = batch.upto;
        }
        Ok(())
    }

    /// Drops the matches that are the rest of a line that began earlier: they belong to that one.
    pub(super) async fn drop_continued(
        &self,
        reader: &Reader,
        results: &mut SearchResults,
    ) -> Result<(), ReadError> {
        let mut at = 0;
        while let Some(found) = results.matches.get_mut(at) {
            let mut is_rest = false;
            if std::mem::take(&mut found.may_continue) {
                let filter = Filter::new(vec![channel_of(found.kind, found.variation)]);
                let before = reader
                    .page_before(self.run, Some(found.id), &filter, LOOKBACK_EVENTS)
                    .await?;
                let mut items = before.items.iter().rev();
                is_rest = items
                    .find_map(|item| leaves_line_open(item, found.variation, &found.stream))
                    .unwrap_or(false);
            }
            match is_rest {
                true => drop(results.matches.remove(at)),
                false => at += 1,
            }
        }
        Ok(())
    }
}

const fn channel_of(kind: Kind, variation: u16) -> Channel {
    Channel {
        kind,
        variation: Some(variation),
    }
}
