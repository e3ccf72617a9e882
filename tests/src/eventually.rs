//! Waits of stories: for a condition, with a deadline and a message that tells the last state.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

/// Enough for anything that normally takes less than a second, on a loaded machine.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(30);

/// Shortest and longest pause between two checks of a condition.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The pause of [`wait_until`], for conditions that are cheap to check and may be short-lived.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// Calls `check` again and again until it returns a value, for [`WAIT_DEADLINE`] at most.
///
/// After the deadline it panics with `what` and with the state that `check` returned last.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(WAIT_DEADLINE, what, check).await
}

/// The same with another deadline.
pub async fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    poll(deadline, what, [MIN_PAUSE, MAX_PAUSE], check).await
}

/// Waits until a condition holds, for [`WAIT_DEADLINE`] at most; panics with `what` after that.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    poll(WAIT_DEADLINE, what, [SHORT_PAUSE; 2], async || {
        let pending = || "the condition does not hold".to_owned();
        holds().await.then_some(()).ok_or_else(pending)
    })
    .await;
}

async fn poll<T>(
    deadline: Duration,
    what: &str,
    [mut pause, max_pause]: [Duration; 2],
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut last_state = String::from("nothing: the first check did not return");
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match timeout(left, check()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(state)) => last_state = state,
            Err(_elapsed) => {}
        }
        assert!(
            start.elapsed() < deadline,
            "{what}: not within {deadline:?}; last state: {last_state}"
        );
        sleep(pause).await;
        pause = (pause * 2).min(max_pause);
    }
}

/// Waits for a future; panics with `what` after `deadline`.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match timeout(deadline, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what}: not within {deadline:?}"),
    }
}
