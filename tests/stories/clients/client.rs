//! SSE clients of other projects, as processes that report what they receive: one JSON object per
//! line of stdout.
//!
//! Their programs are in `tests/clients`. Each connects through a proxy of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runcast_tests::chaos::ChaosProxy;
use runcast_tests::eventually::eventually_within;
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::programs::repository;
use runcast_tests::stack::Stack;
use serde_json::Value;
use uuid::Uuid;

use crate::page::path_with_node;

/// Longest wait for a client to receive something: a browser must start first, beside others.
const CLIENT_DEADLINE: Duration = Duration::from_secs(90);

/// The kinds of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// EventSource of Chromium.
    Chromium,
    /// The same on a page of another origin, with tickets. It needs `CLIENT_ORIGIN`.
    CrossOrigin,
    /// `@microsoft/fetch-event-source` of npm, in Chromium.
    FetchEventSource,
    /// `eventsource` of npm, in Node.
    EventSource,
    /// `httpx-sse` of `PyPI`.
    HttpxSse,
    /// curl, in a shell loop.
    Curl,
}

impl ClientKind {
    /// All that follow a run as long as possible.
    pub(super) const ALL: [Self; 5] = [
        Self::Chromium,
        Self::FetchEventSource,
        Self::EventSource,
        Self::HttpxSse,
        Self::Curl,
    ];

    /// Those that follow the standard: only the server can stop them, and they send no cursor at
    /// first.
    pub(super) const fn is_standard(self) -> bool {
        matches!(self, Self::Chromium | Self::EventSource)
    }

    fn command(self) -> (PathBuf, &'static str) {
        match self {
            Self::Chromium => ("node".into(), "chromium.mjs"),
            Self::CrossOrigin => ("node".into(), "cross_origin.mjs"),
            Self::FetchEventSource => ("node".into(), "fetch-event-source.mjs"),
            Self::EventSource => ("node".into(), "eventsource.mjs"),
            Self::HttpxSse => (python(), "httpx_client.py"),
            Self::Curl => ("bash".into(), "curl.sh"),
        }
    }
}

/// Python of the environment that `need clients` of `deploy/local/install` creates.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("RUNCAST_CLIENTS_PYTHON") {
        return python.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).expect("HOME is set");
    cache.join("runcast/clients-venv/bin/python")
}

/// One report of a client.
#[derive(Debug, Clone)]
pub(super) struct Saw(Value);

impl Saw {
    pub(super) fn is(&self, what: &str) -> bool {
        self.what() == what
    }

    /// Its name.
    pub(super) fn what(&self) -> &str {
        self.text("saw")
    }

    /// Milliseconds by the client's clock.
    pub(super) fn at(&self) -> u64 {
        self.0["at"].as_u64().expect("a moment")
    }

    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }
}

/// A frame as the client parsed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) data: Value,
}

impl Event {
    /// The text of an `output` event.
    pub(super) fn line(&self) -> &str {
        self.data["text"].as_str().unwrap_or_default()
    }
}

/// A running client; it ends when dropped.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) kind: ClientKind,
    pub(super) chaos: Arc<ChaosProxy>,
    process: Process,
}

impl Client {
    /// Starts a client of the run's stream. `query` starts with `?` or is empty; clients that can
    /// send `cursor` as their first `Last-Event-ID` do.
    pub(super) fn start(
        stack: &Stack,
        kind: ClientKind,
        chaos: Arc<ChaosProxy>,
        run: Uuid,
        how: (&str, Option<&str>),
    ) -> Self {
        Self::start_with(stack, kind, chaos, run, how, None)
    }

    /// The same with one more environment variable.
    pub(super) fn start_with(
        stack: &Stack,
        kind: ClientKind,
        chaos: Arc<ChaosProxy>,
        run: Uuid,
        (query, cursor): (&str, Option<&str>),
        setting: Option<(&'static str, String)>,
    ) -> Self {
        let folder = repository().join("tests/clients");
        assert!(
            folder.join("node_modules").is_dir() && python().is_file(),
            "the clients are not installed: call tests/run, or `need clients` of deploy/local/install"
        );
        let (program, script) = kind.command();
        let port = chaos.port();
        let url = format!("http://127.0.0.1:{port}/v1/runs/{run}/stream{query}");
        let browser = std::env::var("RUNCAST_E2E_BROWSER").ok();
        let settings = [
            Some(("PATH", path_with_node().to_owned())),
            Some(("CLIENT_URL", url)),
            Some(("CLIENT_TOKEN", stack.token().to_owned())),
            cursor.map(|cursor| ("CLIENT_LAST_EVENT_ID", cursor.to_owned())),
            browser.map(|browser| ("RUNCAST_E2E_BROWSER", browser)),
            setting,
        ];
        // Several clients of a kind may follow one run.
        let name = format!("{kind:?}-{}", Uuid::new_v4().simple());
        let spec = ProcessSpec::new(&name, program, &[script], &folder);
        let spec = spec.with_env(settings.into_iter().flatten());
        Self {
            kind,
            chaos,
            process: spec.start(stack.folder()),
        }
    }

    /// All its reports so far.
    pub(super) fn saw(&self) -> Vec<Saw> {
        let out = self.process.stdout();
        let text = String::from_utf8(out).expect("a client writes UTF-8");
        // The last piece is still an incomplete line.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| match serde_json::from_str(line) {
                Ok(value) => Saw(value),
                Err(error) => panic!("{:?} said {line:?}: {error}", self.kind),
            })
            .collect()
    }

    /// The frames received so far.
    pub(super) fn events(&self) -> Vec<Event> {
        let saw = self.saw();
        let events = saw.iter().filter(|saw| saw.is("event"));
        let event = |saw: &Saw| Event {
            name: saw.text("event").to_owned(),
            id: saw.text("id").to_owned(),
            data: serde_json::from_str(saw.text("data")).unwrap_or_else(|error| {
                panic!(
                    "{:?} saw an event that is no JSON ({error}): {saw:?}",
                    self.kind
                )
            }),
        };
        events.map(event).collect()
    }

    /// The frames of this name.
    pub(super) fn named(&self, name: &str) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.name == name);
        events
    }

    /// Waits until it has received enough.
    pub(super) async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let what = format!("{:?} sees {what}", self.kind);
        eventually_within(CLIENT_DEADLINE, &what, async || {
            if enough(self) {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait() {
                // The last report may be new.
                assert!(
                    enough(self),
                    "{what}: the client exited ({status})\n{}",
                    self.process.logs()
                );
            }
            Err(self.process.logs())
        })
        .await;
    }

    /// Waits until it has received this many lines of output.
    pub(super) async fn until_lines(&mut self, count: usize) {
        self.until(&format!("{count} lines"), |client| {
            client.named("output").len() >= count
        })
        .await;
    }

    /// Waits until it has stopped on its own; returns the status of the last response, where the
    /// client can tell.
    pub(super) async fn until_stopped(&mut self) -> Option<u64> {
        let status = self.process.wait_exit(CLIENT_DEADLINE).await;
        let saw = self.saw();
        let last = saw
            .last()
            .filter(|last| status.success() && last.is("over"));
        let last = last.unwrap_or_else(|| {
            panic!(
                "{:?} did not exit cleanly\n{}",
                self.kind,
                self.process.logs()
            )
        });
        last.0["status"].as_u64()
    }
}
