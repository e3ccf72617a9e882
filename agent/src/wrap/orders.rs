//! Commands to the run, and what is done to the wrapped command for them.
//!
//! - `cancel`: SIGTERM to the command. Once it has ended, what it has started and left behind gets SIGTERM as
//!   well; and what still lives when the grace period is over is killed, all of it. `done` is published when that has
//!   happened and the output has been read.
//! - `pause`, `resume`: SIGSTOP and SIGCONT to the command and all its descendants. `done` at once.
//! - `input`: typed at the command's terminal, if it has one. `done` when the terminal has taken it.
//!
//! What cannot be done is refused with a reason.
//!
//! Time: the grace period, [`TYPE_WITHIN`] for a text, and [`ANSWERS`] for the answers at the end.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::event::{Action, Status, StatusChange};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::job::Job;
use super::keyboard::Hand;
use crate::publisher::{Command, Commands, PublishError, Publisher};
use crate::say;

/// Longest wait for all answers to be published, when the command has ended.
const ANSWERS: Duration = Duration::from_secs(6);

/// Longest wait for the terminal to take a text. A command that reads takes it at once.
const TYPE_WITHIN: Duration = Duration::from_secs(5);

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
    paused: bool,
    answers: JoinSet<Result<(), PublishError>>,
}

impl Orders {
    pub(crate) fn to(publisher: Option<&Publisher>, grace: Duration) -> Self {
        Self {
            commands: publisher.map(Publisher::control),
            grace,
            cancels: Vec::new(),
            kill_at: None,
            paused: false,
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

    /// When what still lives of a cancelled command is to be killed; none if it is not cancelled.
    pub(crate) fn cancelled_until(&self) -> Option<Instant> {
        let until = self.kill_at.unwrap_or_else(Instant::now);
        (!self.cancels.is_empty()).then_some(until)
    }

    /// Does it, to the job or at its terminal.
    pub(crate) fn carry_out(&mut self, order: Order, job: &Job, hand: Option<Hand>) {
        let command = match order {
            Order::Kill => {
                self.kill_at = None;
                say(format_args!(
                    "the command goes on after {} s, it is killed with all it has started",
                    self.grace.as_secs_f64()
                ));
                return job.kill();
            }
            Order::Obey(command) => *command,
        };
        match (command.action(), hand) {
            (Action::Cancel, _) => {
                if self.cancels.is_empty() {
                    say(format_args!("cancelled by {}", command.by()));
                    self.kill_at = Some(Instant::now() + self.grace);
                    job.tell(Signal::SIGTERM);
                    self.wake(job);
                    // A process that stands still, for whatever reason, would not notice.
                    job.tell(Signal::SIGCONT);
                }
                self.cancels.push(command);
            }
            (Action::Pause | Action::Resume, _) if !self.cancels.is_empty() => {
                self.refuse(command, "the command is being cancelled");
            }
            (Action::Pause, _) => {
                say(format_args!("paused by {}", command.by()));
                job.stop();
                self.paused = true;
                self.answers.spawn(command.done());
            }
            (Action::Resume, _) => {
                say(format_args!("resumed by {}", command.by()));
                job.go_on();
                self.paused = false;
                self.answers.spawn(command.done());
            }
            (Action::Input, Some(hand)) => {
                let until = Instant::now() + TYPE_WITHIN;
                self.answers.spawn(async move {
                    match hand.type_text(command.data(), until).await {
                        Ok(()) => command.done().await,
                        Err(reason) => command.refuse(&reason.to_string()).await,
                    }
                });
            }
            (Action::Input, None) => self.refuse(
                command,
                "the command reads its own input, not that of runcast: start it by `runcast wrap --tty`",
            ),
        }
        self.tell_failed();
    }

    /// Lets a paused command go on, so that it notices what else it is told.
    pub(crate) fn wake(&mut self, job: &Job) {
        if std::mem::take(&mut self.paused) {
            job.go_on();
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
                tell_failed(answered);
            }
        };
        if timeout(ANSWERS, answered).await.is_err() {
            say(format_args!("a command is not answered: time ran out"));
        }
    }

    /// Says which answers have failed so far, and forgets those that are out.
    fn tell_failed(&mut self) {
        while let Some(answered) = self.answers.try_join_next() {
            tell_failed(answered);
        }
    }

    /// Beside all else: the command shall not wait for it.
    fn refuse(&mut self, command: Command, reason: &'static str) {
        self.answers
            .spawn(async move { command.refuse(reason).await });
    }
}

fn tell_failed(answered: Result<Result<(), PublishError>, JoinError>) {
    if let Err(error) = answered
        .map_err(io::Error::other)
        .and_then(|answer| answer.map_err(io::Error::other))
    {
        say(format_args!("a command is not answered: {error}"));
    }
}
