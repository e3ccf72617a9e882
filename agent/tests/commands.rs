//! The commands of a run against a real Redis: each arrives at least once, is published in the run
//! stream, and is deleted once it is answered. The ACL of an agent suffices for all of it.

mod support;

use std::time::Duration;

use runcast_common::commands::{
    CommandResult, MAX_PENDING_COMMANDS, STREAM_START, SendCommand, read,
};
use runcast_common::connect::Redis;
use runcast_common::protocol::event::{Action, Control, ControlState, Kind};
use runcast_common::protocol::event_id::EventId;
use runcast_common::redis;
use runcast_common::scripts::{LiveWindow, Settle, SettleOutcome};
use runcast_publisher::Publisher;
use runcast_publisher::{Command, Commands, Options};
use support::{PATIENCE, Run, Server};
use tokio::time::timeout;
use uuid::Uuid;

async fn send_command(run: &Run, action: Action, variations: &[u16]) -> (Uuid, CommandResult) {
    let id = Uuid::now_v7();
    let give = SendCommand {
        id,
        action,
        by: "test",
        data: "",
        variations,
    };
    let given = run
        .redis
        .run(run.keys.slot, async |connection| {
            give.call(&run.keys, connection).await
        })
        .await
        .expect("a reply");
    (id, given)
}

async fn next(commands: &mut Commands) -> Command {
    timeout(PATIENCE, commands.next())
        .await
        .expect("in time")
        .expect("a command")
}

async fn pending_commands(run: &Run) -> u64 {
    let length = redis::cmd("XLEN").arg(&run.keys.control).to_owned();
    run.redis
        .query(run.keys.slot, &length)
        .await
        .expect("a reply")
}

/// Command and state of each control event so far.
async fn control_events(run: &Run) -> Vec<(Uuid, ControlState)> {
    let events = run.events().await;
    let events = events.iter().map(|event| {
        let value: serde_json::Value = serde_json::from_slice(&event.line).expect("JSON");
        assert_eq!(value["kind"], Kind::Control.name(), "{value}");
        let control: Control = serde_json::from_slice(&event.line).expect("a control event");
        (control.id, control.state)
    });
    events.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_received_answered_and_deleted_with_the_agent_acl() {
    let server = Server::start().await;
    let target = server.restricted().await;
    let run = Run::of(&target, &server);
    // One command waits already, one arrives while the agent reads, one is for another variation.
    let (early, _) = send_command(&run, Action::Cancel, &[0]).await;
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let mut commands = publisher.commands();
    let first = next(&mut commands).await;
    assert_eq!((first.id(), first.action()), (early, Action::Cancel));
    assert_eq!((first.by(), first.data()), ("test", ""));
    let (late, _) = send_command(&run, Action::Pause, &[0, 1]).await;
    let second = next(&mut commands).await;
    assert_eq!(second.id(), late);
    first.done().await.expect("published");
    second.refuse("not now").await.expect("published");

    assert_eq!(
        pending_commands(&run).await,
        1,
        "that of the other variation stays"
    );
    use ControlState::{Done, Received, Refused};
    let expected = [
        (early, Received),
        (late, Received),
        (early, Done),
        (late, Refused),
    ];
    assert_eq!(control_events(&run).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_repeats_no_command_and_a_new_process_gets_unanswered_ones() {
    let server = Server::start().await;
    let target = server.restricted().await;
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    let mut commands = publisher.commands();
    let (first, _) = send_command(&run, Action::Cancel, &[0]).await;
    let unanswered = next(&mut commands).await;
    let mut users = redis::cmd("ACL");
    users.arg("USERS");
    let users: Vec<String> = run
        .redis
        .query(run.keys.slot, &users)
        .await
        .expect("a list of users");
    let of_run = users.iter().find(|user| *user != "default");
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("USER").arg(of_run.expect("its user"));
    run.redis
        .query::<u64>(run.keys.slot, &kill)
        .await
        .expect("killed");
    let (second, _) = send_command(&run, Action::Cancel, &[0]).await;
    let answered = next(&mut commands).await;
    assert_eq!(answered.id(), second, "the first does not come twice");
    answered.done().await.expect("published");
    drop((unanswered, commands));
    publisher.close(Duration::ZERO).await.expect("closed");

    let successor = Publisher::start(&target, Options::default()).expect("started");
    let mut commands = successor.commands();
    let again = next(&mut commands).await;
    assert_eq!(again.id(), first);
    again.done().await.expect("published");
    assert_eq!(pending_commands(&run).await, 0);
    // The end of the publisher ends its commands.
    successor.close(Duration::ZERO).await.expect("closed");
    let end = timeout(PATIENCE, commands.next()).await.expect("in time");
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_commands_are_bounded_and_expire_with_the_run() {
    let server = Server::start().await;
    let target = server.target();
    let run = Run::of(&target, &server);
    let all: Vec<u16> = (0..256).collect();
    for _ in 0..MAX_PENDING_COMMANDS / all.len() {
        assert_eq!(
            send_command(&run, Action::Cancel, &all).await.1,
            CommandResult::Waiting
        );
    }
    assert_eq!(
        send_command(&run, Action::Cancel, &[0]).await.1,
        CommandResult::Full
    );
    assert_eq!(pending_commands(&run).await, MAX_PENDING_COMMANDS as u64);
    let life = redis::cmd("TTL").arg(&run.keys.control).to_owned();
    assert!(
        run.redis
            .query::<i64>(run.keys.slot, &life)
            .await
            .expect("a reply")
            > 0
    );

    let publisher = Publisher::start(&target, Options::default()).expect("started");
    publisher.output("the end\n").await.expect("published");
    publisher.flush(PATIENCE).await.expect("flushed");
    let last = run.events().await.last().expect("an event").id;
    let settle = |watermark: EventId, sealed| Settle {
        watermark,
        sealed,
        ready_ids: &[],
        durable: &[],
        window: LiveWindow::default(),
    };
    for (sealed, left) in [(None, MAX_PENDING_COMMANDS as u64), (Some("cancelled"), 0)] {
        let settle = settle(last, sealed);
        let settled = run
            .redis
            .run(run.keys.slot, async |connection| {
                settle.call(&run.keys, connection).await
            })
            .await;
        assert_eq!(settled.expect("settled"), SettleOutcome::Clean);
        assert_eq!(pending_commands(&run).await, left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_acl_suffices_and_does_not_allow_reading_runs() {
    let server = Server::start().await;
    let target = server.restricted().await;
    let run = Run::of(&target, &server);
    let publisher = Publisher::start(&target, Options::default()).expect("started");
    for number in 1..=100 {
        let line = format!("line {number}\n");
        publisher.output(&line).await.expect("published");
    }
    publisher.flush(PATIENCE).await.expect("flushed");
    let events = run.events().await;
    assert_eq!(events.len(), 100);

    let slot = run.keys.slot;
    let restricted = Redis::new(target.redis.as_ref().expect("an address")).expect("a client");
    let on = |name: &str, key: &str| redis::cmd(name).arg(key).to_owned();
    let read_from = |key: &str| {
        let mut command = redis::cmd("XREAD");
        command.arg("STREAMS").arg(key).arg(STREAM_START).to_owned()
    };
    let length = restricted
        .query::<u64>(slot, &on("XLEN", &run.keys.stream))
        .await;
    length.expect("it may count");
    let quick = read(&run.keys, STREAM_START, Duration::from_millis(1));
    let nothing = restricted.query::<redis::Value>(slot, &quick).await;
    assert_eq!(nothing.expect("it may read"), redis::Value::Nil);
    let last = events[99].id.to_string();
    for command in [
        on("CLUSTER", "RESET").arg("SOFT"),
        on("XRANGE", &run.keys.stream).arg("-").arg("+"),
        &mut read_from(&run.keys.stream),
        &mut read_from(&run.keys.ready),
        on("XDEL", &run.keys.stream).arg(&last),
        on("XADD", &run.keys.control).arg("*").arg("id").arg("x"),
        on("DEL", &run.keys.control).arg(&run.keys.stream),
    ] {
        let refused = restricted.query::<redis::Value>(slot, command).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    }
    assert_eq!(run.events().await.len(), 100);
}
