//! `runcast redact RUN`: masks what a run has printed.
//!
//! The gateway records the request and a worker carries it out, usually within seconds. The command
//! waits for that, for [`REDACTION_DEADLINE`] at most. The text comes from a file or from stdin, of
//! [`MAX_TEXT_BYTES`] at most.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use runcast_common::config::Env;
use runcast_publisher::gateway_client::{ApiError, GatewayClient, NewRedaction, RedactionState};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::cli::RedactArgs;
use crate::console::print_message;
use crate::exit_code::{EX_CONFIG, EX_NOINPUT, EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE};

/// Longest wait for a worker.
const REDACTION_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Longest text that the gateway takes.
const MAX_TEXT_BYTES: u64 = 16 * 1024;

/// Why nothing was masked, or not yet.
#[derive(Debug, thiserror::Error)]
enum RedactError {
    #[error("the text cannot be read from {file}: {error}")]
    Text { file: String, error: io::Error },
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error(
        "the text has more than {MAX_TEXT_BYTES} bytes: mask its parts, or events by --from and --to"
    )]
    TooLong,
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("given up: {0}")]
    GivenUp(String),
    #[error(
        "no worker has done it within {REDACTION_DEADLINE:?}; it is recorded, and will be done"
    )]
    Waiting,
}

/// Requests a redaction, prints what became of it, and returns the exit code.
pub async fn run(arguments: &RedactArgs, env: &impl Env) -> u8 {
    let run = arguments.run;
    match redact(arguments, env).await {
        Ok(state) => {
            let events = state.events;
            print_message(format_args!("masked {events} events of run {run}"));
            0
        }
        Err(error) => {
            print_message(format_args!("{error}"));
            exit_code(&error)
        }
    }
}

async fn redact(arguments: &RedactArgs, env: &impl Env) -> Result<RedactionState, RedactError> {
    let text = match &arguments.text_file {
        None => None,
        Some(file) => {
            let failed = |error| RedactError::Text {
                file: file.display().to_string(),
                error,
            };
            let text = match file.as_os_str() == "-" {
                true => read_text(io::stdin().lock()),
                false => File::open(file).and_then(read_text),
            };
            Some(checked_text(text.map_err(failed)?)?)
        }
    };
    let client = GatewayClient::from_env(env)?;
    let new = NewRedaction {
        text,
        from: arguments.from,
        to: arguments.to,
        reason: arguments.reason.clone(),
    };
    let requested = client.redact(arguments.run, &new).await?;
    wait_finished(&client, arguments.run, requested.id).await
}

async fn wait_finished(
    client: &GatewayClient,
    run: Uuid,
    redaction: Uuid,
) -> Result<RedactionState, RedactError> {
    let started = Instant::now();
    loop {
        match client.redaction(run, redaction).await? {
            Some(RedactionState {
                failure: Some(reason),
                ..
            }) => return Err(RedactError::GivenUp(reason)),
            Some(state) if state.finished_at.is_some() => return Ok(state),
            _ if started.elapsed() > REDACTION_DEADLINE => return Err(RedactError::Waiting),
            _ => sleep(POLL_INTERVAL).await,
        }
    }
}

/// Reads one byte more than is possible at most.
fn read_text(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_TEXT_BYTES + 3).read_to_end(&mut text)?;
    Ok(text)
}

/// The text without the line end that files and shells add.
fn checked_text(text: Vec<u8>) -> Result<SecretString, RedactError> {
    let mut text = String::from_utf8(text).map_err(|_error| RedactError::NotUtf8)?;
    for end in ['\n', '\r'] {
        if text.ends_with(end) {
            text.pop();
        }
    }
    match text.len() as u64 <= MAX_TEXT_BYTES {
        true => Ok(text.into()),
        false => Err(RedactError::TooLong),
    }
}

const fn exit_code(error: &RedactError) -> u8 {
    match error {
        RedactError::Text { .. } | RedactError::Api(ApiError::NoSuchRun { .. }) => EX_NOINPUT,
        RedactError::NotUtf8 | RedactError::TooLong => EX_USAGE,
        RedactError::Api(ApiError::Unreachable { .. }) => EX_UNAVAILABLE,
        RedactError::Api(ApiError::Unauthorized { .. }) => EX_NOPERM,
        RedactError::Api(ApiError::Config(_)) => EX_CONFIG,
        RedactError::Api(_) | RedactError::GivenUp(_) => 1,
        RedactError::Waiting => EX_TEMPFAIL,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_text_loses_one_line_end_and_has_a_bound() {
        let text =
            |bytes: &[u8]| checked_text(bytes.to_vec()).map(|text| text.expose_secret().to_owned());
        for (given, expected) in [("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            assert_eq!(text(given.as_bytes()).expect("a text"), expected);
        }
        assert!(matches!(text(b"\xff"), Err(RedactError::NotUtf8)));
        let long = vec![b'x'; 16 * 1024 + 1];
        assert!(matches!(text(&long), Err(RedactError::TooLong)));
        text(&long[1..]).expect("just fits");
    }
}
