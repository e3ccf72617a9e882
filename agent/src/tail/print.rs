//! Shows the events of a run in a terminal, or as JSON lines, each of them once.
//!
//! Data: the highest seq seen of each producer; a run has one for each process that ever published
//! for it.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::sse::Frame;

/// What the stream says by an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// More may follow.
    More,
    /// The run is over.
    End,
}

/// Where events are shown.
#[derive(Debug)]
pub(crate) struct Printer<O, E> {
    json: bool,
    out: O,
    err: E,
    seen: HashMap<String, u64>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Shows JSON lines on `out`; or output there, and logs and notes on `err`.
    pub(crate) fn new(json: bool, out: O, err: E) -> Self {
        Self {
            json,
            out,
            err,
            seen: HashMap::new(),
        }
    }

    /// Shows one event, unless it was shown before.
    ///
    /// # Errors
    /// The streams' own; of kind `BrokenPipe` when nobody reads any more.
    pub(crate) fn show(&mut self, frame: &Frame) -> io::Result<Shown> {
        let Ok(event) = serde_json::from_str::<Value>(&frame.data) else {
            writeln!(self.err, "runcast: an event cannot be read: {}", frame.data)?;
            return Ok(Shown::More);
        };
        if self.is_known(&event) {
            return Ok(Shown::More);
        }
        let ends = frame.event == "end";
        // How the connection stands is no part of the run.
        let about_connection = match frame.event.as_str() {
            "ready" | "degraded" | "closing" | "state" => true,
            // A sign of life, unless it was published as an event.
            "heartbeat" => event["producer"].is_null(),
            _ => false,
        };
        if self.json && !about_connection {
            writeln!(self.out, "{}", frame.data)?;
        } else if !self.json {
            self.show_text(&frame.event, &event)?;
        }
        Ok(if ends { Shown::End } else { Shown::More })
    }

    /// Hands on what was written.
    ///
    /// # Errors
    /// As for [`show`](Self::show).
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    /// True if this event, or a later one of the same producer, was seen; an event that comes again
    /// under another id is the same event.
    fn is_known(&mut self, event: &Value) -> bool {
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

    fn show_text(&mut self, kind: &str, event: &Value) -> io::Result<()> {
        let word = |name: &str| event[name].as_str().unwrap_or("unknown").to_owned();
        match kind {
            "output" => write_chunk(&mut self.out, event),
            "log" => {
                // So that the two streams of a terminal show up in their order.
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
            "state" => writeln!(self.err, "runcast: the run is {}", word("status")),
            "end" => writeln!(self.err, "runcast: the run has {}", word("status")),
            _ => Ok(()),
        }
    }
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

    fn shown(json: bool, frames: &[Frame]) -> (String, String, Shown) {
        let mut printer = Printer::new(json, Vec::new(), Vec::new());
        let mut last = Shown::More;
        for frame in frames {
            last = printer.show(frame).expect("written");
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
    fn output_and_notes_go_to_their_streams_once() {
        let frames: Vec<Frame> = stream()
            .into_iter()
            .filter(|frame| frame.event != "log")
            .collect();
        let (out, err, last) = shown(false, &frames);
        assert_eq!(out, "a\nb\0");
        assert_eq!(
            err,
            "runcast: 3 events missing (lost)\nruncast: an unknown number of events missing (reborn)\nruncast: the run has succeeded\n"
        );
        assert_eq!(last, Shown::End);
        let mut printer = Printer::new(false, Vec::new(), Vec::new());
        printer.show(&stream()[5]).expect("written");
        assert_eq!(printer.err, [0xff]);
    }

    #[test]
    fn a_loss_is_told_beside_the_output_and_is_no_line_of_it() {
        let lost = [frame("state", r#"{"kind":"state","status":"lost"}"#)];
        let (out, err, last) = shown(false, &lost);
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("", "runcast: the run is lost\n")
        );
        assert_eq!(last, Shown::More);
        assert_eq!(shown(true, &lost).0, "");
    }

    #[test]
    fn json_lines_are_the_data_as_it_came() {
        let frames = stream();
        let (out, err, _) = shown(true, &frames);
        let expected: Vec<&str> = [0, 2, 3, 5, 6, 7].map(|at| frames[at].data.as_str()).into();
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
        assert_eq!(err, "");
    }
}
