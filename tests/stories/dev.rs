//! `runcastd dev` runs everything in one process, with servers of its own, and leaves nothing
//! behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use reqwest::Method;
use runcast_tests::api::{Api, send};
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, ProcessSpec, shell_exit_code};
use runcast_tests::programs;
use tempfile::TempDir;

/// Starts it with the data in `folder`; returns the process and the URL of its page.
pub(crate) async fn start(folder: &Path, name: &str) -> (Process, String) {
    let data = folder.join("data");
    let spec = ProcessSpec::new(name, programs::runcastd(), &["dev"], folder).with_env([
        ("RUNCAST_DATA_DIR", data.to_str().expect("UTF-8")),
        ("RUNCAST_LISTEN", "127.0.0.1:0"),
        ("RUNCAST_LOG_FORMAT", "text"),
    ]);
    let mut process = spec.start(folder);
    let url = process
        .wait_for_line("Runcast is ready at ", WAIT_DEADLINE * 2)
        .await;
    (process, url)
}

/// The code in the sign-in link that it has printed.
pub(crate) fn sign_in_code(dev: &Process) -> String {
    let out = String::from_utf8(dev.stdout()).expect("UTF-8");
    let (before, rest) = out.split_once("/#/sign-in/").expect("a sign-in link");
    assert!(
        !before.contains("Runcast is ready at"),
        "the link is first: {out}"
    );
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// Ids of processes whose command line contains this folder.
fn processes_on(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("UTF-8");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let command = |entry: &fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let holds = |entry: &fs::DirEntry| String::from_utf8_lossy(&command(entry)).contains(folder);
    let found = entries.filter(holds);
    found
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_starts_empty_and_restarts_with_its_data() {
    let folder = TempDir::with_prefix("runcast-dev-").expect("a folder");
    // Its Postgres runs as another user, who needs access to its data.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let (mut dev, url) = start(folder.path(), "first").await;
    let path = folder.path().join("data/token");
    let mode = fs::metadata(&path).expect("a token").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a token is for its owner alone");
    let token = fs::read_to_string(&path)
        .expect("a token")
        .trim()
        .to_owned();

    let command = ["wrap", "--name", "kept", "--", "echo", "hello"];
    let wrap = ProcessSpec::new("wrap", programs::runcast(), &command, folder.path());
    let settings = [("RUNCAST_URL", url.as_str()), ("RUNCAST_TOKEN", &token)];
    let mut wrap = wrap.with_env(settings).start(folder.path());
    assert_eq!(
        shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        wrap.logs()
    );
    let sealed = async |url: &str| {
        eventually("the run is sealed", async || {
            let runs = Api::new(url, &token).get("/v1/runs").await;
            let sealed = (runs["runs"][0]["sealed"] == true).then_some(());
            sealed.ok_or_else(|| runs.to_string())
        })
        .await;
    };
    sealed(&url).await;

    dev.signal(Signal::SIGINT);
    assert_eq!(
        shell_exit_code(dev.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        dev.logs()
    );
    assert_eq!(
        processes_on(folder.path()),
        [""; 0],
        "everything it started has ended"
    );

    let (mut dev, url) = start(folder.path(), "second").await;
    sealed(&url).await;
    let again = fs::read_to_string(&path).expect("a token");
    assert_eq!(again.trim(), token, "the token is unchanged");

    // Even after SIGKILL it leaves no server behind, and it starts again.
    dev.kill();
    eventually("its servers end with it", async || {
        let left = processes_on(folder.path());
        left.is_empty().then_some(()).ok_or_else(|| left.join(" "))
    })
    .await;
    let (mut dev, url) = start(folder.path(), "third").await;
    sealed(&url).await;
    dev.signal(Signal::SIGTERM);
    assert_eq!(
        shell_exit_code(dev.wait_exit(WAIT_DEADLINE).await),
        0,
        "{}",
        dev.logs()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_is_found_by_runcast_and_signs_a_browser_in_once() {
    let folder = TempDir::with_prefix("runcast-dev-").expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let (mut dev, url) = start(folder.path(), "dev").await;
    let data = folder.path().join("data");
    let mode = fs::metadata(data.join("url"))
        .expect("a url")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "the address is for its owner alone");

    // The link's code signs in once.
    let code = sign_in_code(&dev);
    let token = fs::read_to_string(data.join("token")).expect("a token");
    let api = Api::new(&url, token.trim());
    let sign_in = async || {
        let body = serde_json::json!({"code": code, "client": "a-browser"});
        let request = api.anonymous(Method::POST, "/v1/session").json(&body);
        send(request).await.status().as_u16()
    };
    assert_eq!((sign_in().await, sign_in().await), (200, 401));

    // Without RUNCAST_URL and RUNCAST_TOKEN `runcast` takes both from the data folder.
    let command = ["wrap", "--name", "found", "--", "echo", "hello"];
    let wrap = ProcessSpec::new("wrap", programs::runcast(), &command, folder.path());
    let settings = [("RUNCAST_DATA_DIR", data.to_str().expect("UTF-8"))];
    let mut wrap = wrap.with_env(settings).start(folder.path());
    let code = shell_exit_code(wrap.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", wrap.logs());
    eventually("the run is sealed", async || {
        let runs = api.get("/v1/runs").await;
        let sealed = runs["runs"][0]["name"] == "found" && runs["runs"][0]["sealed"] == true;
        sealed.then_some(()).ok_or_else(|| runs.to_string())
    })
    .await;

    dev.signal(Signal::SIGINT);
    let code = shell_exit_code(dev.wait_exit(WAIT_DEADLINE).await);
    assert_eq!(code, 0, "{}", dev.logs());
    assert!(
        !data.join("url").exists(),
        "the address ends with the process"
    );
}
