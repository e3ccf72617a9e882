//! When the sending task acts: how long the open batch may grow, when to query what Postgres holds,
//! and how long a run at its limit is left alone.
//!
//! Data: three points in time and two backoffs. Nothing here waits or sends.

use std::time::Duration;

use runcast_common::backoff::Backoff;
use tokio::time::Instant;

/// Longest time that an event waits for others to share its batch. No viewer notices 5 ms, and they
/// bound a busy stream of small events to 200 entries a second.
pub(super) const LINGER: Duration = Duration::from_millis(5);

/// Batches that may leave without lingering before that bound applies. At a mean of 100 events a
/// second practically no event waits, however unevenly they come.
const MAX_BURST_BATCHES: u32 = 16;

/// First wait before a query of what Postgres holds: a persister that keeps up has stored it by
/// then.
pub(super) const MIN_QUERY_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait between two queries, while Postgres is down or far behind.
const MAX_QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// Wait between two queries while the gateway tells what Postgres holds: in case that a notice was
/// lost.
const TOLD_QUERY_INTERVAL: Duration = Duration::from_secs(15);

/// Shortest and longest wait between attempts after `full`: the persister frees room within tens of
/// milliseconds, or is down.
const MIN_FULL_WAIT: Duration = Duration::from_millis(20);
const MAX_FULL_WAIT: Duration = Duration::from_secs(1);

/// The timers of the sending task.
#[derive(Debug)]
pub(super) struct SendSchedule {
    /// When the batches sent so far would be through if each took [`LINGER`]. This is the generic
    /// cell rate algorithm: a short burst leaves at once, a long one lingers.
    drained_at: Instant,
    query_backoff: Backoff,
    query_at: Option<Instant>,
    full_backoff: Backoff,
    resume_at: Option<Instant>,
}

impl SendSchedule {
    pub(super) fn new() -> Self {
        Self {
            drained_at: Instant::now(),
            query_backoff: Backoff::new(MIN_QUERY_INTERVAL, MAX_QUERY_INTERVAL),
            query_at: None,
            full_backoff: Backoff::new(MIN_FULL_WAIT, MAX_FULL_WAIT),
            resume_at: None,
        }
    }

    /// Forgets the timers of the previous connection.
    pub(super) const fn reset_timers(&mut self) {
        (self.query_at, self.resume_at) = (None, None);
    }

    /// A batch was sent. However many leave in a row, the next one lingers at most [`LINGER`].
    pub(super) fn on_sent(&mut self, now: Instant) {
        let latest = now + LINGER * MAX_BURST_BATCHES;
        self.drained_at = (self.drained_at.max(now) + LINGER).min(latest);
    }

    /// Until when the open batch may keep growing. In the past unless many batches were just sent.
    pub(super) fn linger_until(&self) -> Instant {
        let burst = LINGER * (MAX_BURST_BATCHES - 1);
        self.drained_at
            .checked_sub(burst)
            .unwrap_or(self.drained_at)
    }

    pub(super) fn may_append(&mut self, now: Instant) -> bool {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
        }
        self.resume_at.is_none()
    }

    /// Stops appending for a while, longer each time until [`on_advance`](Self::on_advance).
    pub(super) fn pause(&mut self) {
        self.resume_at = Some(Instant::now() + self.full_backoff.next_wait());
    }

    /// Sending restarts at an earlier event. The first rewind is a loss and needs no wait. Another
    /// one without progress in between means that both sides disagree, and must not repeat at full
    /// speed.
    pub(super) fn on_rewind(&mut self) {
        if self.is_advancing() {
            self.full_backoff.next_wait();
        } else {
            self.pause();
        }
    }

    /// Whether nothing has failed since the last append that succeeded.
    pub(super) const fn is_advancing(&self) -> bool {
        self.full_backoff.attempts() == 0
    }

    /// An append succeeded.
    pub(super) const fn on_advance(&mut self) {
        self.full_backoff.reset();
    }

    /// More events are durable than before: the next query comes early again.
    pub(super) const fn on_durable(&mut self) {
        self.query_backoff.reset();
    }

    /// Everything is durable, so there is nothing to query.
    pub(super) const fn stop_queries(&mut self) {
        self.query_at = None;
        self.query_backoff.reset();
    }

    /// Whether a query is due now; then plans the next one. `is_told` while the gateway tells what
    /// a query would ask.
    pub(super) fn is_query_due(&mut self, now: Instant, is_told: bool) -> bool {
        let is_due = self.query_at.is_some_and(|at| at <= now);
        if is_due || self.query_at.is_none() {
            let wait = match is_told {
                true => TOLD_QUERY_INTERVAL,
                false => self.query_backoff.next_wait(),
            };
            self.query_at = Some(now + wait);
        }
        is_due
    }

    /// The next timer, apart from a batch that lingers.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.resume_at.into_iter().chain(self.query_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_burst_is_sent_at_once_and_a_long_one_lingers() {
        let mut schedule = SendSchedule::new();
        let start = Instant::now();
        for _ in 0..MAX_BURST_BATCHES {
            assert!(schedule.linger_until() <= start);
            schedule.on_sent(start);
        }
        assert_eq!(schedule.linger_until(), start + LINGER);
        for _ in 0..1000 {
            schedule.on_sent(start);
        }
        assert_eq!(schedule.linger_until(), start + LINGER, "however many");
        // 200 batches a second are sustained, and a slower stream never lingers.
        let mut now = start + LINGER * MAX_BURST_BATCHES;
        for _ in 0..1000 {
            assert!(schedule.linger_until() <= now);
            schedule.on_sent(now);
            now += LINGER;
        }
    }

    #[tokio::test]
    async fn queries_back_off_until_something_is_durable() {
        let mut schedule = SendSchedule::new();
        let mut now = Instant::now();
        assert!(!schedule.is_query_due(now, false), "only planned");
        let mut waits = Vec::new();
        for _ in 0..10 {
            let at = schedule.next_timer().expect("planned");
            assert!(!schedule.is_query_due(at - Duration::from_millis(1), false));
            waits.push(at - now);
            now = at;
            assert!(schedule.is_query_due(now, false));
        }
        assert!(
            waits[0] <= MIN_QUERY_INTERVAL
                && waits[9] >= MAX_QUERY_INTERVAL / 2
                && waits[9] <= MAX_QUERY_INTERVAL
        );
        schedule.stop_queries();
        assert_eq!(schedule.next_timer(), None);
        schedule.is_query_due(now, false);
        assert!(schedule.next_timer().expect("planned") <= now + MIN_QUERY_INTERVAL);
    }

    #[tokio::test]
    async fn the_second_rewind_without_progress_waits() {
        let mut schedule = SendSchedule::new();
        let now = Instant::now();
        schedule.on_rewind();
        assert!(schedule.may_append(now));
        schedule.on_rewind();
        assert!(!schedule.may_append(now));
        assert!(schedule.may_append(now + MAX_FULL_WAIT));
        schedule.on_advance();
        schedule.on_rewind();
        assert!(schedule.may_append(now + MAX_FULL_WAIT));
    }
}
