//! `runcastd token`: tokens of programs and people, for the operator. They belong to no user, so only their scopes bound them.

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cli::webhook::label;
use runcast_access::Scope;
use runcast_access::secret;
use runcast_store::Store;
use runcast_store::audit::Actor;

/// Tokens that are read at a time.
const SOME: u16 = 200;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it; it cannot be shown again
    Create {
        /// Whom it is for
        name: String,
        /// What it may do: runs:read, runs:publish, runs:control, admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", default_value = "runs:read")]
        scopes: Vec<Scope>,
        /// Only for this run
        #[arg(long)]
        run: Option<Uuid>,
        /// Only for runs with this label; may be repeated, then with all of them
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// When it ends, such as 2027-01-31T00:00:00Z [never]
        #[arg(long, value_name = "TIME")]
        expires: Option<DateTime<Utc>>,
    },
    /// List them, newest first, without those that are minted with runs
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// End one, and the sessions that were signed in with it
    Revoke {
        /// Its id, from `list`
        id: Uuid,
    },
}

impl Token {
    /// Does it, and writes what there is to tell to `out`.
    ///
    /// # Errors
    /// In words for a person.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::Create {
                name,
                scopes,
                run,
                labels,
                expires,
            } => {
                let labels: Map<String, Value> = labels
                    .into_iter()
                    .map(|(name, value)| (name, Value::from(value)))
                    .collect();
                let wanted = secret::TokenRequest {
                    name: &name,
                    scopes: &scopes,
                    run,
                    labels: (!labels.is_empty()).then_some(&labels),
                    user: None,
                    expires_at: expires,
                };
                let (_id, token) = secret::issue_token(store, &Actor::operator(), &wanted).await?;
                Ok(writeln!(out, "{}", token.expose())?)
            }
            Self::List { json } => list(store, json, out).await,
            Self::Revoke { id } => {
                if !store.revoke_token(&Actor::operator(), id, None).await? {
                    bail!("there is no token {id} that has not ended; see `runcastd token list`");
                }
                Ok(writeln!(out, "token {id} is revoked")?)
            }
        }
    }
}

async fn list(store: &Store, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if !json {
        writeln!(
            out,
            "{:<36}  {:<20}  {:>8}  {:<20}  {:<20}  SCOPES",
            "ID", "NAME", "USES", "LAST USED", "ENDS"
        )?;
    }
    let mut before = None;
    loop {
        let tokens = store.tokens(None, before, SOME).await?;
        for token in &tokens {
            if json {
                serde_json::to_writer(&mut *out, token)?;
                writeln!(out)?;
                continue;
            }
            let ends = match token.revoked_at {
                Some(_) => "revoked".to_owned(),
                None => time(token.expires_at),
            };
            writeln!(
                out,
                "{}  {:<20}  {:>8}  {:<20}  {ends:<20}  {}",
                token.id,
                token.name,
                token.uses,
                time(token.last_used_at),
                token.scopes.join(", ")
            )?;
        }
        if tokens.len() < usize::from(SOME) {
            return Ok(());
        }
        before = tokens.last().map(|token| token.id);
    }
}

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}
