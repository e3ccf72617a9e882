//! From a command to a browser: headless Chromium shows lines of a command that is still running.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::MAX_ENTRY_EVENTS;
use runcast_tests::api::Api;
use runcast_tests::event_lines::numbered_lines;
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::oidc_provider::Algorithm;
use runcast_tests::process::{ProcessSpec, shell_exit_code};
use runcast_tests::programs::repository;
use runcast_tests::publisher::Publisher;
use runcast_tests::stack::Stack;
use tempfile::TempDir;
use uuid::Uuid;

use crate::access::fixtures::{USER_PASSWORD, user};
use crate::access::oidc::fixture::Scene;
use crate::dev;

/// Longest time for a browser to start and run its test.
const BROWSER_DEADLINE: Duration = Duration::from_secs(150);

/// PATH with a `node` that is recent enough for the tools of the page.
pub(crate) fn path_with_node() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let node = Command::new(repository().join("deploy/local/node")).output();
        let node = node.expect("deploy/local/node runs");
        let folder = String::from_utf8(node.stdout).expect("a path in UTF-8");
        assert!(node.status.success(), "deploy/local/node found no node");
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", folder.trim())
    });
    &PATH
}

/// Runs one end-to-end test of the page of a stack in a browser.
async fn play(stack: &Stack, story: &str, run: Uuid, settings: &[(&str, String)]) {
    let token = ("RUNCAST_E2E_TOKEN", stack.token().to_owned());
    let settings = [&[token], settings].concat();
    play_at(stack.api().base(), stack.folder(), story, run, &settings).await;
}

/// Runs one end-to-end test of the page at this address in a browser, which leaves its logs in
/// `folder`.
async fn play_at(url: &str, folder: &Path, story: &str, run: Uuid, settings: &[(&str, String)]) {
    let web = repository().join("api/web");
    assert!(
        web.join("node_modules").is_dir() && web.join("dist/index.html").is_file(),
        "the page is not built: call tests/run, or `npm ci && npm run build` in api/web before cargo"
    );
    let arguments = ["run", "e2e", "--", story];
    let browser = ProcessSpec::new("browser", "npm", &arguments, &web).with_env([
        ("PATH", path_with_node().to_owned()),
        ("RUNCAST_E2E_URL", url.to_owned()),
        ("RUNCAST_E2E_RUN", run.to_string()),
    ]);
    let browser = browser.with_env(settings.iter().cloned());
    // The caller of the tests chooses the browser, and where to save a screenshot.
    let chosen = ["RUNCAST_E2E_BROWSER", "RUNCAST_E2E_SHOT"];
    let chosen = chosen.map(|name| Some((name, std::env::var(name).ok()?)));
    let browser = browser.with_env(chosen.into_iter().flatten());
    let mut browser = browser.start(folder);
    let status = browser.wait_exit(BROWSER_DEADLINE).await;
    let logs = browser.logs();
    assert!(
        status.success(),
        "the browser test failed ({status})\n{logs}"
    );
    // The time until the first lines are visible is printed, but not judged.
    writeln!(std::io::stderr(), "{logs}").expect("stderr takes a text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_shows_a_running_command() {
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("ticks").await.id;
    let script = "i=1; while [ $i -le 3000 ]; do echo tick $i; i=$((i+1)); sleep 0.2; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    stack.database.wait_stored_events(run, 3).await;
    play(&stack, "run.spec", run, &[]).await;
    assert!(
        wrap.try_wait().is_none(),
        "the command must run longer than the browser"
    );

    wrap.signal(Signal::SIGTERM);
    wrap.wait_exit(WAIT_DEADLINE).await;
    stack.database.wait_sealed(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_signs_in_with_password() {
    let stack = Stack::start().await;
    user(&stack, "ada", &["viewer"]).await;
    let settings = [
        ("RUNCAST_E2E_USER", "ada".to_owned()),
        ("RUNCAST_E2E_PASSWORD", USER_PASSWORD.to_owned()),
    ];
    play(&stack, "session.spec", Uuid::nil(), &settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_signs_in_with_oidc() {
    let name = [("RUNCAST_OIDC_NAME", "Example")];
    let mut scene = Scene::prepare(Algorithm::Rs256, &name).await;
    scene.stack.start_all().await;
    user(&scene.stack, "ada", &["viewer"]).await;
    scene
        .provider
        .set_authorization_error(Some(("access_denied", "")));
    play(&scene.stack, "issuer-denied.spec", Uuid::nil(), &[]).await;
    scene.provider.set_authorization_error(None);
    play(&scene.stack, "issuer.spec", Uuid::nil(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_opens_long_run_at_end_and_seeks() {
    const LINE_COUNT: u64 = 200_000;
    let stack = Stack::start().await;
    let run = stack.api().create_run("long").await;
    let connection = run.publisher_connection().await;
    let mut publisher = Publisher::new(connection, stack.keys(), run.id);
    let mut last = EventId::ZERO;
    for entry in numbered_lines("line", 1..=LINE_COUNT).chunks(MAX_ENTRY_EVENTS) {
        last = publisher.publish(entry).await;
    }
    stack.database.wait_stored(run.id, last).await;
    let lines = [("RUNCAST_E2E_LINES", LINE_COUNT.to_string())];
    play(&stack, "long.spec", run.id, &lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_signs_in_by_a_one_time_link_once() {
    let folder = TempDir::with_prefix("runcast-dev-").expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let (mut dev, url) = dev::start(folder.path(), "dev").await;
    let token = fs::read_to_string(folder.path().join("data/token")).expect("a token");
    let run = Api::new(&url, token.trim()).create_run("linked").await.id;
    let code = ("RUNCAST_E2E_CODE", dev::sign_in_code(&dev));
    play_at(&url, folder.path(), "sign-in-link.spec", run, &[code]).await;
    dev.signal(Signal::SIGTERM);
    let code = shell_exit_code(dev.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", dev.logs());
}
