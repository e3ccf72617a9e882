//! Decides what follows from an attempt: the delivery is done, is tried again later, or is dead.
//!
//! A failed delivery is tried again after a jittered wait that doubles from
//! [`WebhookSettings::first_retry`] up to [`MAX_WAIT`], until [`WebhookSettings::give_up`] has
//! passed since the first attempt. Then it is dead until an operator replays it. A webhook that has
//! failed [`SLOW_AFTER`] times in a row gets one attempt at a time, with pauses that double up to
//! [`MAX_PAUSE`].

use std::time::Duration;

use chrono::Utc;
use rand::RngExt as _;

use crate::attempt::Outcome;
use crate::settings::WebhookSettings;
use runcast_store::webhook_deliveries::{DueDelivery, NextAttempt, SLOW_AFTER};

/// Longest wait between two attempts of a delivery.
const MAX_WAIT: Duration = Duration::from_secs(4 * 3600);

/// Longest pause of a webhook that fails.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

impl WebhookSettings {
    /// What follows from an attempt.
    pub(crate) fn next_attempt(&self, due: &DueDelivery, outcome: &Outcome) -> NextAttempt {
        if outcome.attempt.error.is_none() {
            return NextAttempt::Delivered;
        }
        if outcome.is_gone {
            return NextAttempt::Gone;
        }
        // `hold` pauses the webhook, `wait` this delivery. A receiver may ask for more.
        let failures = due.failures.saturating_add(1);
        let hold = match failures.checked_sub(SLOW_AFTER) {
            Some(beyond @ 0..) => doubled(self.first_retry, beyond, MAX_PAUSE),
            _ => Duration::ZERO,
        };
        let retry_after = outcome.retry_after.unwrap_or_default();
        let hold = hold.max(retry_after);
        let wait = doubled(self.first_retry, due.attempts, MAX_WAIT).max(retry_after);
        let tried_for = due.tried_since.map_or(Duration::ZERO, |since| {
            (Utc::now() - since).to_std().unwrap_or_default()
        });
        if tried_for + wait > self.give_up {
            return NextAttempt::Dead { hold };
        }
        NextAttempt::Again { wait, hold }
    }
}

/// `first` doubled `times` times, up to `max`; of that a random part, at least half.
fn doubled(first: Duration, times: i32, max: Duration) -> Duration {
    let factor = 1_u32 << times.clamp(0, 24);
    let bound = first.saturating_mul(factor).min(max);
    bound.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use runcast_store::webhook_deliveries::DeliveryAttempt;
    use uuid::Uuid;

    use super::*;

    fn due(attempts: i32, failures: i32, hours: i64) -> DueDelivery {
        DueDelivery {
            id: Uuid::nil(),
            webhook: Uuid::nil(),
            url: String::new(),
            secret: vec![].into(),
            body: String::new(),
            attempts,
            failures,
            tried_since: (hours > 0).then(|| Utc::now() - chrono::TimeDelta::hours(hours)),
        }
    }

    fn outcome(status: Option<u16>, retry_after: Option<u64>) -> Outcome {
        let is_success = status.is_some_and(|status| status < 300);
        Outcome {
            attempt: DeliveryAttempt {
                took: Duration::ZERO,
                status,
                error: (!is_success).then(|| "failed".to_owned()),
            },
            is_gone: status == Some(410),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn waits_double_until_a_delivery_is_given_up() {
        let settings = WebhookSettings::default();
        let failed = outcome(Some(500), None);
        let wait = |attempts| match settings.next_attempt(&due(attempts, 0, 0), &failed) {
            NextAttempt::Again { wait, .. } => wait.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!((5..=10).contains(&wait(0)));
        assert!((20..=40).contains(&wait(2)));
        assert!((2 * 3600..=4 * 3600).contains(&wait(30)));
        assert!(matches!(
            settings.next_attempt(&due(20, 0, 25), &failed),
            NextAttempt::Dead { .. }
        ));
        assert_eq!(
            settings.next_attempt(&due(20, 0, 25), &outcome(Some(204), None)),
            NextAttempt::Delivered
        );
        assert_eq!(
            settings.next_attempt(&due(0, 0, 0), &outcome(Some(410), None)),
            NextAttempt::Gone
        );
    }

    #[test]
    fn a_failing_webhook_is_paused_and_retry_after_is_respected() {
        let settings = WebhookSettings::default();
        let hold = |failures, outcome| match settings.next_attempt(&due(0, failures, 0), &outcome) {
            NextAttempt::Again { hold, .. } => hold.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(hold(0, outcome(None, None)), 0);
        assert_eq!(hold(SLOW_AFTER - 2, outcome(None, None)), 0);
        assert!((5..=10).contains(&hold(SLOW_AFTER - 1, outcome(None, None))));
        assert!((450..=900).contains(&hold(1000, outcome(None, None))));
        assert_eq!(hold(0, outcome(Some(429), Some(77))), 77);
    }
}
