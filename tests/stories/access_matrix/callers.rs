//! Every kind of caller: its credential, and its identity and rights. A new kind of credential is
//! one new entry in [`callers`].

use reqwest::{Method, RequestBuilder};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::Stack;
use serde_json::{Value, json};
use uuid::Uuid;

use super::path_parameters::{PathParameters, RUN_LABEL};
use super::rows::{TokenRow, secret, session};
use crate::access::fixtures::{ask, sign_in, user};
use crate::access::tickets::{ticket, with_ticket};

/// All scopes.
const ALL_SCOPES: [&str; 6] = [
    "runs:read",
    "runs:publish",
    "runs:control",
    "runs:delete",
    "runs:redact",
    "admin",
];

/// When valid credentials expire, and when expired ones did.
const FUTURE_EXPIRY: &str = "now() + interval '1 hour'";
const PAST_EXPIRY: &str = "now() - interval '1 second'";

/// The credential of a request.
#[derive(Debug, Clone)]
enum Credential {
    Nothing,
    /// `Authorization`.
    Header(String),
    /// Name and value of a cookie.
    Cookie(String),
    /// One ticket for all requests: used up, or never valid.
    Ticket(String),
    /// A new ticket for each request, created with a token and within bounds.
    NewTicket {
        token: String,
        bounds: Value,
    },
}

/// The kind of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityKind {
    /// A user who has signed in.
    User,
    /// A token that a user has created.
    TokenOfUser,
    /// A token without an owner, or a session that was opened with one.
    Token,
}

/// The runs on which an identity holds its scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// One run; is it the one in the paths?
    Run {
        is_ours: bool,
    },
    /// The runs with a label; has the one in the paths that label?
    Labelled {
        is_ours: bool,
    },
}

/// The identity behind a credential.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) kind: IdentityKind,
    pub(super) scopes: Vec<&'static str>,
    pub(super) reach: Reach,
}

/// A caller.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
    credential: Credential,
    /// None if the gateway must not accept the credential.
    pub(super) is: Option<Identity>,
}

impl Identity {
    /// Whether it holds the scope at all.
    pub(super) fn holds(&self, scope: &str) -> bool {
        self.scopes
            .iter()
            .any(|contained| *contained == scope || *contained == "admin")
    }

    /// Whether it holds the scope on the run in the paths.
    pub(super) fn may(&self, scope: &str) -> bool {
        let within = match self.reach {
            Reach::All => true,
            Reach::Run { is_ours } | Reach::Labelled { is_ours } => is_ours,
        };
        within && self.holds(scope)
    }

    /// Whether it administrates the installation.
    pub(super) fn administrates(&self) -> bool {
        self.holds("admin") && self.reach == Reach::All
    }
}

impl Caller {
    fn unauthenticated(name: &str, credential: Credential) -> Self {
        Self {
            name: name.to_owned(),
            credential,
            is: None,
        }
    }

    /// A request with the credential of the caller.
    pub(super) async fn asks(&self, api: &Api, method: &Method, path: &str) -> RequestBuilder {
        let ask = |path: &str| api.anonymous(method.clone(), path);
        match &self.credential {
            Credential::Nothing => ask(path),
            Credential::Header(value) => ask(path).header("authorization", value),
            Credential::Cookie(value) => ask(path).header("cookie", value),
            Credential::Ticket(one) => ask(&with_ticket(path, one)),
            Credential::NewTicket { token, bounds } => {
                let own = Api::new(api.base(), token);
                ask(&with_ticket(path, &ticket(&own, bounds).await))
            }
        }
    }

    /// Whether the caller is authenticated by a ticket.
    pub(super) const fn has_tickets(&self) -> bool {
        matches!(self.credential, Credential::NewTicket { .. })
    }
}

/// Creates all callers.
pub(super) async fn callers(stack: &Stack, parameters: &PathParameters) -> Vec<Caller> {
    let mut callers = unauthenticated_callers(stack).await;
    callers.extend(tokens(stack, parameters).await);
    callers.extend(tokens_of_runs(stack, parameters).await);
    callers.extend(users(stack).await);
    callers.extend(tickets(stack, parameters).await);
    callers
}

/// Callers that must get 401.
async fn unauthenticated_callers(stack: &Stack) -> Vec<Caller> {
    let header = |value: &str| Credential::Header(value.to_owned());
    let admin = TokenRow::new("admin");
    let expired = admin
        .clone()
        .with("expires_at", PAST_EXPIRY)
        .insert(stack)
        .await;
    let revoked = admin
        .clone()
        .with("revoked_at", PAST_EXPIRY)
        .insert(stack)
        .await;
    let ended = session(
        stack,
        &format!("token_id, {PAST_EXPIRY} FROM tokens LIMIT 1"),
    )
    .await;
    let of_revoked =
        format!("token_id, {FUTURE_EXPIRY} FROM tokens WHERE hash = sha256('{revoked}')");
    let of_revoked = session(stack, &of_revoked).await;

    let gone = user(stack, "gone", &["admin"]).await;
    let disabled = json!({"disabled": true});
    let path = format!("/v1/users/{gone}");
    ask(&stack.api(), Method::PATCH, &path, &disabled, 200).await;
    let of_deleted = format!("user_id, {FUTURE_EXPIRY} FROM users WHERE id = '{gone}'");
    let of_deleted = session(stack, &of_deleted).await;
    let token_of_deleted = format!("'{gone}'");
    let token_of_deleted = admin.with("user_id", &token_of_deleted).insert(stack).await;

    let of_ended_parents = tokens_of_ended_parents(stack, &revoked, &gone).await;
    let api = stack.api();
    let of_no_user = new_ticket(stack, "revoked_at = now()").await;
    let of_the_past = new_ticket(stack, "expires_at = now()").await;
    let used = ticket(&api, &json!({})).await;
    let using = api.anonymous(Method::GET, &with_ticket("/v1/feed", &used));
    assert!(send(using).await.status().is_success());
    let unused = ticket(&api, &json!({})).await;
    let mut callers = vec![
        Caller::unauthenticated("nobody", Credential::Nothing),
        Caller::unauthenticated("an empty header", header("")),
        Caller::unauthenticated("another scheme", header("Basic cm9vdDpyb290")),
        Caller::unauthenticated("a scheme alone", header("Bearer")),
        Caller::unauthenticated("half a token", bearer("rct_AAAA")),
        Caller::unauthenticated("an unknown token", bearer(&secret())),
        Caller::unauthenticated("an endless token", bearer(&"x".repeat(4000))),
        Caller::unauthenticated("an expired token", bearer(&expired)),
        Caller::unauthenticated("a revoked token", bearer(&revoked)),
        Caller::unauthenticated("an unknown session", cookie("nonsense")),
        Caller::unauthenticated("an ended session", cookie(&ended)),
        Caller::unauthenticated("a session of a revoked token", cookie(&of_revoked)),
        Caller::unauthenticated("a token as a session", cookie(stack.token())),
        Caller::unauthenticated("a session of a disabled user", cookie(&of_deleted)),
        Caller::unauthenticated("a token of a disabled user", bearer(&token_of_deleted)),
        Caller::unauthenticated("an unknown ticket", by("rcs_", 43)),
        Caller::unauthenticated("half a ticket", by("rcs_", 20)),
        Caller::unauthenticated("an endless ticket", by("rcs_", 4000)),
        Caller::unauthenticated("a used ticket", Credential::Ticket(used)),
        Caller::unauthenticated(
            "a ticket of a revoked token",
            Credential::Ticket(of_no_user),
        ),
        Caller::unauthenticated(
            "a ticket of an expired token",
            Credential::Ticket(of_the_past),
        ),
        Caller::unauthenticated(
            "a token as a ticket",
            Credential::Ticket(stack.token().to_owned()),
        ),
        Caller::unauthenticated("a ticket as a token", bearer(&unused)),
        Caller::unauthenticated("a ticket as a session", cookie(&unused)),
    ];
    callers.extend(of_ended_parents);
    callers
}

/// Tokens of a run that come from a revoked token, and from a disabled user.
async fn tokens_of_ended_parents(stack: &Stack, token: &str, user: &str) -> [Caller; 2] {
    let run = stack.api().create_run("of ended parents").await.id;
    let parents = [parent_of(token), ("user_id", format!("'{user}'"))];
    let [of_token, of_user] = parents.map(|parent| TokenRow::of_run(run, &parent));
    [
        Caller::unauthenticated(
            "a token of a run that comes from a revoked token",
            bearer(&of_token.insert(stack).await),
        ),
        Caller::unauthenticated(
            "a token of a run that comes from a disabled user",
            bearer(&of_user.insert(stack).await),
        ),
    ]
}

/// Each scope alone, for all runs, for one, and for those with a label; each as a token, and as a
/// session opened with it.
async fn tokens(stack: &Stack, parameters: &PathParameters) -> Vec<Caller> {
    let mut callers = Vec::new();
    let run = |run: Uuid| Some(("run_id", format!("'{run}'")));
    let label = |value: &str| {
        let (name, _) = RUN_LABEL;
        Some(("labels", format!(r#"'{{"{name}":"{value}"}}'"#)))
    };
    let bounds = [
        ("", Reach::All, None),
        (
            " of this run",
            Reach::Run { is_ours: true },
            run(parameters.run()),
        ),
        (
            " of another run",
            Reach::Run { is_ours: false },
            run(parameters.other_run()),
        ),
        (
            " of runs like this",
            Reach::Labelled { is_ours: true },
            label(RUN_LABEL.1),
        ),
        (
            " of other runs",
            Reach::Labelled { is_ours: false },
            label("other"),
        ),
    ];
    for scope in ALL_SCOPES {
        for (name, reach, bound) in &bounds {
            let mut row = TokenRow::new(scope);
            if let Some((column, value)) = bound {
                row = row.with(column, value);
            }
            let secret = row.insert(stack).await;
            let of_it =
                format!("token_id, {FUTURE_EXPIRY} FROM tokens WHERE hash = sha256('{secret}')");
            let name = format!("{scope}{name}");
            let is = Some(Identity {
                kind: IdentityKind::Token,
                scopes: vec![scope],
                reach: *reach,
            });
            callers.push(Caller {
                name: format!("a session with {name}"),
                credential: cookie(&session(stack, &of_it).await),
                is: is.clone(),
            });
            callers.push(Caller {
                name,
                credential: bearer(&secret),
                is,
            });
        }
    }
    callers
}

/// Tokens of this run and of another one, whose rows say that they may do everything; their parent
/// may read all runs and publish to them.
async fn tokens_of_runs(stack: &Stack, parameters: &PathParameters) -> Vec<Caller> {
    let mut callers = Vec::new();
    let parent = TokenRow::new("runs:publish,runs:read").insert(stack).await;
    for (name, run, is_ours) in [
        ("this run", parameters.run(), true),
        ("another run", parameters.other_run(), false),
    ] {
        let row = TokenRow::of_run(run, &parent_of(&parent));
        callers.push(Caller {
            name: format!("a token issued with {name}"),
            credential: bearer(&row.insert(stack).await),
            is: Some(Identity {
                kind: IdentityKind::Token,
                scopes: vec!["runs:publish", "runs:read"],
                reach: Reach::Run { is_ours },
            }),
        });
    }
    callers
}

/// The column of a parent token, and its value.
fn parent_of(secret: &str) -> (&'static str, String) {
    let id = format!("(SELECT id FROM tokens WHERE hash = sha256('{secret}'))");
    ("parent_id", id)
}

/// Each role, and a custom role with bounds; signed in by password.
async fn users(stack: &Stack) -> Vec<Caller> {
    let api = stack.api();
    for (name, value) in [("mine", RUN_LABEL.1), ("theirs", "other")] {
        let labels = json!({RUN_LABEL.0: value});
        let role = json!({"name": name, "permissions": ["runs:control", "runs:publish", "runs:read"], "labels": labels});
        ask(&api, Method::POST, "/v1/roles", &role, 201).await;
    }
    let work = vec!["runs:read", "runs:publish", "runs:control"];
    let roles = [
        (None, vec![], Reach::All),
        (Some("viewer"), vec!["runs:read"], Reach::All),
        (Some("operator"), work.clone(), Reach::All),
        (Some("admin"), vec!["admin"], Reach::All),
        (
            Some("mine"),
            work.clone(),
            Reach::Labelled { is_ours: true },
        ),
        (Some("theirs"), work, Reach::Labelled { is_ours: false }),
    ];
    let mut callers = Vec::new();
    for (role, scopes, reach) in roles {
        let name = format!("with-{}", role.unwrap_or("nothing"));
        let id = user(stack, &name, &role.into_iter().collect::<Vec<_>>()).await;
        callers.push(Caller {
            credential: Credential::Cookie(sign_in(&api, &name).await.cookie),
            is: Some(Identity {
                kind: IdentityKind::User,
                scopes: scopes.clone(),
                reach,
            }),
            name: format!("a user {name}"),
        });
        // Whatever the token's row says, it never has more rights than its user.
        let row = TokenRow::new("admin").with("user_id", &format!("'{id}'"));
        callers.push(Caller {
            credential: bearer(&row.insert(stack).await),
            is: Some(Identity {
                kind: IdentityKind::TokenOfUser,
                scopes,
                reach,
            }),
            name: format!("a token of a user {name}"),
        });
    }
    callers
}

/// Tickets of callers with many rights, with and without bounds: they permit only opening streams.
async fn tickets(stack: &Stack, parameters: &PathParameters) -> Vec<Caller> {
    let run = |run: Uuid| json!({"runs": [run]});
    let mut callers = Vec::new();
    for scope in ["runs:read", "admin"] {
        let token = TokenRow::new(scope).insert(stack).await;
        for (name, reach, bounds) in [
            ("", Reach::All, json!({})),
            (
                " for this run",
                Reach::Run { is_ours: true },
                run(parameters.run()),
            ),
            (
                " for another run",
                Reach::Run { is_ours: false },
                run(parameters.other_run()),
            ),
        ] {
            callers.push(Caller {
                name: format!("a ticket of {scope}{name}"),
                credential: Credential::NewTicket {
                    token: token.clone(),
                    bounds,
                },
                is: Some(Identity {
                    kind: IdentityKind::Token,
                    scopes: vec!["runs:read"],
                    reach,
                }),
            });
        }
    }
    callers
}

/// A ticket of a token that this statement changes right afterwards.
async fn new_ticket(stack: &Stack, change: &str) -> String {
    let token = TokenRow::new("admin").insert(stack).await;
    let created = ticket(&Api::new(stack.api().base(), &token), &json!({})).await;
    let change = format!("UPDATE tokens SET {change} WHERE hash = sha256('{token}')");
    stack.database.execute(&change).await;
    // Until the gateway has processed the change.
    let waiting = "SELECT count(*) FROM access_changes";
    stack.database.wait_for_number(waiting, 0).await;
    created
}

/// A random value in the form of a ticket, of this many letters.
fn by(prefix: &str, letters: usize) -> Credential {
    Credential::Ticket(format!("{prefix}{}", "x".repeat(letters)))
}

fn bearer(token: &str) -> Credential {
    Credential::Header(format!("Bearer {token}"))
}

fn cookie(session: &str) -> Credential {
    Credential::Cookie(format!("runcast_session={session}"))
}
