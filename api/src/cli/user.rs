//! `runcastd user`: who may sign in, and with which roles, for the operator; above all the first administrator.
//!
//! A password never stands on a command line, where others see it: it is asked for on the terminal, or read from stdin.

use std::io::{BufRead as _, Read as _, Write};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use secrecy::SecretString;

use crate::cli::prompt;
use runcast_access::password::{MAX_BYTES, Passwords};
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::users::{NewUser, User as Row, UserChange};

/// Users that are read at a time.
const SOME: u16 = 200;

/// What `--help` says beyond the commands.
pub const HELP: &str = "\
The first administrator of an installation:

  runcastd user create ada --email ada@example.com --role admin

Roles that come with Runcast: viewer (sees all runs), operator (sees, starts and controls them),
admin (everything, users and tokens too). Own ones, also for runs with certain labels alone, are made
by `POST /v1/roles`, such as {\"name\":\"search\",\"permissions\":[\"runs:read\"],\"labels\":{\"team\":\"search\"}}.

Who signs in by OpenID Connect (RUNCAST_OIDC_ISSUER) becomes the user with the address that the issuer
has verified, and stays linked to them, whatever addresses become. A user is linked to one person of an
issuer: somebody else with their address is refused until `unlink`. Who has no verified address there
is linked by `POST /v1/users/USER/identities` {\"subject\":\"...\"}; the audit log tells the subject of
whoever was refused.

USER is a name, an address or an id. What changes counts at all gateways within seconds, as a rule
at once; it is written to the audit log (`GET /v1/audit`) as done by runcastd.";

/// What to do with users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Create one and print their id; the password is asked for
    Create {
        /// Letters, digits and . _ - of ASCII
        name: String,
        /// Their address; one can sign in by it as well
        #[arg(long)]
        email: String,
        /// A role: viewer, operator, admin, or an own one; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Read the password from stdin, one line, instead of asking for it
        #[arg(long, conflicts_with = "no_password")]
        password_stdin: bool,
        /// Create them without a password: they sign in by tokens or single sign-on
        #[arg(long)]
        no_password: bool,
    },
    /// List them, oldest first
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Let one do nothing any more, and end their sessions; their tokens do nothing meanwhile
    Disable {
        /// Name, address or id
        user: String,
    },
    /// Let one do again what they could
    Enable {
        /// Name, address or id
        user: String,
    },
    /// Give one another password and end their sessions; it is asked for
    Password {
        /// Name, address or id
        user: String,
        /// Read it from stdin, one line, instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Forget whom the OpenID Connect issuer knows as this user, and end their sessions; who comes next
    /// with their address becomes them
    Unlink {
        /// Name, address or id
        user: String,
    },
    /// Give one a role
    Grant {
        /// Name, address or id
        user: String,
        /// Which one
        role: String,
    },
    /// Take a role from one
    RevokeRole {
        /// Name, address or id
        user: String,
        /// Which one
        role: String,
    },
}

impl User {
    /// Does it, and writes what there is to tell to `out`.
    ///
    /// # Errors
    /// In words for a person.
    pub async fn run(self, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
        let operator = Actor::operator();
        match self {
            Self::Create {
                name,
                email,
                roles,
                password_stdin,
                no_password,
            } => {
                let password = match no_password {
                    true => None,
                    false => Some(password(password_stdin).await?),
                };
                let new = NewUser {
                    name: &name,
                    email: &email,
                    password: password.as_deref(),
                    roles: &roles,
                };
                let user = store.create_user(&operator, &new).await?;
                Ok(writeln!(out, "{}", user.id)?)
            }
            Self::List { json } => list(store, json, out).await,
            Self::Disable { user } => switch(store, &user, true, out).await,
            Self::Enable { user } => switch(store, &user, false, out).await,
            Self::Password {
                user,
                password_stdin,
            } => {
                let user = find(store, &user).await?;
                let change = UserChange {
                    password: Some(password(password_stdin).await?),
                    ..UserChange::default()
                };
                store.change_user(&operator, user.id, &change, None).await?;
                Ok(writeln!(out, "{} has another password", user.name)?)
            }
            Self::Unlink { user } => {
                let user = find(store, &user).await?;
                if store.unlink(&operator, user.id).await? == 0 {
                    bail!("no issuer knows {}", user.name);
                }
                Ok(writeln!(out, "{} is linked to no issuer", user.name)?)
            }
            Self::Grant { user, role } => {
                let user = find(store, &user).await?;
                store.grant_role(&operator, user.id, &role).await?;
                Ok(writeln!(out, "{} has the role {role}", user.name)?)
            }
            Self::RevokeRole { user, role } => {
                let user = find(store, &user).await?;
                if !store.revoke_role(&operator, user.id, &role).await? {
                    bail!("{} does not have the role {role}", user.name);
                }
                Ok(writeln!(out, "{} has the role {role} no more", user.name)?)
            }
        }
    }
}

async fn find(store: &Store, text: &str) -> anyhow::Result<Row> {
    let user = store.find_user(text).await?;
    user.with_context(|| format!("there is no user {text}; see `runcastd user list`"))
}

async fn switch(
    store: &Store,
    user: &str,
    disabled: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let user = find(store, user).await?;
    let change = UserChange {
        disabled: Some(disabled),
        ..UserChange::default()
    };
    let operator = Actor::operator();
    store.change_user(&operator, user.id, &change, None).await?;
    let now = if disabled { "disabled" } else { "enabled" };
    Ok(writeln!(out, "{} is {now}", user.name)?)
}

async fn list(store: &Store, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if !json {
        writeln!(
            out,
            "{:<36}  {:<20}  {:<30}  {:<9}  ROLES",
            "ID", "NAME", "EMAIL", "STATE"
        )?;
    }
    let mut after = None;
    loop {
        let users = store.users(after, SOME).await?;
        for user in &users {
            if json {
                serde_json::to_writer(&mut *out, user)?;
                writeln!(out)?;
                continue;
            }
            let state = match (user.disabled_at, user.has_password) {
                (Some(_), _) => "disabled",
                (None, true) => "enabled",
                (None, false) => "no passwd",
            };
            writeln!(
                out,
                "{}  {:<20}  {:<30}  {state:<9}  {}",
                user.id,
                user.name,
                user.email,
                user.roles.join(", ")
            )?;
        }
        if users.len() < usize::from(SOME) {
            return Ok(());
        }
        after = users.last().map(|user| user.id);
    }
}

/// The hash of a password that is read now.
async fn password(stdin: bool) -> anyhow::Result<String> {
    let password: SecretString = if stdin {
        let mut line = String::new();
        let most = MAX_BYTES as u64 + 3;
        let read = std::io::stdin().lock().take(most).read_line(&mut line);
        read.context("stdin")?;
        line.trim_end_matches(['\r', '\n']).to_owned().into()
    } else {
        prompt::password()?
    };
    Ok(Passwords::new()?.hash(&password).await?)
}
