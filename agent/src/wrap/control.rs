//! Executes control commands to the run.
//!
//! - `cancel`: sends SIGTERM to the command. Once it has ended, the processes that it left behind
//!   get SIGTERM too; whatever is still running after the grace period is killed, all of it. `done`
//!   is published after that, once the output has been read.
//! - `pause`, `resume`: sends SIGSTOP or SIGCONT to the command and all its descendants. `done` at
//!   once.
//! - `input`: types the text into the command's terminal, if it has one. `done` once the terminal
//!   has accepted it.
//!
//! A command that cannot be executed is refused with a reason.
//!
//! Time: the grace period, [`INPUT_TIMEOUT`] for a text, and [`ANSWER_TIMEOUT`] for the answers at
//! the end.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::protocol::event::{Action, Status, StatusChange};
use runcast_publisher::{Command, Commands, PublishError, Publisher};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::process_tree::ProcessTree;
use super::stdin::InputHandle;
use crate::console::print_message;

/// Longest wait for all answers to be published after the command has ended.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// Longest wait for the terminal to accept a text. A command that reads its terminal accepts it at
/// once.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do next.
#[derive(Debug)]
pub(crate) enum ControlCommand {
    Execute(Box<Command>),
    /// The grace period is over.
    Kill,
}

/// The control commands to this run, and their answers.
#[derive(Debug)]
pub(crate) struct ControlCommands {
    commands: Option<Commands>,
    grace: Duration,
    /// Cancel commands that are being executed.
    cancels: Vec<Command>,
    kill_at: Option<Instant>,
    is_paused: bool,
    answers: JoinSet<Result<(), PublishError>>,
}

impl ControlCommands {
    pub(crate) fn new(publisher: Option<&Publisher>, grace: Duration) -> Self {
        Self {
            commands: publisher.map(Publisher::commands),
            grace,
            cancels: Vec::new(),
            kill_at: None,
            is_paused: false,
            answers: JoinSet::new(),
        }
    }

    /// Waits for the next command or the end of the grace period. Cancel safe.
    pub(crate) async fn next(&mut self) -> ControlCommand {
        let kill_at = self.kill_at;
        let command = async {
            match &mut self.commands {
                Some(commands) => commands.next().await,
                None => None,
            }
        };
        tokio::select! {
            Some(command) = command => ControlCommand::Execute(Box::new(command)),
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => ControlCommand::Kill,
            else => std::future::pending().await,
        }
    }

    /// When a cancelled command is killed; none if it is not cancelled.
    pub(crate) fn cancelled_until(&self) -> Option<Instant> {
        let until = self.kill_at.unwrap_or_else(Instant::now);
        (!self.cancels.is_empty()).then_some(until)
    }

    /// Executes it on the process tree or the terminal.
    pub(crate) fn execute(
        &mut self,
        next: ControlCommand,
        processes: &ProcessTree,
        input: Option<InputHandle>,
    ) {
        let command = match next {
            ControlCommand::Kill => {
                self.kill_at = None;
                print_message(format_args!(
                    "the command is still running after {} s, it is killed with all processes that it started",
                    self.grace.as_secs_f64()
                ));
                return processes.kill();
            }
            ControlCommand::Execute(command) => *command,
        };
        match (command.action(), input) {
            (Action::Cancel, _) => {
                if self.cancels.is_empty() {
                    print_message(format_args!("cancelled by {}", command.by()));
                    self.kill_at = Some(Instant::now() + self.grace);
                    processes.signal_command(Signal::SIGTERM);
                    self.resume_if_paused(processes);
                    // A stopped process would not notice SIGTERM.
                    processes.signal_command(Signal::SIGCONT);
                }
                self.cancels.push(command);
            }
            (Action::Pause | Action::Resume, _) if !self.cancels.is_empty() => {
                self.refuse(command, "the command is being cancelled");
            }
            (Action::Pause, _) => {
                print_message(format_args!("paused by {}", command.by()));
                processes.stop();
                self.is_paused = true;
                self.answers.spawn(command.done());
            }
            (Action::Resume, _) => {
                print_message(format_args!("resumed by {}", command.by()));
                processes.resume();
                self.is_paused = false;
                self.answers.spawn(command.done());
            }
            (Action::Input, Some(input)) => {
                let until = Instant::now() + INPUT_TIMEOUT;
                self.answers.spawn(async move {
                    match input.type_text(command.data(), until).await {
                        Ok(()) => command.done().await,
                        Err(reason) => command.refuse(&reason.to_string()).await,
                    }
                });
            }
            (Action::Input, None) => self.refuse(
                command,
                "the command reads its own input, not that of runcast: start it with `runcast wrap --tty`",
            ),
        }
        self.report_failed();
    }

    /// Resumes a is_paused command, so that it notices other signals.
    pub(crate) fn resume_if_paused(&mut self, processes: &ProcessTree) {
        if std::mem::take(&mut self.is_paused) {
            processes.resume();
        }
    }

    /// Answers all commands, once the command has ended and its output is read. Sets the status of
    /// `change` to cancelled if the run was cancelled.
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
                report_failed(answered);
            }
        };
        if timeout(ANSWER_TIMEOUT, answered).await.is_err() {
            print_message(format_args!(
                "a control command was not answered: time ran out"
            ));
        }
    }

    /// Reports answers that have failed so far, and removes the finished ones.
    fn report_failed(&mut self) {
        while let Some(answered) = self.answers.try_join_next() {
            report_failed(answered);
        }
    }

    /// In the background: the caller must not wait for the answer.
    fn refuse(&mut self, command: Command, reason: &'static str) {
        self.answers
            .spawn(async move { command.refuse(reason).await });
    }
}

fn report_failed(answered: Result<Result<(), PublishError>, JoinError>) {
    if let Err(error) = answered
        .map_err(io::Error::other)
        .and_then(|answer| answer.map_err(io::Error::other))
    {
        print_message(format_args!("a control command was not answered: {error}"));
    }
}
