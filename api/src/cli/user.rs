//! `runcastd user`: manages users and their roles, for the operator; above all the first
//! administrator.
//!
//! A password never stands on a command line, where other processes can read it: it comes from a
//! prompt on the terminal, or from stdin.

use std::io::{BufRead as _, Read as _, Write};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use secrecy::SecretString;

use super::output::json_line;
use super::prompt;
use runcast_access::password::{MAX_PASSWORD_BYTES, Passwords};
use runcast_store::Store;
use runcast_store::audit::Actor;
use runcast_store::users::{NewUser, User as Row, UserChange};

/// Users that one query reads.
const PAGE_USERS: u16 = 200;

/// What a line on stdin has beyond the password: CR, LF, and one byte that makes it too long.
const LINE_END_BYTES: u64 = 3;

/// What `--help` says beyond the commands.
pub const USER_HELP: &str = "\
The first administrator of an installation:

  runcastd user create ada --email ada@example.com --role admin

Built-in roles: viewer (sees all runs), operator (sees, starts and controls them), admin (everything,
users and tokens too). Create other roles, also for runs with certain labels alone, by
`POST /v1/roles`: {\"name\":\"search\",\"permissions\":[\"runs:read\"],\"labels\":{\"team\":\"search\"}}.

A person who signs in by OpenID Connect (RUNCAST_OIDC_ISSUER) becomes the user with the address that
the issuer has verified, and stays linked to that user even if addresses change. A user is linked to
one person of an issuer: another person with the same address is refused until `unlink`. Link a
person without a verified address by `POST /v1/users/USER/identities` {\"subject\":\"...\"}; the audit
log holds the subject of each refused person.

USER is a name, an address or an id. Changes apply at all gateways, as a rule at once and always
within seconds; the audit log (`GET /v1/audit`) records them as done by runcastd.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Create one and print its id; prompts for the password
    Create {
        /// ASCII letters, digits and . _ -
        name: String,
        /// E-mail address; the user can sign in by it too
        #[arg(long)]
        email: String,
        /// A role: viewer, operator, admin, or one of your own; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Read the password from stdin, one line, instead of prompting for it
        #[arg(long, conflicts_with = "no_password")]
        password_stdin: bool,
        /// Create the user without a password, to sign in by token or single sign-on
        #[arg(long)]
        no_password: bool,
    },
    /// List them, oldest first
    List {
        /// One JSON object per line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Disable one: sessions end, and tokens are refused until the user is enabled again
    Disable {
        /// Name, address or id
        user: String,
    },
    /// Enable one again
    Enable {
        /// Name, address or id
        user: String,
    },
    /// Change the password of one and end its sessions; prompts for the password
    Password {
        /// Name, address or id
        user: String,
        /// Read it from stdin, one line, instead of prompting for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Unlink one from its person at the OpenID Connect issuer, and end its sessions
    ///
    /// The next person who signs in with the user's address is linked to it.
    Unlink {
        /// Name, address or id
        user: String,
    },
    /// Grant one a role
    Grant {
        /// Name, address or id
        user: String,
        /// The role
        role: String,
    },
    /// Revoke a role from one
    RevokeRole {
        /// Name, address or id
        user: String,
        /// The role
        role: String,
    },
}

impl User {
    /// Runs the command and writes its result to `out`.
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
            Self::Disable { user } => set_disabled(store, &user, true, out).await,
            Self::Enable { user } => set_disabled(store, &user, false, out).await,
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
                Ok(writeln!(out, "{} has a new password", user.name)?)
            }
            Self::Unlink { user } => {
                let user = find(store, &user).await?;
                if store.unlink_identities(&operator, user.id).await? == 0 {
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
                Ok(writeln!(
                    out,
                    "{} no longer has the role {role}",
                    user.name
                )?)
            }
        }
    }
}

async fn find(store: &Store, text: &str) -> anyhow::Result<Row> {
    let user = store.find_user(text).await?;
    user.with_context(|| format!("there is no user {text}; see `runcastd user list`"))
}

async fn set_disabled(
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
        let users = store.users(after, PAGE_USERS).await?;
        for user in &users {
            if json {
                json_line(user, out)?;
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
        if users.len() < usize::from(PAGE_USERS) {
            return Ok(());
        }
        after = users.last().map(|user| user.id);
    }
}

/// Reads a password and returns its hash.
async fn password(stdin: bool) -> anyhow::Result<String> {
    let password: SecretString = if stdin {
        let mut line = String::new();
        let limit = MAX_PASSWORD_BYTES as u64 + LINE_END_BYTES;
        let read = std::io::stdin().lock().take(limit).read_line(&mut line);
        read.context("stdin")?;
        line.trim_end_matches(['\r', '\n']).to_owned().into()
    } else {
        prompt::password()?
    };
    Ok(Passwords::new()?.hash(&password).await?)
}
