//! Parses server-sent events, as the HTML standard defines them, from bytes that may be cut
//! anywhere.
//!
//! A frame counts only once the empty line behind it has arrived, so an incomplete frame does not
//! move the cursor. Lines end with LF, CR or CRLF. Bound: [`MAX_FRAME_BYTES`] per frame.

use std::time::Duration;

use runcast_common::protocol::limits::MAX_EVENT_BYTES;

/// Longest frame: twice the longest event. A gateway sends none that is longer.
const MAX_FRAME_BYTES: usize = 2 * MAX_EVENT_BYTES;

/// One event of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `event:`.
    pub(crate) event: String,
    /// `data:`, its lines joined by newlines.
    pub(crate) data: String,
    /// `id:`, if it has one.
    pub(crate) id: Option<String>,
}

/// What a complete line yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SseItem {
    /// A complete event.
    Frame(Frame),
    /// How long to wait before a reconnect.
    Retry(Duration),
}

/// A frame is longer than any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame is over the limit of {MAX_FRAME_BYTES} bytes")]
pub(crate) struct FrameTooLong;

/// The parser, with the frame that is being read.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    /// The line that is being read, without its end.
    line: Vec<u8>,
    /// The last byte was CR, so a LF now belongs to it.
    after_cr: bool,
    past_first_line: bool,
    frame: Frame,
    has_data: bool,
}

impl SseReader {
    /// Adds bytes and returns what they complete. After an error, the stream must not be read on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseItem>, FrameTooLong> {
        let mut items = Vec::new();
        let mut rest = bytes;
        if self.after_cr && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        self.after_cr &= bytes.is_empty();
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            self.line.extend_from_slice(&rest[..at]);
            let is_cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
            match rest.first() {
                Some(b'\n') if is_cr => rest = &rest[1..],
                None => self.after_cr = is_cr,
                Some(_) => {}
            }
            items.extend(self.end_line());
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.frame.data.len() > MAX_FRAME_BYTES {
            return Err(FrameTooLong);
        }
        Ok(items)
    }

    fn end_line(&mut self) -> Option<SseItem> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line = text.as_ref();
        if !self.past_first_line {
            self.past_first_line = true;
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return std::mem::take(&mut self.has_data).then_some(SseItem::Frame(frame));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.has_data = true;
                self.frame.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return value
                    .parse()
                    .ok()
                    .map(Duration::from_millis)
                    .map(SseItem::Retry);
            }
            // A comment (an empty field), or a field of a later standard.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\n\nretry: 1500\nevent: output\ndata: {\"a\":\"é\"}\nid: 7-1\n\n:\nevent: log\r\ndata:x\r\ndata: y\r\nid: 7-2\r\n\r\ndata\rid\r\revent: lost\ndata: cut\nid: 7-9\n";

    fn expected() -> Vec<SseItem> {
        let frame = |event: &str, data: &str, id: &str| {
            SseItem::Frame(Frame {
                event: event.into(),
                data: data.into(),
                id: Some(id.into()),
            })
        };
        vec![
            SseItem::Retry(Duration::from_millis(1500)),
            frame("output", "{\"a\":\"é\"}", "7-1"),
            frame("log", "x\ny", "7-2"),
            frame("", "", ""),
        ]
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            let mut reader = SseReader::default();
            let mut items = reader.push(&bytes[..cut]).expect("short");
            items.extend(reader.push(&bytes[cut..]).expect("short"));
            assert_eq!(items, expected(), "cut at {cut}");
        }
        let mut reader = SseReader::default();
        let by_byte = bytes.chunks(1);
        let items: Vec<SseItem> = by_byte
            .flat_map(|byte| reader.push(byte).expect("short"))
            .collect();
        assert_eq!(items, expected());
    }

    #[test]
    fn a_frame_without_end_is_rejected() {
        let mut reader = SseReader::default();
        let result = (0..).find_map(|_| reader.push(&[b'x'; 4096]).err());
        assert_eq!(result, Some(FrameTooLong));
    }
}
