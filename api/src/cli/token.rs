//! `runcastd token`: tokens of programs and people, for the operator. They belong to no user, so
//! their scopes alone bound what they may do.

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use uuid::Uuid;

use super::label::{label, labels_object};
use super::output::{json_line, time};
use runcast_access::Scope;
use runcast_access::secret;
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::tokens::{Manager, TokenFilter};

/// Tokens that one query reads.
const PAGE_TOKENS: u16 = 200;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Create a token and print it; it cannot be shown again
    Create {
        /// Its name: the program or person that it is for
        name: String,
        /// What it permits: runs:read, runs:publish, runs:control, runs:delete, runs:redact, admin;
        /// may be repeated
        #[arg(long = "scope", value_name = "SCOPE", default_value = "runs:read")]
        scopes: Vec<Scope>,
        /// Only for this run
        #[arg(long)]
        run: Option<Uuid>,
        /// Only for runs with this label; may be repeated, then with all of them
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// When it expires, such as 2027-01-31T00:00:00Z [never]
        #[arg(long, value_name = "TIME")]
        expires: Option<DateTime<Utc>>,
    },
    /// List them, newest first, without those that were issued for runs
    List {
        /// Those that are for this run alone
        #[arg(long, value_name = "ID")]
        run: Option<Uuid>,
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Revoke one, and end what was signed in with it and the tokens of runs that come from it
    Revoke {
        /// Its id, from `list`
        #[arg(required_unless_present = "run", conflicts_with = "run")]
        id: Option<Uuid>,
        /// All that are for this run alone
        #[arg(long, value_name = "ID")]
        run: Option<Uuid>,
    },
}

impl Token {
    /// Runs the command and writes its result to `out`.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Self::Create {
                name,
                scopes,
                run,
                labels,
                expires,
            } => {
                let labels = labels_object(labels);
                let request = secret::TokenRequest {
                    name: &name,
                    scopes: &scopes,
                    run,
                    labels: (!labels.is_empty()).then_some(&labels),
                    user: None,
                    expires_at: expires,
                };
                let (_id, token) = secret::issue_token(store, &Actor::operator(), &request).await?;
                Ok(writeln!(out, "{}", token.expose())?)
            }
            Self::List { run, json } => list(store, run, json, out).await,
            Self::Revoke { id, run } => {
                if let Some(id) = id {
                    revoke(store, id, out).await?;
                }
                if let Some(run) = run {
                    let (actor, all) = (Actor::operator(), Manager::Admin);
                    let revoked = store.revoke_tokens_of_run(&actor, run, all).await?;
                    writeln!(out, "{revoked} tokens of run {run} are revoked")?;
                }
                Ok(())
            }
        }
    }
}

async fn revoke(store: &Store, id: Uuid, out: &mut impl Write) -> anyhow::Result<()> {
    let (actor, all) = (Actor::operator(), Manager::Admin);
    if !store.revoke_token(&actor, id, all).await? {
        bail!("there is no valid token {id}; see `runcastd token list`");
    }
    Ok(writeln!(out, "token {id} is revoked")?)
}

async fn list(
    store: &Store,
    run: Option<Uuid>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if !json {
        writeln!(
            out,
            "{:<36}  {:<20}  {:>8}  {:<20}  {:<20}  SCOPES",
            "ID", "NAME", "USES", "LAST USED", "ENDS"
        )?;
    }
    let mut before = None;
    loop {
        let filter = TokenFilter {
            manager: Manager::Admin,
            run,
            before,
            limit: PAGE_TOKENS,
        };
        let tokens = store.tokens(&filter).await?;
        for token in &tokens {
            if json {
                json_line(token, out)?;
                continue;
            }
            let ends = match token.revoked_at {
                Some(_) => "revoked".to_owned(),
                None if !token.active => "ended".to_owned(),
                None => time_or_never(token.expires_at),
            };
            writeln!(
                out,
                "{}  {:<20}  {:>8}  {:<20}  {ends:<20}  {}",
                token.id,
                token.name,
                token.uses,
                time_or_never(token.last_used_at),
                token.scopes.join(", ")
            )?;
        }
        if tokens.len() < usize::from(PAGE_TOKENS) {
            return Ok(());
        }
        before = tokens.last().map(|token| token.id);
    }
}

fn time_or_never(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "never".to_owned(), time)
}
