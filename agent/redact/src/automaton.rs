//! The search: one Aho-Corasick automaton over all forms of all values and all token prefixes, and,
//! for each of its states, how much of a secret the text would reveal if it stopped there.
//!
//! A state represents the longest suffix of the text that begins some pattern. The automaton does
//! not say how long that suffix is, so this module computes it once, by feeding each pattern to the
//! automaton. Memory: about 20 bytes of automaton and 12 of [`OpenSuffix`] per byte of all forms,
//! at most some 120 MB at the bounds of [`super::secret_value`], and a few MB for a usual
//! environment. The automaton stores the forms as plain text; the environment of the process does
//! too.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};

use super::encodings::is_terminator;
use super::prefix_filter::PrefixFilter;
use super::secret_value::InvalidSecretValue;
use super::token_formats::{KEY_BEGINS, KEY_END};
use super::token_table::{TOKEN_FORMATS, TokenFormat};

/// Length of the start of a secret that may be published if nothing follows it in time; half of the
/// secret if that is less.
pub(super) const MAX_HARMLESS_BYTES: usize = 8;

/// Length of a suffix that [`PrefixFilter`] can find again.
const SHALLOW_BYTES: usize = 2;

/// What a pattern stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum PatternKind {
    /// A form of a value.
    Value,
    /// The prefix of a token.
    Prefix(&'static TokenFormat),
    /// The first line of a private key.
    KeyBegin,
    /// The start of the last line of a private key.
    KeyEnd,
}

/// The suffix of the text that begins some pattern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenSuffix {
    /// Length of the longest suffix that is an incomplete pattern.
    pub(super) length: u32,
    /// Length of the longest one that reveals too much of a value; 0 if there is none.
    pub(super) revealing: u32,
}

/// The automaton, with the kinds of its patterns and the suffixes of its states.
pub(super) struct Automaton {
    nfa: NFA,
    start: StateID,
    kinds: Vec<PatternKind>,
    /// By state, ordered.
    suffixes: Vec<(StateID, OpenSuffix)>,
    filter: Option<PrefixFilter>,
    /// One bit by state: whether its suffix has at most [`SHALLOW_BYTES`].
    shallow: Vec<u64>,
}

impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton")
            .field("patterns", &self.kinds.len())
            .finish_non_exhaustive()
    }
}

impl Automaton {
    /// An automaton for these forms and, if requested, the token formats and keys; none without any
    /// patterns. Fails if there are more than an automaton can hold.
    pub(super) fn new(
        forms: BTreeSet<Vec<u8>>,
        token_formats: bool,
    ) -> Result<Option<Self>, InvalidSecretValue> {
        let mut kinds = vec![PatternKind::Value; forms.len()];
        let mut patterns: Vec<Vec<u8>> = forms.into_iter().collect();
        if token_formats {
            let prefixes = TOKEN_FORMATS.iter();
            let prefixes = prefixes.map(|format| (format.prefix, PatternKind::Prefix(format)));
            let begins = KEY_BEGINS.map(|begin| (begin, PatternKind::KeyBegin));
            let all = prefixes.chain(begins);
            for (pattern, kind) in all.chain([(KEY_END, PatternKind::KeyEnd)]) {
                patterns.push(pattern.as_bytes().to_vec());
                kinds.push(kind);
            }
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        // A prefilter works in the start state only, and text is hardly ever in it.
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&patterns)
            .map_err(|_too_many_states| InvalidSecretValue::TotalTooLong)?;
        let start = nfa
            .start_state(Anchored::No)
            .map_err(|_never_without_anchors| InvalidSecretValue::TotalTooLong)?;
        let suffixes = open_suffixes(&nfa, start, &patterns, &kinds);
        let shallow = shallow_states(&nfa, start, &patterns);
        let filter = PrefixFilter::new(&patterns);
        Ok(Some(Self {
            nfa,
            start,
            kinds,
            suffixes,
            filter,
            shallow,
        }))
    }

    pub(super) const fn start(&self) -> StateID {
        self.start
    }

    /// The suffix that this state represents.
    pub(super) fn open_suffix(&self, state: StateID) -> OpenSuffix {
        let index = self
            .suffixes
            .binary_search_by_key(&state, |(state, _)| *state);
        index
            .map(|index| self.suffixes[index].1)
            .unwrap_or_default()
    }

    /// Reads up to the next match or the end. Returns the number of bytes read, the new state, and
    /// whether it is a match.
    pub(super) fn run(&self, state: StateID, bytes: &[u8]) -> (usize, StateID, bool) {
        let mut state = state;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            if is_terminator(*byte) {
                continue;
            }
            state = self.nfa.next_state(Anchored::No, state, *byte);
            if self.is_match(state) {
                return (at, state, true);
            }
            if let Some(filter) = &self.filter
                && self.is_shallow(state)
                && let Some(from) = at.checked_sub(SHALLOW_BYTES)
                && !bytes[from..at].iter().any(|byte| is_terminator(*byte))
            {
                let next = filter.next(bytes, from);
                // No pattern that starts before `next` is open.
                if next >= at {
                    (at, state) = (next, self.start);
                }
            }
        }
        (at, state, false)
    }

    /// Whether the suffix that a state represents has at most [`SHALLOW_BYTES`].
    fn is_shallow(&self, state: StateID) -> bool {
        let index = state.as_usize();
        let bits = self.shallow.get(index / 64).copied().unwrap_or_default();
        bits >> (index % 64) & 1 == 1
    }

    fn is_match(&self, state: StateID) -> bool {
        self.nfa.is_special(state) && self.nfa.is_match(state)
    }

    /// All patterns that end in this state, with their lengths.
    pub(super) fn matches(&self, state: StateID) -> impl Iterator<Item = (PatternKind, usize)> {
        (0..self.nfa.match_len(state)).map(move |index| {
            let pattern = self.nfa.match_pattern(state, index);
            (self.kinds[pattern], self.nfa.pattern_len(pattern))
        })
    }

    /// Length of the longest pattern.
    pub(super) fn max_pattern_bytes(&self) -> usize {
        self.nfa.max_pattern_len()
    }
}

/// Feeds every pattern to the automaton: after the first n bytes it is in the state that represents
/// just these.
fn open_suffixes(
    nfa: &NFA,
    start: StateID,
    patterns: &[Vec<u8>],
    kinds: &[PatternKind],
) -> Vec<(StateID, OpenSuffix)> {
    let mut suffixes: HashMap<StateID, OpenSuffix> = HashMap::new();
    // 1. The suffix of each state by itself, and the state without the first byte of that suffix.
    let mut fallbacks = Vec::new();
    for (pattern, kind) in patterns.iter().zip(kinds) {
        let harmless = match kind {
            PatternKind::Value => MAX_HARMLESS_BYTES.min(pattern.len().div_ceil(2)),
            _ => usize::MAX,
        };
        let harmless = u32::try_from(harmless).unwrap_or(u32::MAX);
        let pattern_length = u32::try_from(pattern.len()).unwrap_or(u32::MAX);
        let (mut state, mut fallback) = (start, start);
        for (length, byte) in (1..).zip(pattern) {
            state = nfa.next_state(Anchored::No, state, *byte);
            if length > 1 {
                fallback = nfa.next_state(Anchored::No, fallback, *byte);
            }
            let suffix = suffixes.entry(state).or_insert_with(|| {
                fallbacks.push((length, state, fallback));
                OpenSuffix::default()
            });
            // A complete pattern is masked, so nothing of it is open.
            if length < pattern_length {
                suffix.length = length;
                if length >= harmless {
                    suffix.revealing = length;
                }
            }
        }
    }
    // 2. A state also has the suffixes of its fallback: text that begins no pattern, or reveals
    //    little of one, may end with more of another.
    fallbacks.sort_unstable_by_key(|(length, ..)| *length);
    for (_length, state, fallback) in fallbacks {
        let inherited = suffixes.get(&fallback).copied().unwrap_or_default();
        if let Some(suffix) = suffixes.get_mut(&state) {
            // The longest one counts; a state's own is longer than that of its fallback.
            suffix.length = suffix.length.max(inherited.length);
            suffix.revealing = suffix.revealing.max(inherited.revealing);
        }
    }
    let mut suffixes: Vec<(StateID, OpenSuffix)> = suffixes.into_iter().collect();
    suffixes.sort_unstable_by_key(|(state, _)| *state);
    suffixes
}

/// The states that short starts of patterns lead to, and the start itself.
fn shallow_states(nfa: &NFA, start: StateID, patterns: &[Vec<u8>]) -> Vec<u64> {
    let mut shallow = Vec::new();
    let mut add = |state: StateID| {
        let index = state.as_usize();
        if shallow.len() <= index / 64 {
            shallow.resize(index / 64 + 1, 0_u64);
        }
        shallow[index / 64] |= 1 << (index % 64);
    };
    add(start);
    for pattern in patterns {
        let mut state = start;
        for byte in pattern.iter().take(SHALLOW_BYTES) {
            state = nfa.next_state(Anchored::No, state, *byte);
            add(state);
        }
    }
    shallow
}
