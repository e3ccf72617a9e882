//! What is looked for: one Aho-Corasick automaton over all forms of all values and all prefixes of
//! known tokens, and, for each of its states, what a stream that stops there would give away.
//!
//! A state stands for the longest end of the text that begins some pattern. The automaton does not
//! tell how long that is, so it is written down here when the table is made, by walking each pattern
//! through it. Memory: about 20 bytes of automaton and 40 of [`Ends`] per byte of all forms, at
//! most some 60 MB at the bound of [`super::value`], and under 1 MB for a usual environment. The
//! automaton holds the forms in the open; they are in the memory of the process anyhow, in its
//! environment.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::Refused;
use super::forms::is_terminator;
use super::shapes::{KEY_BEGINS, KEY_END, SHAPES, Shape};

/// Bytes of a secret that do no harm: the beginning that may be published when nothing follows it in
/// time. Half of the secret, if that is less.
pub(super) const HARMLESS_BYTES: usize = 8;

/// What was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// A form of a value.
    Value,
    /// The prefix of a token.
    Prefix(Shape),
    /// The first line of a private key.
    KeyBegin,
    /// The beginning of its last line.
    KeyEnd,
}

/// How much of the text's end begins some pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Bytes that begin a pattern and are not all of it.
    pub(super) length: usize,
    /// Bytes that begin a form of a value and are too much of it to be shown; 0 if there are none.
    pub(super) harmful: usize,
}

/// What is looked for.
pub(super) struct Table {
    machine: NFA,
    start: StateID,
    found: Vec<Found>,
    ends: HashMap<StateID, Ends>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("patterns", &self.found.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// A table of these forms, and of the known tokens and keys if they are wanted; none if there is
    /// nothing to look for.
    ///
    /// # Errors
    /// If it is more than an automaton can have.
    pub(super) fn new(forms: BTreeSet<Vec<u8>>, shapes: bool) -> Result<Option<Self>, Refused> {
        let mut found = vec![Found::Value; forms.len()];
        let mut patterns: Vec<Vec<u8>> = forms.into_iter().collect();
        if shapes {
            let prefixes = SHAPES.map(|shape| (shape.prefix, Found::Prefix(shape)));
            let begins = KEY_BEGINS.map(|begin| (begin, Found::KeyBegin));
            let all = prefixes.into_iter().chain(begins);
            for (pattern, what) in all.chain([(KEY_END, Found::KeyEnd)]) {
                patterns.push(pattern.as_bytes().to_vec());
                found.push(what);
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        // A prefilter would be asked at the start state only, which text hardly ever is in.
        let machine = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&patterns)
            .map_err(|_too_many_states| Refused::TooMany)?;
        let start = machine
            .start_state(Anchored::No)
            .map_err(|_never_without_anchors| Refused::TooMany)?;
        let ends = ends(&machine, start, &patterns, &found);
        Ok(Some(Self {
            machine,
            start,
            found,
            ends,
        }))
    }

    pub(super) const fn start(&self) -> StateID {
        self.start
    }

    /// What the end of the text in this state begins.
    pub(super) fn ends(&self, state: StateID) -> Ends {
        self.ends.get(&state).copied().unwrap_or_default()
    }

    /// Goes on to the next match, or to the end: how many bytes it took, where it stands then, and
    /// whether that is because of a match.
    pub(super) fn run(&self, state: StateID, bytes: &[u8]) -> (usize, StateID, bool) {
        let mut state = state;
        for (index, byte) in bytes.iter().enumerate() {
            if is_terminator(*byte) {
                continue;
            }
            state = self.machine.next_state(Anchored::No, state, *byte);
            if self.is_match(state) {
                return (index + 1, state, true);
            }
        }
        (bytes.len(), state, false)
    }

    fn is_match(&self, state: StateID) -> bool {
        self.machine.is_special(state) && self.machine.is_match(state)
    }

    /// All patterns that end in this state, with their lengths.
    pub(super) fn found(&self, state: StateID) -> impl Iterator<Item = (Found, usize)> {
        (0..self.machine.match_len(state)).map(move |index| {
            let pattern = self.machine.match_pattern(state, index);
            (self.found[pattern], self.machine.pattern_len(pattern))
        })
    }

    /// Bytes of the longest pattern.
    pub(super) fn longest(&self) -> usize {
        self.machine.max_pattern_len()
    }
}

/// Walks every pattern through the automaton: behind its first n bytes it is in the state that
/// stands for just these.
fn ends(
    machine: &NFA,
    start: StateID,
    patterns: &[Vec<u8>],
    found: &[Found],
) -> HashMap<StateID, Ends> {
    let mut ends: HashMap<StateID, Ends> = HashMap::new();
    // Where each state stands without its first byte.
    let mut shorter = Vec::new();
    for (pattern, found) in patterns.iter().zip(found) {
        let harmless = match found {
            Found::Value => HARMLESS_BYTES.min(pattern.len().div_ceil(2)),
            _ => usize::MAX,
        };
        let (mut state, mut fallback) = (start, start);
        for (index, byte) in pattern.iter().enumerate() {
            let length = index + 1;
            state = machine.next_state(Anchored::No, state, *byte);
            if index > 0 {
                fallback = machine.next_state(Anchored::No, fallback, *byte);
            }
            let known = ends.entry(state).or_insert_with(|| {
                shorter.push((length, state, fallback));
                Ends::default()
            });
            // A whole pattern is masked, and need not wait for anything.
            if length < pattern.len() {
                known.length = length;
                if length >= harmless {
                    known.harmful = length;
                }
            }
        }
    }
    // What begins no pattern, or a harmless part of one, may end with more of another.
    shorter.sort_unstable_by_key(|(length, ..)| *length);
    for (_length, state, fallback) in shorter {
        let inherited = ends.get(&fallback).copied().unwrap_or_default();
        if let Some(known) = ends.get_mut(&state) {
            // Longer ones win, and a state's own are longer than those of its fallback.
            known.length = known.length.max(inherited.length);
            known.harmful = known.harmful.max(inherited.harmful);
        }
    }
    ends
}
