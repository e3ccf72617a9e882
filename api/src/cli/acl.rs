//! `runcastd acl`: the Redis rules of the user whose credentials agents get.

use runcast_common::config::Env;

use super::output::print_line;
use crate::settings;

/// Prints the rules for this installation's key prefix.
pub fn run(env: &impl Env) -> anyhow::Result<()> {
    print_line(&settings::key_prefix(env)?.publisher_acl().join(" "))
}
