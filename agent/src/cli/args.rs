//! The commands of `runcast` and their arguments, and their conversion to options.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use runcast_common::config::byte_size::ByteSize;
use runcast_common::protocol::event::Channel;
use runcast_common::protocol::event_id::EventId;
use runcast_common::protocol::limits::{MAX_LABEL_BYTES, MAX_NAME_BYTES, MAX_VARIATIONS};
use runcast_redact::{EnvRedaction, NamePattern};
use uuid::Uuid;

use super::help::{DELETE_HELP, REDACT_HELP, RESEND_HELP, SETTINGS_HELP, TAIL_HELP, WRAP_HELP};
use crate::resend::ResendOptions;
use crate::tail::TailOptions;
use crate::wrap::{MarkerSelection, WrapOptions};

/// Smallest output limit: two chunks, one each for the start and the end of the output.
const MIN_OUTPUT_BYTES: u64 = 64 * 1024;

/// Publish what a run prints, and follow it.
#[derive(Debug, Parser)]
#[command(name = "runcast", version, after_help = SETTINGS_HELP)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `runcast`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command and publish what it prints
    ///
    /// The command's output, exit code and signals do not change: `runcast wrap -- CMD` can replace
    /// CMD anywhere. Its stdout is published as `output` and its stderr as `log`, line by line; an
    /// unfinished line is published after 100 ms. If Runcast cannot be reached at the start, the
    /// command runs anyway and a line on stderr says why nothing is published; with --spool its
    /// output is kept in files, which `runcast resend` sends later.
    #[command(after_help = WRAP_HELP)]
    Wrap(WrapArgs),
    /// Follow a run: its output on stdout, its log on stderr
    ///
    /// Starts at the beginning of the run, or after --after, and reconnects until the run is over.
    /// If a proxy holds the stream back, it says so and switches to long polling.
    #[command(after_help = TAIL_HELP)]
    Tail(TailArgs),
    /// Send what is left in a spool folder
    ///
    /// Joins the runs whose events are in the folder, and creates those that could not be created
    /// before. Events that are stored are deleted from the folder; others stay and can be sent
    /// again. Nothing is stored twice. Folders of processes that are still running are skipped.
    #[command(after_help = RESEND_HELP)]
    Resend(ResendArgs),
    /// Delete a run with all that it printed
    ///
    /// Its events, archived copies and webhook deliveries are removed, viewers are told, and agents
    /// that still publish to it stop. Nothing brings it back. What is stored is removed by a
    /// worker; run the command again to see whether it is done. Needs a token with the scope
    /// runs:delete. A run on hold is not deleted.
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteArgs),
    /// Mask what a run has printed, after it was stored
    ///
    /// With --text-file a text is masked wherever the run has printed it, else all that the events
    /// from --from to --to say. It is masked for all readers, in the archive too, and nothing
    /// brings it back; ids, counts and line numbers stay. Waits until a worker has done it. Needs a
    /// token with the scope runs:redact. A run on hold is not redacted.
    #[command(after_help = REDACT_HELP)]
    Redact(RedactArgs),
    /// Lead the session of a command: started by `wrap --tty`, not by users
    #[command(hide = true)]
    Session(SessionArgs),
    /// Pass on the output of processes that a command left behind: started by `wrap`, not by users
    #[command(hide = true, name = "pass-on")]
    PassOn,
    /// Become a command that gets its own process id: started by `wrap`, not by users
    #[command(hide = true)]
    Exec(ExecArgs),
}

/// Arguments of `runcast exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The process id to replace
    #[arg(value_name = "PID")]
    pub pid: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `runcast session`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `runcast wrap`.
#[derive(Debug, Args)]
pub struct WrapArgs {
    /// Join this run instead of creating one [default: RUNCAST_RUN, if it is set]
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "variations"])]
    run: Option<Uuid>,
    /// Name of the new run [default: the command line, shortened]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Label of the new run, to find it by: --label team=search; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, conflicts_with = "run")]
    labels: Vec<(String, String)>,
    /// Variation of the run that this process publishes, from 0 [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..i64::from(MAX_VARIATIONS)))]
    variation: Option<u16>,
    /// Number of variations of the new run [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_VARIATIONS)))]
    variations: Option<u16>,
    /// Do not run the command if its output cannot be published (exit code 69)
    #[arg(long)]
    require: bool,
    /// Keep events in files in this folder until they are stored, so that they survive this process
    ///
    /// Up to 256 MiB; a later process of the same run and variation continues with them. Without a
    /// spool, events are only in memory, and those that are not in Redis yet are lost with the
    /// process.
    #[arg(long, value_name = "DIR", env = "RUNCAST_SPOOL")]
    spool: Option<PathBuf>,
    /// Longest wait for all events to be stored after the command has ended
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain_timeout: Duration,
    /// Time that a cancelled command has to end after SIGTERM, before SIGKILL
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    cancel_grace: Duration,
    /// Run the command in a terminal: with colors, in lines, and with stdout and stderr in exact
    /// order
    ///
    /// Both are published as `output`. The terminal of runcast, if there is one, belongs to the
    /// command until that ends, including Ctrl-C; the command's terminal has the same size. Without
    /// a terminal its size is COLUMNS and LINES, or 120x40.
    #[arg(short = 't', long)]
    tty: bool,
    /// Give the command no token of the run, so that it cannot publish itself
    #[arg(long)]
    no_token: bool,
    /// Hand a variable on to the command that is otherwise withheld, such as REDIS_URL; * matches
    /// any text, ? any character, case is ignored; can be repeated
    #[arg(long = "keep-env", value_name = "NAME")]
    keep_env: Vec<NamePattern>,
    /// Also redact the values of environment variables with matching names; * matches any text, ?
    /// any character, case is ignored; can be repeated
    #[arg(
        long = "redact-env",
        value_name = "PATTERN",
        conflicts_with = "no_redact"
    )]
    redact_env: Vec<NamePattern>,
    /// Publish everything unchanged, including secrets: for output that contains none, or that
    /// redaction would damage. RUNCAST_TOKEN stays redacted
    #[arg(long)]
    no_redact: bool,
    /// Markers in the output that become groups, levels and progress on the page: auto, none, or a
    /// list of gitlab, github and buildkite
    ///
    /// auto is gitlab and github, and buildkite if BUILDKITE is set: elsewhere `--- a/file` is more
    /// likely a diff. The text of the command is published unchanged in any case.
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    markers: MarkerSelection,
    /// Publish at most this much output: its start, and its end once the command has ended; such as
    /// 512MiB, or 0 for no limit
    ///
    /// Counts stdout and stderr together. An eighth of it, at most 8 MiB, is kept in memory for the
    /// end; output in between is left out, counted and shown as a gap. A command that prints
    /// endlessly reaches 1 GiB within a minute, other logs hardly ever do.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = output_limit)]
    max_output: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Arguments of `runcast tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The run to follow
    run: Uuid,
    /// Show only this channel, such as output:0, log or status; can be repeated
    #[arg(long = "channel", value_name = "C")]
    channels: Vec<Channel>,
    /// Start after this event id
    #[arg(long, value_name = "ID", value_parser = EventId::parse_cursor)]
    after: Option<EventId>,
    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `runcast delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The run
    pub run: Uuid,
}

/// Arguments of `runcast redact`.
#[derive(Debug, Args)]
pub struct RedactArgs {
    /// The run
    pub run: Uuid,
    /// File with the text, without the line end at its end; - for stdin
    ///
    /// Not an argument, since other users of a machine can read those.
    #[arg(long, value_name = "FILE", required_unless_present = "from")]
    pub text_file: Option<PathBuf>,
    /// First event [default: the beginning of the run, with --text-file]
    #[arg(long, value_name = "ID", value_parser = EventId::parse_cursor)]
    pub from: Option<EventId>,
    /// Last event [default: the newest one with --text-file, else that of --from]
    #[arg(long, value_name = "ID", value_parser = EventId::parse_cursor)]
    pub to: Option<EventId>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `runcast resend`.
#[derive(Debug, Args)]
pub struct ResendArgs {
    /// The spool folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Longest wait for the events of one run and variation to be stored
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
}

impl From<ResendArgs> for ResendOptions {
    fn from(resend: ResendArgs) -> Self {
        Self {
            folder: resend.folder,
            timeout: resend.timeout,
        }
    }
}

impl From<WrapArgs> for WrapOptions {
    fn from(wrap: WrapArgs) -> Self {
        let variation = wrap.variation.unwrap_or(0);
        Self {
            run: wrap.run,
            describes_new_run: wrap.name.is_some()
                || wrap.variations.is_some()
                || !wrap.labels.is_empty(),
            name: wrap.name,
            labels: wrap.labels.into_iter().collect(),
            variation,
            names_variation: wrap.variation.is_some(),
            // A new run has at least as many variations as this process needs.
            variations: wrap.variations.unwrap_or(1).max(variation + 1),
            require: wrap.require,
            spool: wrap.spool.filter(|folder| !folder.as_os_str().is_empty()),
            drain_timeout: wrap.drain_timeout,
            cancel_grace: wrap.cancel_grace,
            tty: wrap.tty,
            hands_on_token: !wrap.no_token,
            keep_env: wrap.keep_env,
            redact: match wrap.no_redact {
                true => EnvRedaction::OwnToken,
                false => EnvRedaction::Usual(wrap.redact_env),
            },
            markers: wrap.markers,
            max_output_bytes: wrap.max_output,
            command: wrap.command,
        }
    }
}

impl From<TailArgs> for TailOptions {
    fn from(tail: TailArgs) -> Self {
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

/// Parses an output limit; 0 is no limit.
fn output_limit(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let is_unit = |c: char| c.is_ascii_alphabetic() || c == ' ';
    if text.trim_end_matches(is_unit) == "0" {
        return Ok(0);
    }
    match text.parse::<ByteSize>() {
        Ok(ByteSize(..MIN_OUTPUT_BYTES)) => {
            Err("the limit must be at least 64KiB, or 0 for none".into())
        }
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(error) => Err(error.to_string()),
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
    fn arguments_after_the_command_belong_to_it() {
        let Ok(Command::Wrap(wrap)) = parse(&["wrap", "--variation", "2", "ls", "--name", "x"])
        else {
            panic!("not parsed")
        };
        let options = WrapOptions::from(wrap);
        assert_eq!(options.command, ["ls", "--name", "x"]);
        assert_eq!((options.name, options.variations), (None, 3));
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        for arguments in [
            &["wrap"][..],
            &["wrap", "--variation", "256", "ls"],
            &["wrap", "--variations", "0", "ls"],
            &["wrap", "--drain-timeout", "-1", "ls"],
            &["wrap", "--run", "x", "ls"],
            &["wrap", "--label", "team", "ls"],
            &["wrap", "--label", "=search", "ls"],
            &["wrap", "--redact-env", "*", "ls"],
            &["wrap", "--keep-env", "*", "ls"],
            &["wrap", "--redact-env", "A", "--no-redact", "ls"],
            &["wrap", "--markers", "travis", "ls"],
            &["wrap", "--max-output", "1KiB", "ls"],
            &["delete"],
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
    fn output_limits_are_byte_sizes_with_a_minimum() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 65536),
            ("512 MiB", 512 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(output_limit(text), Ok(bytes), "{text}");
        }
        for (text, reason) in [
            ("1KiB", "at least 64KiB"),
            ("1GB", "such as 512MiB"),
            ("-1", "such as 512MiB"),
            ("", "such as 512MiB"),
            ("99999999999999GiB", "such as 512MiB"),
        ] {
            let error = output_limit(text).expect_err("rejected");
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_definition_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
