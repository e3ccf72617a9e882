//! From a command to a browser: headless Chromium sees lines of a command that is still running.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_tests::eventually::SOON;
use runcast_tests::process::Recipe;
use runcast_tests::programs::repository;
use runcast_tests::stack::Stack;

/// Longest time for a browser to start and to play its story.
const BROWSER_DEADLINE: Duration = Duration::from_secs(150);

/// PATH with a `node` that is new enough for the page's tools.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_a_command_that_is_still_running() {
    let repository = repository();
    let web = repository.join("api/web");
    assert!(
        web.join("node_modules").is_dir() && web.join("dist/index.html").is_file(),
        "the page is not built: call tests/run, or `npm ci && npm run build` in api/web before cargo"
    );
    let mut stack = Stack::start().await;
    let run = stack.api().create_run("ticks").await.id;
    let script = "i=1; while [ $i -le 3000 ]; do echo tick $i; i=$((i+1)); sleep 0.2; done";
    let mut wrap = stack.wrap(run, &["sh", "-c", script]);
    stack.database.holds_events(run, 3).await;

    let browser = Recipe::new("browser", "npm", &["run", "e2e"], &web).with([
        ("PATH", path_with_node().to_owned()),
        ("RUNCAST_E2E_URL", stack.api().base().to_owned()),
        ("RUNCAST_E2E_TOKEN", stack.token().to_owned()),
        ("RUNCAST_E2E_RUN", run.to_string()),
    ]);
    // Which browser, and where to leave a picture: chosen by whoever calls the tests.
    let chosen = ["RUNCAST_E2E_BROWSER", "RUNCAST_E2E_SHOT"];
    let chosen = chosen.map(|name| Some((name, std::env::var(name).ok()?)));
    let browser = browser.with(chosen.into_iter().flatten());
    let mut browser = browser.start(stack.folder());
    let status = browser.ended(BROWSER_DEADLINE).await;
    assert!(
        status.success(),
        "the browser's story failed ({status})\n{}",
        browser.logs()
    );
    assert!(
        wrap.exited().is_none(),
        "the command was to run longer than the browser"
    );

    wrap.signal(Signal::SIGTERM);
    wrap.ended(SOON).await;
    stack.database.sealed(run).await;
}
