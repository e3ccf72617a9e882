//! Waiting in stories: for a condition, with a deadline and a message that says what was seen last.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// Long enough for anything that should be a matter of a second, on a loaded machine.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(30);

/// Shortest and longest pause between two looks at a condition.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Looks again and again until `look` gives a value, for [`WAIT_DEADLINE`] at most.
///
/// # Panics
/// When time is up: with `what`, and with what `look` said it saw last.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(WAIT_DEADLINE, what, look).await
}

/// As [`eventually`], with a deadline of its own.
///
/// # Panics
/// When time is up: with `what`, and with what `look` said it saw last.
pub async fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut pause = PAUSE.0;
    let mut seen = String::from("nothing: the first look did not come back");
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match timeout(left, look()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(state)) => seen = state,
            Err(_elapsed) => {}
        }
        assert!(
            start.elapsed() < deadline,
            "{what}: not within {deadline:?}; seen last: {seen}"
        );
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Waits for a future, for `deadline` at most.
///
/// # Panics
/// When time is up, with `what`.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match timeout(deadline, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what}: not within {deadline:?}"),
    }
}
