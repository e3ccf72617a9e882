//! Event lines: the bytes of text events, and new lines for stories that publish without the agent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runcast_common::protocol::event::{self, Kind, Text};
use serde_json::Value;

/// The bytes of one `output` or `log` event, whether it carries `text` or base64 `bytes`.
pub fn text_bytes(event: &Value) -> Vec<u8> {
    if let Some(text) = event["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    let bytes = event["bytes"].as_str();
    let bytes = bytes.unwrap_or_else(|| panic!("an event without text and bytes: {event}"));
    BASE64.decode(bytes).expect("bytes of an event are base64")
}

/// An `output` event line with this text, without its newline.
pub fn output_line(text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    let payload = Text::from_chunk(Some("stdout"), text.as_bytes());
    event::write_line(&mut line, Kind::Output, 0, event::now_ms(), &payload)
        .expect("a text that fits an event");
    line.pop();
    line
}

/// `output` event lines with the texts `<word> <number>`.
pub fn numbered_lines(word: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| output_line(&format!("{word} {number}\n")))
        .collect()
}
