//! The command line of `runcast`: what is asked for, as text first; meaning comes after.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::{MAX_LABEL_BYTES, MAX_NAME_BYTES, MAX_VARIATIONS};
use uuid::Uuid;

mod help;
mod size;

use self::help::{RESEND_HELP, SETTINGS, TAIL_HELP, WRAP_HELP};
use crate::redact::{Pattern, Wanted};
use crate::wrap::markers::Wanted as Markers;
use crate::{resend, tail, wrap};

/// Publish what a run prints, and follow it.
#[derive(Debug, Parser)]
#[command(name = "runcast", version, after_help = SETTINGS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `runcast` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command and publish what it writes
    ///
    /// The command's output, exit code and signals stay as they are: `runcast wrap -- CMD` can
    /// stand wherever CMD stood. Its stdout is published as `output`, its stderr as `log`, line by
    /// line; a line without an end is shown after 100 ms. If Runcast cannot be reached at the start,
    /// the command runs all the same and one line on stderr says why nothing is published; with
    /// --spool its output is kept in files instead, to be sent by `runcast resend`.
    #[command(after_help = WRAP_HELP)]
    Wrap(Wrap),
    /// Follow a run: its output on stdout, its log on stderr
    ///
    /// Starts at the run's beginning, or behind --after, and goes on across lost connections until
    /// the run is over. Where a proxy holds the stream back it says so, and asks by long polls instead.
    #[command(after_help = TAIL_HELP)]
    Tail(Tail),
    /// Send what is left in a spool folder
    ///
    /// Joins the runs that the folder holds events of, and creates those that could not be created
    /// then. What is stored for good is deleted; what is not stays and can be sent again, nothing is
    /// stored twice. Events of a process that still runs are left to it.
    #[command(after_help = RESEND_HELP)]
    Resend(Resend),
    /// Lead the session of a command: started by `wrap --tty`, not by people
    #[command(hide = true)]
    Session(Session),
}

/// Arguments of `runcast session`.
#[derive(Debug, Args)]
pub struct Session {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `runcast wrap`.
#[derive(Debug, Args)]
pub struct Wrap {
    /// Join this run instead of creating one
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "variations"])]
    run: Option<Uuid>,
    /// Name of the new run [default: the command line, shortened]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Label of the new run, by which it is found: --label team=search; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with = "run")]
    labels: Vec<(String, String)>,
    /// Which of the run's variations this process is, from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..i64::from(MAX_VARIATIONS)))]
    variation: u16,
    /// How many variations the new run has [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_VARIATIONS)))]
    variations: Option<u16>,
    /// Refuse to run the command if it cannot be published (exit code 69)
    #[arg(long)]
    require: bool,
    /// Keep events in files here until they are stored, so that they survive this process
    ///
    /// Up to 256 MiB; a later process of the same run and variation goes on with them. Without it
    /// events are only in memory and what is not in Redis is lost with the process.
    #[arg(long, value_name = "DIR", env = "RUNCAST_SPOOL")]
    spool: Option<PathBuf>,
    /// Longest wait for everything to be stored after the command's end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain_timeout: Duration,
    /// How long a cancelled command may take to end after SIGTERM, before SIGKILL
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    cancel_grace: Duration,
    /// Run the command under a terminal: with colours, in lines, and with stdout and stderr in exact order
    ///
    /// Both are published as `output`. Our own terminal, if there is one, is taken over until the command
    /// ends, Ctrl-C included; its size is passed on. Without one it is 120x40, or COLUMNS and LINES.
    #[arg(short = 't', long)]
    tty: bool,
    /// Redact the values of these environment variables too; * and ? stand for any text and any
    /// letter, case does not count; can be given several times
    #[arg(
        long = "redact-env",
        value_name = "PATTERN",
        conflicts_with = "no_redact"
    )]
    redact_env: Vec<Pattern>,
    /// Publish everything as it is, secrets included: for output that is known to hold none, or that
    /// redaction would spoil. RUNCAST_TOKEN stays redacted
    #[arg(long)]
    no_redact: bool,
    /// Which markers in the output become groups, levels and progress on the page: auto, none, or a
    /// list of gitlab, github and buildkite
    ///
    /// auto is gitlab and github, and buildkite where BUILDKITE is set: elsewhere `--- a/file` is more
    /// likely a diff. What the command wrote is published unchanged in any case.
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    markers: Markers,
    /// Publish at most so much of the output: its beginning, and its end when it has ended; such as
    /// 512MiB, 0 for all of it
    ///
    /// Counts stdout and stderr together. An eighth of it, and at most 8 MiB, are kept in memory for
    /// the end; what is left out in between is counted and shown as a gap. A command that prints
    /// without end reaches 1 GiB within a minute, other logs hardly ever do.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    max_output: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Arguments of `runcast tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// The run
    run: Uuid,
    /// Show only this channel, such as output:0, log or status; can be given several times
    #[arg(long = "channel", value_name = "C")]
    channels: Vec<Channel>,
    /// Start behind this event id
    #[arg(long, value_name = "ID", value_parser = EventId::parse_cursor)]
    after: Option<EventId>,
    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `runcast resend`.
#[derive(Debug, Args)]
pub struct Resend {
    /// The spool folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Longest wait for the events of one run and variation to be stored
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
}

impl From<Resend> for resend::Options {
    fn from(resend: Resend) -> Self {
        Self {
            folder: resend.folder,
            timeout: resend.timeout,
        }
    }
}

impl From<Wrap> for wrap::Options {
    fn from(wrap: Wrap) -> Self {
        // A new run has room for the variation that this process is.
        let variations = wrap.variations.unwrap_or(1).max(wrap.variation + 1);
        Self {
            run: wrap.run,
            name: wrap.name,
            labels: wrap.labels.into_iter().collect(),
            variation: wrap.variation,
            variations,
            require: wrap.require,
            spool: wrap.spool.filter(|folder| !folder.as_os_str().is_empty()),
            drain_timeout: wrap.drain_timeout,
            cancel_grace: wrap.cancel_grace,
            tty: wrap.tty,
            redact: match wrap.no_redact {
                true => Wanted::OwnToken,
                false => Wanted::Usual(wrap.redact_env),
            },
            markers: wrap.markers,
            max_output: wrap.max_output,
            command: wrap.command,
        }
    }
}

impl From<Tail> for tail::Options {
    fn from(tail: Tail) -> Self {
        Self {
            run: tail.run,
            channels: tail.channels,
            after: tail.after,
            json: tail.json,
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a name must not be empty".into()),
        name if name.len() > MAX_NAME_BYTES => {
            Err(format!("a name has at most {MAX_NAME_BYTES} bytes"))
        }
        name => Ok(name.to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("expected KEY=VALUE, such as team=search".into()),
        Some((key, value)) if key.len().max(value.len()) > MAX_LABEL_BYTES => Err(format!(
            "key and value of a label have at most {MAX_LABEL_BYTES} bytes"
        )),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_nan| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        let all = std::iter::once("runcast").chain(arguments.iter().copied());
        Cli::try_parse_from(all).map(|cli| cli.command)
    }

    #[test]
    fn what_stands_behind_the_command_is_its_own() {
        let Ok(Command::Wrap(wrap)) = parse(&["wrap", "--variation", "2", "ls", "--name", "x"])
        else {
            panic!("not understood")
        };
        let options = wrap::Options::from(wrap);
        assert_eq!(options.command, ["ls", "--name", "x"]);
        assert_eq!((options.name, options.variations), (None, 3));
    }

    #[test]
    fn nonsense_is_refused_before_anything_happens() {
        for arguments in [
            &["wrap"][..],
            &["wrap", "--variation", "256", "ls"],
            &["wrap", "--variations", "0", "ls"],
            &["wrap", "--drain-timeout", "-1", "ls"],
            &["wrap", "--run", "x", "ls"],
            &["wrap", "--label", "team", "ls"],
            &["wrap", "--label", "=search", "ls"],
            &["wrap", "--redact-env", "*", "ls"],
            &["wrap", "--redact-env", "A", "--no-redact", "ls"],
            &["wrap", "--markers", "travis", "ls"],
            &["wrap", "--max-output", "1KiB", "ls"],
            &["tail", "x"],
            &[
                "tail",
                "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b",
                "--after",
                "x",
            ],
            &[
                "tail",
                "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b",
                "--channel",
                "x",
            ],
        ] {
            parse(arguments).expect_err("refused");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
