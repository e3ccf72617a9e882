//! Many idle viewers: their cost, and how fast they connect all at once.

use std::time::Duration;

use runcast_tests::crowd::{Crowd, CrowdPlan};

use crate::measure::{median, say, spread};
use crate::side::{Name, Side};
use crate::{CROWD_DEADLINE, Scale, connect_crowd, whole};

/// How long viewers are idle before they are counted.
const IDLE_PERIOD: Duration = Duration::from_secs(2);

/// Memory of a server per viewer.
pub(crate) async fn idle(scale: Scale) {
    say(format_args!(
        "\nIdle: {} viewers of one channel, each of which has seen one message; PSS of the server by smaps_rollup, \
         with one viewer and with all\n\n\
         | | KiB with one | KiB with all | bytes per viewer |\n|---|---|---|---|",
        scale.many
    ));
    for name in Name::ALL {
        match weigh(name, scale.many).await {
            Ok((one, all)) => say(format_args!(
                "| {name} | {one:.0} | {all:.0} | {:.0} |",
                (all - one) * 1024.0 / (scale.many - 1) as f64
            )),
            Err(reason) => say(format_args!("| {name} | failed: {reason} | | |")),
        }
    }
}

async fn weigh(name: Name, viewers: usize) -> Result<(f64, f64), String> {
    let mut side = Side::start(name, 1).await;
    let one = connect_crowd(&mut side, 1, false)?;
    tokio::time::sleep(IDLE_PERIOD).await;
    let with_one = side.pss_kib();
    // Later viewers receive the first message or not, depending on whether their server keeps it.
    let rest = Crowd::start(CrowdPlan {
        viewers: viewers - 1,
        address: side.address,
        request: side.request(),
        first: Box::new(|_| 0),
        reconnects: false,
        max_connecting: 256,
        record_all: false,
    });
    rest.wait_all_open(CROWD_DEADLINE)?;
    side.publisher.burst(1);
    for crowd in [&one, &rest] {
        crowd.wait_all_received(2, CROWD_DEADLINE)?;
    }
    tokio::time::sleep(IDLE_PERIOD).await;
    whole(&rest, viewers - 1)?;
    Ok((with_one, side.pss_kib()))
}

/// All connect at the same moment.
pub(crate) async fn burst(scale: Scale) {
    let names = Name::ALL;
    let mut figures = vec![[const { Vec::new() }; 3]; names.len()];
    let mut failures = Vec::new();
    for _ in 0..scale.rounds {
        for (&name, columns) in names.iter().zip(&mut figures) {
            match come(name, scale.many).await {
                Ok(took) => {
                    for (column, figure) in columns.iter_mut().zip(took) {
                        column.push(figure);
                    }
                }
                Err(reason) => failures.push(format!("{name}: {reason}")),
            }
        }
    }
    say(format_args!(
        "\nBurst: {} viewers connect at once, {} rounds in turn, ms, median (least .. most)\n\n\
         | | until all streams are open | each, p50 | each, p99 |\n|---|---|---|---|",
        scale.many, scale.rounds
    ));
    for (name, [all, p50, p99]) in names.iter().zip(&figures) {
        say(format_args!(
            "| {name} | {} | {:.0} | {:.0} |",
            spread(all, 0),
            median(p50),
            median(p99),
        ));
    }
    for failure in failures {
        say(format_args!("\nFailed: {failure}"));
    }
}

async fn come(name: Name, viewers: usize) -> Result<[f64; 3], String> {
    let side = Side::start(name, 1).await;
    let crowd = Crowd::start(CrowdPlan {
        viewers,
        address: side.address,
        request: side.request(),
        first: Box::new(|_| 0),
        reconnects: false,
        max_connecting: viewers,
        record_all: false,
    });
    let took = crowd.wait_all_open(CROWD_DEADLINE)?;
    whole(&crowd, viewers)?;
    let each = crowd.open_times();
    Ok([
        took.as_secs_f64() * 1e3,
        each.quantile_ms(0.5),
        each.quantile_ms(0.99),
    ])
}
