//! Shared by the stories of webhooks: the operator's commands, and a worker that retries quickly.

use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;

/// The output of `runcastd webhook` with these arguments, and whether it succeeded.
pub(super) async fn webhook(stack: &Stack, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["webhook"], arguments].concat();
    let own = stack.service_spec(Service::Worker).environment;
    let spec = stack.operator_spec(&arguments).with_env(own);
    let mut process = spec.start(stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    let output = [process.stdout(), process.stderr()].concat();
    (
        status.success(),
        String::from_utf8(output).expect("the output is text"),
    )
}

/// Creates a webhook; returns its id and secret.
pub(super) async fn add(stack: &Stack, arguments: &[&str]) -> (String, String) {
    let arguments = [&["add"], arguments].concat();
    let (made, output) = webhook(stack, &arguments).await;
    assert!(made, "{output}");
    let mut lines = output.lines().map(str::to_owned);
    let both = lines.next().zip(lines.next());
    both.expect("an id and a secret")
}

pub(super) async fn listed(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--json"]].concat();
    let (listed, output) = webhook(stack, &arguments).await;
    assert!(listed, "{output}");
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Waits until the only delivery is in this state, and returns it.
pub(super) async fn wait_for_delivery(stack: &Stack, state: &str) -> Value {
    eventually(&format!("the delivery is {state}"), async || {
        let list = listed(stack, &["deliveries"]).await;
        match &list[..] {
            [one] if one["state"] == state => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// A stack with a worker that may send to this machine and retries quickly.
pub(super) async fn with_worker() -> Stack {
    let mut stack = Stack::without_services().await;
    for (name, value) in [
        ("RUNCAST_WEBHOOK_ALLOW", "127.0.0.0/8"),
        ("RUNCAST_WEBHOOK_TIMEOUT", "1s"),
        ("RUNCAST_WEBHOOK_FIRST_RETRY", "200ms"),
    ] {
        stack.set(Service::Worker, name, value);
    }
    stack.start_service(Service::Worker).await;
    stack
}

/// Starts this many runs, each in a transaction of its own.
pub(super) async fn start_runs(stack: &Stack, count: usize) {
    let insert = format!(
        "INSERT INTO runs (id, name, created_by)
         SELECT gen_random_uuid(), 'story', 'story' FROM generate_series(1, {count});
         DO $$ DECLARE run uuid; BEGIN
             FOR run IN SELECT id FROM runs WHERE status = 'pending' LOOP
                 UPDATE runs SET status = 'running' WHERE id = run;
                 COMMIT;
             END LOOP;
         END $$;"
    );
    for statement in insert.splitn(2, ';') {
        stack.database.execute(statement).await;
    }
}
