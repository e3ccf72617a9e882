//! `runcast wrap` with a Redis server of its own, and the events it has published there.

use std::process::{Command, Output};

use runcast_common::commands::SendCommand;
use runcast_common::protocol::event::{Action, Kind};
use runcast_publisher::Target;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::gateway::{Gateway, json};
use super::{Run, Server, eventually};

/// The token of the run.
pub(crate) const RUN_TOKEN: &str = "rct_the-token-of-the-run";

/// The program, without any setting.
pub(crate) fn runcast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    // Settings that the program would inherit from the environment of the tests.
    let is_setting = |name: &String| name.starts_with("RUNCAST_") || name == "REDIS_URL";
    for (setting, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(setting);
    }
    // A gateway that `runcastd dev` runs in this repository must not be found.
    command.env("RUNCAST_DATA_DIR", "/nowhere");
    command
}

/// Runs a program to its end.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("runs"))
        .await
        .expect("ends")
}

/// Runs a program to its end, while everything that it publishes is stored.
pub(crate) async fn stored_output(run: &Run, command: Command) -> Output {
    tokio::select! {
        output = output(command) => output,
        () = run.settle_on_and_on() => unreachable!("it never ends"),
    }
}

/// One run in Redis, for one `runcast wrap`.
pub(crate) struct Wrapped {
    pub(crate) server: Server,
    pub(crate) target: Target,
    gateway: Gateway,
    /// Stores what is published, so that the program need not wait at its end.
    _persister: AbortOnDropHandle<()>,
}

impl Wrapped {
    pub(crate) async fn start() -> Self {
        let server = Server::start().await;
        let target = server.target();
        let reply = serde_json::json!({
            "run": {"id": target.run}, "token": RUN_TOKEN, "url": "http://page/",
            "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
        });
        let gateway = Gateway::answering(vec![json("201 Created", &reply.to_string())]);
        let run = Run::of(&target, &server);
        let persister = tokio::spawn(async move { run.settle_on_and_on().await });
        Self {
            server,
            target,
            gateway,
            _persister: AbortOnDropHandle::new(persister),
        }
    }

    /// The program with these arguments behind `wrap`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = runcast();
        command
            .env("RUNCAST_URL", &self.gateway.url)
            .env("RUNCAST_TOKEN", "very-secret")
            .env("REDIS_URL", self.server.url())
            .arg("wrap")
            .args(arguments);
        command
    }

    pub(crate) async fn output(&self, arguments: &[&str]) -> Output {
        output(self.command(arguments)).await
    }

    pub(crate) fn run(&self) -> Run {
        Run::of(&self.target, &self.server)
    }

    /// All events so far.
    pub(crate) async fn events(&self) -> Vec<serde_json::Value> {
        let events = self.run().events().await;
        let lines = events.iter();
        lines
            .map(|event| serde_json::from_slice(&event.line).expect("JSON"))
            .collect()
    }

    /// The texts of output and log so far, each with its stream.
    pub(crate) async fn texts(&self) -> Vec<(String, String)> {
        let events = self.events().await;
        let texts = events.iter().filter(|event| {
            [Kind::Output.name(), Kind::Log.name()]
                .iter()
                .any(|kind| event["kind"] == *kind)
        });
        let word = |event: &serde_json::Value, name: &str| {
            let word = event[name].as_str();
            word.unwrap_or_default().to_owned()
        };
        texts
            .map(|event| (word(event, "stream"), word(event, "text")))
            .collect()
    }

    /// Waits until the command runs; returns its process id.
    pub(crate) async fn started(&self) -> i64 {
        let mut pid = None;
        eventually("the command runs", async || {
            let events = self.events().await;
            pid = events.first().and_then(|first| first["pid"].as_i64());
            pid.is_some()
        })
        .await;
        pid.expect("known by now")
    }

    /// Sends a command to the run and waits for its result: `done`, or the reason of a refusal.
    pub(crate) async fn tell(&self, action: Action, data: &str) -> String {
        let id = self.give(action, data).await;
        self.answer(id).await
    }

    pub(crate) async fn give(&self, action: Action, data: &str) -> Uuid {
        let id = Uuid::now_v7();
        let give = SendCommand {
            id,
            action,
            by: "a user",
            data,
            variations: &[0],
        };
        let run = self.run();
        run.redis
            .run(run.keys.slot, async |connection| {
                give.call(&run.keys, connection).await
            })
            .await
            .expect("given");
        id
    }

    pub(crate) async fn answer(&self, id: Uuid) -> String {
        let mut answer = None;
        eventually("the command is answered", async || {
            let events = self.events().await;
            let mut of = events
                .iter()
                .filter(|event| event["command_id"] == id.to_string());
            answer = of.find_map(|event| match event["state"].as_str() {
                Some("done") => Some("done".to_owned()),
                Some("refused") => event["reason"].as_str().map(str::to_owned),
                _ => None,
            });
            answer.is_some()
        })
        .await;
        answer.expect("known by now")
    }

    /// All texts of one stream so far, joined.
    pub(crate) async fn text(&self, stream: &str) -> String {
        let texts = self.texts().await;
        let of = texts.iter().filter(|(one, _)| one == stream);
        of.map(|(_, text)| text.as_str()).collect()
    }
}
