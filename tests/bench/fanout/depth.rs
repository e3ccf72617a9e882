//! How long a viewer waits for its first event, by how many events it is behind: from Redis, and
//! from Postgres when Redis no longer holds the stream.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use runcast_tests::stack::Service;
use runcast_tests::stamp::stamps;

use crate::measure::{median, quantile, say};
use crate::side::Side;
use crate::{CROWD_DEADLINE, Scale};

const ATTEMPTS_PER_DEPTH: usize = 15;

pub(crate) async fn depth(scale: Scale) {
    let mut side = Side::runcast(1, &[Service::Gateway]).await;
    side.publisher.burst(scale.events);
    let events = scale.events as u64;
    let id = first_event(&side, None).id;
    let epoch = id.split('-').next().expect("an id").to_owned();
    let depths = [1, 10_000.min(events), events];
    say(format_args!(
        "\nDepth: a run of {events} events, from the request until the first event is there, {ATTEMPTS_PER_DEPTH} tries each, ms\n\n\
         | from | events behind | median | most | beside the shallowest |\n|---|---|---|---|---|"
    ));
    let measure = |side: &Side, from: &str| {
        let mut shallowest = None;
        for depth in depths {
            let after = format!("{epoch}-{}", events - depth);
            // The first viewer of a run starts its tail for all others.
            first_event(side, Some(&after));
            let tries: Vec<f64> = (0..ATTEMPTS_PER_DEPTH)
                .map(|_| {
                    let first = first_event(side, Some(&after));
                    assert_eq!(first.number, events - depth + 1, "the event behind {after}");
                    first.took.as_secs_f64() * 1e3
                })
                .collect();
            let own = median(&tries);
            let beside = own / *shallowest.get_or_insert(own);
            say(format_args!(
                "| {from} | {depth} | {own:.1} | {:.1} | {beside:.2} |",
                quantile(&tries, 1.0)
            ));
        }
    };
    measure(&side, "Redis");
    let run = side.runs[0];
    let stack = side.stack();
    stack.start_service(Service::Persister).await;
    stack.database.wait_stored_events(run, events).await;
    // As happens 15 minutes after the last append.
    let mut redis = stack.redis.connection().await;
    let mut command = redis::cmd("UNLINK");
    command.arg(&stack.keys().run(run).stream);
    let _gone: u64 = command.query_async(&mut redis).await.expect("a response");
    // The gateway must not have cached it either.
    stack.kill(Service::Gateway);
    stack.start_service(Service::Gateway).await;
    side.look_up();
    measure(&side, "Postgres");
}

/// The time to the first event of a stream.
struct First {
    id: String,
    number: u64,
    took: Duration,
}

fn first_event(side: &Side, after: Option<&str>) -> First {
    let start = Instant::now();
    let mut stream = TcpStream::connect(side.address).expect("a connection");
    stream
        .set_read_timeout(Some(CROWD_DEADLINE))
        .expect("a deadline");
    let request = (side.request())(0, after);
    stream
        .write_all(request.as_bytes())
        .expect("the request is sent");
    let (mut output, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = stream.read(&mut buffer).expect("a response in time");
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&output));
        output.extend_from_slice(&buffer[..length]);
        // Its id follows its data.
        if let (Some(mark), Some(id)) = (stamps(&output).next(), id_after_first_stamp(&output)) {
            return First {
                id,
                number: mark.number,
                took: start.elapsed(),
            };
        }
    }
}

fn id_after_first_stamp(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let (_, rest) = text.split_once("@@")?;
    let (_, rest) = rest.split_once("\nid: ")?;
    let (id, _) = rest.split_once('\n')?;
    Some(id.to_owned())
}
