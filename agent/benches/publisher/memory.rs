//! Resident memory of a process whose publisher is full: Redis is stopped while it works, and
//! events of 200 B are published until there is no room. Then Redis continues, and everything is
//! sent; the peak includes that.
//!
//! Redis stays stopped for longer than the publisher waits for a reply, so the publisher closes the
//! connection and tries to reconnect meanwhile.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use runcast_common::protocol::event::{Kind, Text};
use runcast_common::protocol::limits::REDIS_DEADLINE;
use runcast_publisher::PublishError;
use runcast_publisher::Publisher;
use tokio::time::sleep;

use crate::measure::{self, memory, say};
use crate::server::{PATIENCE, Server, options, spool_folder};

/// How long Redis is stopped.
const STOP_TIME: Duration = Duration::from_secs(2 * REDIS_DEADLINE.as_secs());

pub(crate) async fn run(with_spool: bool) {
    let server = Server::start().await;
    let folder = with_spool.then(spool_folder);
    let target = server.target();
    let publisher = Publisher::start(&target, options(folder.as_ref())).expect("started");
    publisher.connected(PATIENCE).await.expect("connected");
    let settling = server.keep_settled(target.run, publisher.producer().0);
    let texts = measure::texts();
    let mut next = texts.iter().cycle();
    let mut payload = Text::default();
    let before = memory("VmRSS");
    server.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let (mut events, mut full_after) = (0u64, Duration::ZERO);
    while stopped.elapsed() < STOP_TIME {
        payload.text = next.next().map(String::as_str);
        match publisher.try_publish(Kind::Output, &payload) {
            Ok(_seq) => {
                events += 1;
                full_after = stopped.elapsed();
            }
            Err(PublishError::Full) => sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
        // The sending task needs processor time too.
        if events % 1024 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (full, peak) = (memory("VmRSS"), memory("VmHWM"));
    server.signal(Signal::SIGCONT);
    let resumed = Instant::now();
    publisher.flush(PATIENCE).await.expect("flushed");
    let sent_after = resumed.elapsed();
    let closed = publisher.close(PATIENCE).await.expect("closed");
    assert_eq!((closed.stored, closed.unsent), (events, 0));
    settling.abort();
    let way = if with_spool { "spool" } else { "in memory" };
    say(format_args!(
        "\nMemory with Redis stopped for {} s, {way}, MiB\n\n\
         | events taken | their bytes | last one taken after s | RSS before | RSS when full | peak | peak with sending it all | sent after s |\n\
         |---|---|---|---|---|---|---|---|\n\
         | {events} | {:.0} | {:.1} | {before:.0} | {full:.0} | {peak:.0} | {:.0} | {:.1} |",
        STOP_TIME.as_secs(),
        events as f64 * measure::EVENT_BYTES as f64 / f64::from(1 << 20),
        full_after.as_secs_f64(),
        memory("VmHWM"),
        sent_after.as_secs_f64(),
    ));
}
