//! When the sending task does something, as opposed to what: how long an open batch may grow, when
//! to ask what Postgres holds, and how long a full run is left alone.
//!
//! Data: four points in time and two backoffs; nothing here waits or sends.

use std::time::Duration;

use runcast_common::backoff::Backoff;
use tokio::time::Instant;

/// Longest wait of an event for company. Five milliseconds are not seen by a viewer, and bound a
/// lively stream of small events to 200 entries a second.
pub(crate) const LINGER: Duration = Duration::from_millis(5);

/// How many batches may leave without lingering before the bound takes hold. At a mean of 100 events a
/// second, however unevenly they come, practically none waits.
const AT_ONCE: u32 = 16;

/// First wait before asking what Postgres holds: a persister that keeps up has stored it by then.
pub(crate) const POKE_FIRST: Duration = Duration::from_millis(100);

/// Longest wait between two such questions, while Postgres is down or far behind.
const POKE_MOST: Duration = Duration::from_secs(1);

/// Waits between attempts after `full`: the persister frees room within tens of milliseconds, or
/// is down.
const FULL_FIRST: Duration = Duration::from_millis(20);
const FULL_MOST: Duration = Duration::from_secs(1);

/// The sending task's sense of time.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the batches sent so far would be through, were each to take [`LINGER`]: the generic cell rate
    /// algorithm, by which a short burst leaves at once and a long one lingers.
    through_at: Instant,
    poke: Backoff,
    poke_at: Option<Instant>,
    patience: Backoff,
    resume_at: Option<Instant>,
}

impl Pace {
    /// Nothing has been sent for long.
    pub(crate) fn new() -> Self {
        Self {
            through_at: Instant::now(),
            poke: Backoff::new(POKE_FIRST, POKE_MOST),
            poke_at: None,
            patience: Backoff::new(FULL_FIRST, FULL_MOST),
            resume_at: None,
        }
    }

    /// A new connection: nothing of the old one is waited for.
    pub(crate) const fn start_over(&mut self) {
        (self.poke_at, self.resume_at) = (None, None);
    }

    /// A batch was sent. Many full ones in a row leave no more than one [`LINGER`] to wait.
    pub(crate) fn sent(&mut self, now: Instant) {
        let most = now + LINGER * AT_ONCE;
        self.through_at = (self.through_at.max(now) + LINGER).min(most);
    }

    /// Until when an open batch is left to grow; not in the future unless many have just been sent.
    pub(crate) fn linger_until(&self) -> Instant {
        let ahead = LINGER * (AT_ONCE - 1);
        self.through_at
            .checked_sub(ahead)
            .unwrap_or(self.through_at)
    }

    /// True if batches may be appended.
    pub(crate) fn may_append(&mut self, now: Instant) -> bool {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
        }
        self.resume_at.is_none()
    }

    /// Nothing shall be appended for a while, longer each time until [`advanced`](Self::advanced).
    pub(crate) fn pause(&mut self) {
        self.resume_at = Some(Instant::now() + self.patience.next_wait());
    }

    /// Sending starts over. Once is a loss; again without progress is a quarrel, and that must not
    /// go on at full speed.
    pub(crate) fn rewound(&mut self) {
        if self.is_advancing() {
            self.patience.next_wait();
        } else {
            self.pause();
        }
    }

    /// True if nothing has gone wrong since the last append that succeeded.
    pub(crate) const fn is_advancing(&self) -> bool {
        self.patience.attempts() == 0
    }

    /// An append succeeded.
    pub(crate) const fn advanced(&mut self) {
        self.patience.reset();
    }

    /// Everything is durable, or more of it than before: the next question comes early again.
    pub(crate) const fn heard(&mut self) {
        self.poke.reset();
    }

    /// There is nothing to ask.
    pub(crate) const fn nothing_to_ask(&mut self) {
        self.poke_at = None;
        self.poke.reset();
    }

    /// True if the time has come to ask what Postgres holds; plans the next time.
    pub(crate) fn must_ask(&mut self, now: Instant) -> bool {
        let due = self.poke_at.is_some_and(|at| at <= now);
        if due || self.poke_at.is_none() {
            self.poke_at = Some(now + self.poke.next_wait());
        }
        due
    }

    /// When something is due next, beside a batch that lingers.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.resume_at.into_iter().chain(self.poke_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_burst_leaves_at_once_and_a_long_one_lingers() {
        let mut pace = Pace::new();
        let start = Instant::now();
        for _ in 0..AT_ONCE {
            assert!(pace.linger_until() <= start);
            pace.sent(start);
        }
        assert_eq!(pace.linger_until(), start + LINGER);
        for _ in 0..1000 {
            pace.sent(start);
        }
        assert_eq!(pace.linger_until(), start + LINGER, "however many");
        // 200 a second are sustained, and what is slower never lingers.
        let mut now = start + LINGER * AT_ONCE;
        for _ in 0..1000 {
            assert!(pace.linger_until() <= now);
            pace.sent(now);
            now += LINGER;
        }
    }

    #[tokio::test]
    async fn questions_grow_rare_until_something_is_heard() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        assert!(!pace.must_ask(now), "only planned");
        let mut waits = Vec::new();
        for _ in 0..10 {
            let at = pace.next().expect("planned");
            assert!(!pace.must_ask(at - Duration::from_millis(1)));
            waits.push(at - now);
            now = at;
            assert!(pace.must_ask(now));
        }
        assert!(waits[0] <= POKE_FIRST && waits[9] >= POKE_MOST / 2 && waits[9] <= POKE_MOST);
        pace.nothing_to_ask();
        assert_eq!(pace.next(), None);
        pace.must_ask(now);
        assert!(pace.next().expect("planned") <= now + POKE_FIRST);
    }

    #[tokio::test]
    async fn the_second_rewind_without_progress_waits() {
        let mut pace = Pace::new();
        let now = Instant::now();
        pace.rewound();
        assert!(pace.may_append(now));
        pace.rewound();
        assert!(!pace.may_append(now));
        assert!(pace.may_append(now + FULL_MOST));
        pace.advanced();
        pace.rewound();
        assert!(pace.may_append(now + FULL_MOST));
    }
}
