//! How far the work has come, as programs report it to their terminal or their CI system:
//!
//! - `ESC ] 9 ; 4 ; STATE ; PERCENT BEL`, or `ESC \` at the end: ConEmu's sequence ("ConEmu
//!   specific OSC", conemu.github.io), which Windows Terminal, Ghostty and others show, and which
//!   cargo, systemd and winget write. STATE is 0 for none, 1 for a percentage, 2 for an error, 3
//!   for unknown, 4 for a pause;
//! - `##vso[task.setprogress value=75;]LABEL` on a line: Azure Pipelines ("Logging commands",
//!   learn.microsoft.com).

use super::title::title;

/// Longest sequence: `9;4;S;PPP`, with room for leading zeros.
const MAX_SEQUENCE_BYTES: usize = 24;

const SEQUENCE_START: &[u8] = b"\x1b]9;4;";

/// One progress message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgressMark {
    /// What progresses, if the message says it.
    pub(crate) label: Option<String>,
    /// Out of 100; none leaves it unchanged.
    pub(crate) percent: Option<u64>,
    /// None for normal progress.
    pub(crate) state: Option<&'static str>,
}

/// Finds terminal sequences in a stream that arrives in chunks.
#[derive(Debug, Default)]
pub(crate) struct ProgressScanner {
    /// The incomplete sequence.
    open: Vec<u8>,
}

impl ProgressScanner {
    pub(crate) fn scan(&mut self, chunk: &[u8], report: &mut impl FnMut(ProgressMark)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.open.is_empty() {
                let Some(at) = memchr::memchr(0x1b, rest) else {
                    return;
                };
                rest = &rest[at..];
            }
            let byte = rest[0];
            rest = &rest[1..];
            self.open.push(byte);
            let known = self.open.len().min(SEQUENCE_START.len());
            if self.open[..known] != SEQUENCE_START[..known] || self.open.len() > MAX_SEQUENCE_BYTES
            {
                self.restart(byte);
                continue;
            }
            let Some(parameters) = self.open.get(SEQUENCE_START.len()..) else {
                continue;
            };
            match parameters {
                [parameters @ .., 0x07] | [parameters @ .., 0x1b, b'\\'] => {
                    if let Some(mark) = mark(parameters) {
                        report(mark);
                    }
                    self.open.clear();
                }
                [.., b'0'..=b'9' | b';' | 0x1b] | [] => {
                    // An escape without a following backslash may start another sequence.
                    if let [.., 0x1b, _] = parameters {
                        self.restart(byte);
                    }
                }
                _ => {
                    let begins = parameters.len() > 1 && parameters[parameters.len() - 2] == 0x1b;
                    self.restart(byte);
                    if begins && byte == b']' {
                        self.open = SEQUENCE_START[..2].to_vec();
                    }
                }
            }
        }
    }

    /// Discards the sequence; its last byte may start another.
    fn restart(&mut self, byte: u8) {
        self.open.clear();
        if byte == 0x1b {
            self.open.push(byte);
        }
    }
}

fn mark(parameters: &[u8]) -> Option<ProgressMark> {
    let text = std::str::from_utf8(parameters).ok()?;
    let mut numbers = text.split(';');
    let state = numbers.next()?;
    let percent = numbers.next().and_then(|text| text.parse::<u64>().ok());
    let percent = percent.map(|percent| percent.min(100));
    let (percent, state) = match state {
        "0" => (None, Some("cleared")),
        "1" => (Some(percent.unwrap_or(0)), None),
        "2" => (percent, Some("error")),
        "3" => (None, Some("busy")),
        "4" => (percent, Some("paused")),
        _ => return None,
    };
    Some(ProgressMark {
        label: None,
        percent,
        state,
    })
}

/// Parses the message of Azure on a line.
pub(super) fn set_progress(line: &[u8]) -> Option<ProgressMark> {
    let rest = line.trim_ascii_start().strip_prefix(b"##vso[")?;
    let end = memchr::memchr(b']', rest)?;
    let (info, label) = (&rest[..end], title(&rest[end + 1..]));
    let info = std::str::from_utf8(info).ok()?;
    let (name, properties) = info.split_once(' ')?;
    if !name.eq_ignore_ascii_case("task.setprogress") {
        return None;
    }
    let mut properties = properties
        .split(';')
        .filter_map(|pair| pair.split_once('='));
    let (_, value) = properties.find(|(name, _)| name.trim().eq_ignore_ascii_case("value"))?;
    let percent: u64 = value.trim().parse().ok()?;
    Some(ProgressMark {
        label: (!label.is_empty()).then_some(label),
        percent: Some(percent.min(100)),
        state: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(chunks: &[&[u8]]) -> Vec<(Option<u64>, Option<&'static str>)> {
        let mut scanner = ProgressScanner::default();
        let mut found = Vec::new();
        for chunk in chunks {
            scanner.scan(chunk, &mut |mark| found.push((mark.percent, mark.state)));
        }
        found
    }

    #[test]
    fn sequences_are_found_wherever_the_chunks_are_cut() {
        let text = b"a\x1b[1mb\x1b]9;4;1;50\x1b\\c\x1b]9;4;3\x07\x1b]9;done\x07\x1b]9;4;1;\x1b]9;4;2;70\x07\x1b]9;4;4;120\x07\x1b]9;4;0;\x07\x1b\x1b]9;4;1\x07";
        let expected = [
            (Some(50), None),
            (None, Some("busy")),
            (Some(70), Some("error")),
            (Some(100), Some("paused")),
            (None, Some("cleared")),
            (Some(0), None),
        ];
        for cut in 0..=text.len() {
            assert_eq!(scanned(&[&text[..cut], &text[cut..]]), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(scanned(&bytes), expected);
        assert_eq!(
            scanned(&[
                b"\x1b]9;4;1;00000000000000000000000000005\x07",
                b"\x1b]9;4;1;5\x07"
            ]),
            [(Some(5), None)]
        );
        assert_eq!(scanned(&[b"\x1b]9;4;7;1\x07\x1b]9;4;1;5\n"]), []);
    }

    #[test]
    fn azure_messages_have_a_label() {
        let mark = set_progress(b"##vso[task.setprogress value=75;]Upload \x1b[1mit\x1b[0m\r\n");
        let expected = ProgressMark {
            label: Some("Upload it".to_owned()),
            percent: Some(75),
            state: None,
        };
        assert_eq!(mark, Some(expected));
        for line in [
            "##vso[task.complete value=1]",
            "##vso[task.setprogress]x",
            "##vso[task.setprogress value=x]",
            "##vso[",
        ] {
            assert_eq!(set_progress(line.as_bytes()), None, "{line}");
        }
    }
}
