//! Streams made by chance: secrets at random places in random forms, random line ends in them, random
//! pieces.

use super::*;

/// A generator whose numbers are the same for the same seed.
struct Chance(u64);

impl Chance {
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

#[test]
fn by_chance_no_form_of_a_secret_comes_through_and_all_else_does() {
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let values: Vec<Vec<u8>> = (0..5)
            .map(|_| {
                let length = 8 + chance.below(40);
                chance.text(b"abcXYZ019_-+/ =\"'\\$\n%", length)
            })
            .filter(|value| value::check(value::core(value)).is_ok())
            .collect();
        let redactor = Redactor::new();
        redactor.add_all(values.iter().map(Vec::as_slice));
        let cores = values.iter().map(|value| value::core(value));
        let forms: Vec<Vec<u8>> = cores.flat_map(forms::forms).collect();
        // The letters between the forms are in no value, so no form goes on into them but by base64.
        let (mut text, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let length = chance.below(30);
            let plain = [b"Q", &chance.text(b"rstuvw \n\r\t", length)[..], b"Q"].concat();
            text.extend_from_slice(&plain);
            expected.extend_from_slice(&plain);
            let form = &forms[chance.below(forms.len())];
            let broken_at = 3 + chance.below(form.len() - 3);
            text.extend_from_slice(&form[..broken_at]);
            text.extend_from_slice([&b""[..], b"\n", b"\r\n"][chance.below(3)]);
            text.extend_from_slice(&form[broken_at..]);
            expected.extend_from_slice(MASK);
        }
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        let now = Instant::now();
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + chance.below(rest.len().min(40)));
            stream.push(piece, now, &mut out);
            rest = more;
        }
        stream.finish(&mut out);
        let shown = String::from_utf8_lossy(&out);
        assert_eq!(shown, String::from_utf8_lossy(&expected), "seed {seed}");
        for form in &forms {
            assert!(memchr::memmem::find(&out, form).is_none(), "seed {seed}");
        }
    }
}
