//! Prints the events of a run as text or as JSON lines, each event once.
//!
//! Data: the highest seq seen of each producer. A run has one producer per process that published
//! to it.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runcast_common::presence::run_update::DELETED_STATUS;
use runcast_common::protocol::event::line_separators;
use serde_json::Value;
use serde_json::value::RawValue;

use super::sse::Frame;

/// Whether a stream goes on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamState {
    /// More events may follow.
    Open,
    /// The run is over.
    Ended,
}

/// Prints events to two streams.
#[derive(Debug)]
pub(crate) struct Printer<O, E> {
    json: bool,
    out: O,
    err: E,
    /// Highest seq per producer.
    seen: HashMap<String, u64>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Prints JSON lines to `out`; or output to `out`, and logs and notes to `err`.
    pub(crate) fn new(json: bool, out: O, err: E) -> Self {
        Self {
            json,
            out,
            err,
            seen: HashMap::new(),
        }
    }

    /// Prints an event, unless it was printed before. The error is `BrokenPipe` if the reader has
    /// closed a stream.
    pub(crate) fn print(&mut self, frame: &Frame) -> io::Result<StreamState> {
        let Some(event) = parsed(&frame.data) else {
            writeln!(
                self.err,
                "runcast: an event cannot be parsed: {}",
                frame.data
            )?;
            return Ok(StreamState::Open);
        };
        if self.was_seen(&event) {
            return Ok(StreamState::Open);
        }
        let is_end = frame.event == "end";
        // These describe the connection and are not part of the run.
        let about_connection = match frame.event.as_str() {
            "ready" | "degraded" | "closing" | "state" => true,
            // A heartbeat of the agent, unless the run published it as an event.
            "heartbeat" => event["producer"].is_null(),
            _ => false,
        };
        if self.json && !about_connection {
            // A gateway escapes these itself; an older one did not.
            self.out
                .write_all(&line_separators::escaped(frame.data.as_bytes()))?;
            self.out.write_all(b"\n")?;
        } else if !self.json {
            self.print_text(&frame.event, &event)?;
        }
        Ok(if is_end {
            StreamState::Ended
        } else {
            StreamState::Open
        })
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    /// Whether this event, or a later one of the same producer, was seen. After a rebirth of the
    /// run an event comes again with another id, but it is the same event.
    fn was_seen(&mut self, event: &Value) -> bool {
        let (Some(producer), Some(seq)) = (event["producer"].as_str(), event["seq"].as_u64())
        else {
            return false;
        };
        match self.seen.get_mut(producer) {
            Some(highest) if *highest >= seq => true,
            Some(highest) => {
                *highest = seq;
                false
            }
            None => {
                self.seen.insert(producer.to_owned(), seq);
                false
            }
        }
    }

    fn print_text(&mut self, kind: &str, event: &Value) -> io::Result<()> {
        let word = |name: &str| event[name].as_str().unwrap_or("unknown").to_owned();
        match kind {
            "output" => write_chunk(&mut self.out, event),
            "log" => {
                // A terminal shows both streams: keep them in order.
                self.out.flush()?;
                write_chunk(&mut self.err, event)
            }
            "gap" => {
                self.out.flush()?;
                let count = match event["count"].as_u64() {
                    Some(count) => count.to_string(),
                    None => "an unknown number of".to_owned(),
                };
                let reason = word("reason");
                writeln!(self.err, "runcast: {count} events missing ({reason})")
            }
            "degraded" => writeln!(self.err, "runcast: degraded: {}", word("message")),
            // `end` follows, and says so.
            "state" if event["status"] == DELETED_STATUS => Ok(()),
            "state" => writeln!(self.err, "runcast: the run is {}", word("status")),
            "end" if event["status"] == DELETED_STATUS => {
                writeln!(self.err, "runcast: the run was deleted")
            }
            "end" => writeln!(self.err, "runcast: the run has {}", word("status")),
            _ => Ok(()),
        }
    }
}

/// The fields of a frame. One that no number of this program can hold is null: it is passed on by
/// its digits, and not printed as text.
fn parsed(data: &str) -> Option<Value> {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(data).ok()?;
    let fields = fields.into_iter().map(|(name, value)| {
        let value = serde_json::from_str(value.get()).unwrap_or(Value::Null);
        (name, value)
    });
    Some(Value::Object(fields.collect()))
}

fn write_chunk(to: &mut impl Write, event: &Value) -> io::Result<()> {
    if let Some(text) = event["text"].as_str() {
        return to.write_all(text.as_bytes());
    }
    let encoded = event["bytes"].as_str().unwrap_or_default();
    match BASE64.decode(encoded) {
        Ok(bytes) => to.write_all(&bytes),
        Err(_not_base64) => to.write_all(encoded.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str, data: &str) -> Frame {
        Frame {
            event: event.into(),
            data: data.into(),
            id: None,
        }
    }

    fn printed(json: bool, frames: &[Frame]) -> (String, String, StreamState) {
        let mut printer = Printer::new(json, Vec::new(), Vec::new());
        let mut last = StreamState::Open;
        for frame in frames {
            last = printer.print(frame).expect("written");
        }
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(printer.out), text(printer.err), last)
    }

    fn stream() -> Vec<Frame> {
        let output = r#"{"kind":"output","text":"a\n","id":"7-1","producer":"p","seq":1}"#;
        let again = r#"{"kind":"output","text":"a\n","id":"8-1","producer":"p","seq":1}"#;
        vec![
            frame("output", output),
            frame("ready", r#"{"kind":"ready"}"#),
            frame(
                "gap",
                r#"{"kind":"gap","count":3,"bytes":9,"reason":"lost"}"#,
            ),
            frame("gap", r#"{"kind":"gap","count":null,"reason":"reborn"}"#),
            frame("output", again),
            frame(
                "log",
                r#"{"kind":"log","bytes":"/w==","producer":"p","seq":2}"#,
            ),
            frame(
                "output",
                r#"{"kind":"output","bytes":"YgA=","producer":"q","seq":1}"#,
            ),
            frame("end", r#"{"kind":"end","status":"succeeded"}"#),
        ]
    }

    #[test]
    fn output_and_notes_are_printed_once_to_their_streams() {
        let frames: Vec<Frame> = stream()
            .into_iter()
            .filter(|frame| frame.event != "log")
            .collect();
        let (out, err, last) = printed(false, &frames);
        assert_eq!(out, "a\nb\0");
        assert_eq!(
            err,
            "runcast: 3 events missing (lost)\nruncast: an unknown number of events missing (reborn)\nruncast: the run has succeeded\n"
        );
        assert_eq!(last, StreamState::Ended);
        let mut printer = Printer::new(false, Vec::new(), Vec::new());
        printer.print(&stream()[5]).expect("written");
        assert_eq!(printer.err, [0xff]);
    }

    #[test]
    fn a_lost_run_is_a_note_and_not_output() {
        let lost = [frame("state", r#"{"kind":"state","status":"lost"}"#)];
        let (out, err, last) = printed(false, &lost);
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("", "runcast: the run is lost\n")
        );
        assert_eq!(last, StreamState::Open);
        assert_eq!(printed(true, &lost).0, "");
    }

    #[test]
    fn a_deleted_run_is_noted_once() {
        let frames = [
            frame("state", r#"{"kind":"state","status":"deleted"}"#),
            frame("end", r#"{"kind":"end","status":"deleted"}"#),
        ];
        let (_, err, last) = printed(false, &frames);
        assert_eq!(err, "runcast: the run was deleted\n");
        assert_eq!(last, StreamState::Ended);
    }

    #[test]
    fn a_json_line_has_no_other_line_ends_and_keeps_its_digits() {
        let data = "{\"text\":\"a\u{2028}b\u{85}\",\"id\":1610521604143693812,\"z\":1e400}";
        let (out, err, _) = printed(true, &[frame("output", data)]);
        let expected = r#"{"text":"a\u2028b\u0085","id":1610521604143693812,"z":1e400}"#;
        assert_eq!((out.trim_end(), err.as_str()), (expected, ""));
    }

    #[test]
    fn json_lines_are_the_unchanged_data() {
        let frames = stream();
        let (out, err, _) = printed(true, &frames);
        let expected: Vec<&str> = [0, 2, 3, 5, 6, 7].map(|at| frames[at].data.as_str()).into();
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
        assert_eq!(err, "");
    }
}
