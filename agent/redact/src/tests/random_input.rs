//! Random streams: secrets at random places in random forms, with random line ends, in random
//! pieces.

use std::time::Duration;

use tokio::time::Instant;

use crate::encodings::forms;
use crate::secret_value::{self, Evidence};
use crate::{MASK, Redactor};

/// A generator that returns the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("small")
    }

    fn text(&mut self, letters: &[u8], length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| letters[self.below(letters.len())])
            .collect()
    }
}

fn is_valid(value: &[u8]) -> bool {
    secret_value::check(secret_value::trimmed(value), Evidence::User).is_ok()
}

#[test]
fn random_streams_show_no_form_of_a_secret_and_all_other_text() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let values: Vec<Vec<u8>> = (0..5)
            .map(|_| {
                let length = 8 + random.below(40);
                random.text(b"abcXYZ019_-+/ =\"'\\$\n%", length)
            })
            .filter(|value| is_valid(value))
            .collect();
        let redactor = Redactor::new();
        redactor.add_all(values.iter().map(Vec::as_slice));
        let cores = values.iter().map(|value| secret_value::trimmed(value));
        let all_forms: Vec<Vec<u8>> = cores.flat_map(forms).collect();
        // The text between the forms has no letters of the values, so only base64 extends into it.
        let (mut text, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let length = random.below(30);
            let plain = [b"Q", &random.text(b"rstuvw \n\r\t", length)[..], b"Q"].concat();
            text.extend_from_slice(&plain);
            expected.extend_from_slice(&plain);
            let form = &all_forms[random.below(all_forms.len())];
            let broken_at = 3 + random.below(form.len() - 3);
            text.extend_from_slice(&form[..broken_at]);
            text.extend_from_slice([&b""[..], b"\n", b"\r\n"][random.below(3)]);
            text.extend_from_slice(&form[broken_at..]);
            expected.extend_from_slice(MASK);
        }
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + random.below(rest.len().min(40)));
            stream.push(piece, now, &mut out);
            rest = more;
        }
        stream.finish(&mut out);
        let redacted = String::from_utf8_lossy(&out);
        assert_eq!(redacted, String::from_utf8_lossy(&expected), "seed {seed}");
        for form in &all_forms {
            assert!(memchr::memmem::find(&out, form).is_none(), "seed {seed}");
        }
    }
}

/// With random pauses between the pieces, no form is released as a whole, unmasked text stays
/// unchanged and in order, and nothing is held longer than its limit.
#[test]
fn random_pauses_show_no_secret_and_lose_no_text() {
    for seed in 1000..1100 {
        let mut random = Random(seed);
        let values: Vec<Vec<u8>> = (0..3)
            .map(|_| random.text(b"abAB01/+ \"", 10))
            .filter(|value| is_valid(value))
            .collect();
        let redactor = Redactor::new();
        redactor.add_all(values.iter().map(Vec::as_slice));
        let cores = values.iter().map(|value| secret_value::trimmed(value));
        let all_forms: Vec<Vec<u8>> = cores.flat_map(forms).collect();
        let mut text = Vec::new();
        for _ in 0..30 {
            let form = &all_forms[random.below(all_forms.len())];
            let part = 1 + random.below(form.len());
            let length = random.below(4);
            text.extend_from_slice(&random.text(b"xyz\n", length));
            text.extend_from_slice(&form[..part]);
        }
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let mut now = Instant::now();
        for piece in text.chunks(1 + random.below(9)) {
            stream.push(piece, now, &mut out);
            let pause = [0, 0, 50, 100, 1000][random.below(5)];
            now += Duration::from_millis(pause);
            stream.tick(now, &mut out);
            assert!(stream.deadline().is_none_or(|at| at > now), "seed {seed}");
        }
        stream.finish(&mut out);
        let flat: Vec<u8> = out.iter().copied().filter(|byte| *byte != b'\n').collect();
        for form in &all_forms {
            let found = memchr::memmem::find(&flat, form);
            assert!(found.is_none(), "seed {seed}: {}", form.escape_ascii());
        }
        let redacted = String::from_utf8_lossy(&out).into_owned();
        let mut rest = &text[..];
        for part in redacted.split("[redacted]") {
            let at = memchr::memmem::find(rest, part.as_bytes());
            let at = at.unwrap_or_else(|| panic!("seed {seed}: {part:?} is not next"));
            rest = &rest[at + part.len()..];
        }
    }
}
