//! `runcast delete RUN`: deletes a run.
//!
//! The gateway deletes it at once, and a worker removes what is stored. The command does not wait
//! for that: it says whether something is left, and may be repeated.

use runcast_common::config::Env;
use runcast_publisher::gateway_client::{ApiError, GatewayClient};
use uuid::Uuid;

use crate::console::print_message;
use crate::exit_code::{EX_CONFIG, EX_NOINPUT, EX_NOPERM, EX_UNAVAILABLE};

/// Deletes a run, prints what became of it, and returns the exit code.
pub async fn run(run: Uuid, env: &impl Env) -> u8 {
    match delete(run, env).await {
        Ok(true) => {
            print_message(format_args!(
                "run {run} is deleted, and nothing of it is left"
            ));
            0
        }
        Ok(false) => {
            print_message(format_args!(
                "run {run} is deleted; a worker removes what is stored of it"
            ));
            0
        }
        Err(error) => {
            print_message(format_args!("{error}"));
            exit_code(&error)
        }
    }
}

async fn delete(run: Uuid, env: &impl Env) -> Result<bool, ApiError> {
    GatewayClient::from_env(env)?.delete_run(run).await
}

const fn exit_code(error: &ApiError) -> u8 {
    match error {
        ApiError::NoSuchRun { .. } => EX_NOINPUT,
        ApiError::Unreachable { .. } => EX_UNAVAILABLE,
        ApiError::Unauthorized { .. } => EX_NOPERM,
        ApiError::Config(_) => EX_CONFIG,
        ApiError::Refused { .. } | ApiError::Unexpected { .. } => 1,
    }
}
