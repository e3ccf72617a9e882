//! Commands to the run, as far as a wrapped command can obey: `cancel` becomes SIGTERM and, after the
//! grace period, SIGKILL. All others are refused with a reason.
//!
//! Signals go to the command's own process, as all signals that are passed on; what it has started
//! is its own to end. `done` is published when the command has ended and its output has been read.
//!
//! Time: the grace period, and [`ANSWERS`] for the answers at the end.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runcast_common::event::{Action, Status, StatusChange};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::signals::send;
use crate::publisher::{Command, Commands, PublishError, Publisher};
use crate::say;

/// Longest wait for all answers to be published, when the command has ended.
const ANSWERS: Duration = Duration::from_secs(6);

/// What there is to do.
#[derive(Debug)]
pub(crate) enum Order {
    Obey(Box<Command>),
    /// The grace period is over.
    Kill,
}

/// The commands to this run, and what became of them.
#[derive(Debug)]
pub(crate) struct Orders {
    commands: Option<Commands>,
    grace: Duration,
    /// What the command is being ended for.
    cancels: Vec<Command>,
    kill_at: Option<Instant>,
    answers: JoinSet<Result<(), PublishError>>,
}

impl Orders {
    pub(crate) fn to(publisher: Option<&Publisher>, grace: Duration) -> Self {
        Self {
            commands: publisher.map(Publisher::control),
            grace,
            cancels: Vec::new(),
            kill_at: None,
            answers: JoinSet::new(),
        }
    }

    /// Waits for something to do. Can be dropped at any time.
    pub(crate) async fn next(&mut self) -> Order {
        let kill_at = self.kill_at;
        let command = async {
            match &mut self.commands {
                Some(commands) => commands.next().await,
                None => None,
            }
        };
        tokio::select! {
            Some(command) = command => Order::Obey(Box::new(command)),
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => Order::Kill,
            else => std::future::pending().await,
        }
    }

    /// Does it to the command's process.
    pub(crate) fn carry_out(&mut self, order: Order, child: Pid) {
        match order {
            Order::Kill => {
                self.kill_at = None;
                say(format_args!(
                    "the command goes on after {} s, it is killed",
                    self.grace.as_secs_f64()
                ));
                send(child, Signal::SIGKILL);
            }
            Order::Obey(command) if command.action() == Action::Cancel => {
                if self.cancels.is_empty() {
                    say(format_args!("cancelled by {}", command.by()));
                    self.kill_at = Some(Instant::now() + self.grace);
                    send(child, Signal::SIGTERM);
                    // A process that stands still would not notice.
                    send(child, Signal::SIGCONT);
                }
                self.cancels.push(*command);
            }
            Order::Obey(command) => {
                let reason = match command.action() {
                    Action::Input => "the command reads its own input, not that of runcast",
                    _ => "a wrapped command can only be cancelled",
                };
                self.refuse(*command, reason);
            }
        }
    }

    /// Answers everything, once the command has ended and its output is read; `change` becomes that of
    /// a cancelled run if it is one.
    pub(crate) async fn finish(mut self, change: &mut StatusChange) {
        while let Some(late) = self.commands.as_mut().and_then(Commands::try_next) {
            self.refuse(late, "the command has ended already");
        }
        if let Some(first) = self.cancels.first() {
            change.status = Status::Cancelled;
            change.message = Some(format!("cancelled by {}", first.by()));
        }
        for cancel in std::mem::take(&mut self.cancels) {
            self.answers.spawn(cancel.done());
        }
        let answered = async {
            while let Some(answered) = self.answers.join_next().await {
                if let Ok(Err(error)) = answered {
                    say(format_args!("a command is not answered: {error}"));
                }
            }
        };
        if timeout(ANSWERS, answered).await.is_err() {
            say(format_args!("a command is not answered: time ran out"));
        }
    }

    /// Beside all else: the command shall not wait for it.
    fn refuse(&mut self, command: Command, reason: &'static str) {
        self.answers
            .spawn(async move { command.refuse(reason).await });
    }
}
