//! Everybody who may knock: by what, and what they are known to be. A new kind of credential is a new entry in
//! [`callers`], and nothing else.

use reqwest::Method;
use runcast_tests::api::send;
use runcast_tests::stack::Stack;
use uuid::Uuid;

use super::places::Places;

/// All scopes.
const SCOPES: [&str; 4] = ["runs:read", "runs:publish", "runs:control", "admin"];

/// When what is valid ends.
const LATER: &str = "now() + interval '1 hour'";
const PAST: &str = "now() - interval '1 second'";

/// What a request shows.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Nothing,
    /// `Authorization`.
    Header(String),
    Cookie(String),
}

/// Whom a credential stands for.
#[derive(Debug, Clone)]
pub(super) enum Is {
    Nobody,
    Somebody {
        scopes: Vec<&'static str>,
        /// The runs that they may touch.
        bound: Option<Bound>,
        /// True if there is a user behind it.
        is_user: bool,
    },
}

/// Runs that somebody is bound to, by id or by labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The one that paths name is among them.
    pub(super) is_ours: bool,
}

/// Somebody who knocks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) credential: Credential,
    pub(super) is: Is,
}

impl Caller {
    fn nobody(name: &str, credential: Credential) -> Self {
        Self {
            name: name.to_owned(),
            credential,
            is: Is::Nobody,
        }
    }
}

/// Makes all of them.
pub(super) async fn callers(stack: &Stack, places: &Places) -> Vec<Caller> {
    let mut callers = nobodies(stack).await;
    callers.extend(tokens(stack, places).await);
    callers.extend(users(stack).await);
    callers
}

/// Who is refused everywhere.
async fn nobodies(stack: &Stack) -> Vec<Caller> {
    let unknown = "rct_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let admin = Wanted::of("admin");
    let expired = token(
        stack,
        &Wanted {
            expires: PAST,
            ..admin.clone()
        },
    )
    .await;
    let revoked = token(
        stack,
        &Wanted {
            revoked: "now()",
            ..admin.clone()
        },
    )
    .await;
    let ended = session(stack, &owner_of(stack.token()), PAST).await;
    let orphan = session(stack, &owner_of(&revoked), LATER).await;
    let gone = user(stack, "gone", &["admin"]).await;
    let of_gone = Wanted {
        user: Some(gone),
        ..admin.clone()
    };
    let token_of_gone = token(stack, &of_gone).await;
    let session_of_gone = session(stack, &owner(gone), LATER).await;
    let late = user(stack, "late", &["admin"]).await;
    let late_session = session(stack, &owner(late), PAST).await;
    // Both were known, and their copies were in use, before they ended.
    let used = token(stack, &admin).await;
    let signed_out = session(stack, &owner(late), LATER).await;
    for (used, end) in [
        (
            bearer(&used),
            format!("UPDATE tokens SET revoked_at = now() WHERE hash = sha256('{used}')"),
        ),
        (
            cookie(&signed_out),
            format!("DELETE FROM sessions WHERE hash = sha256('{signed_out}')"),
        ),
        (
            cookie(&session_of_gone),
            format!("UPDATE users SET disabled_at = now() WHERE id = '{gone}'"),
        ),
    ] {
        let request = used.show(stack.api().anonymous(Method::GET, "/v1/users"));
        assert_eq!(send(request).await.status(), 200, "{used:?}");
        stack.database.tamper(&end).await;
    }
    let waiting = "SELECT count(*) FROM access_changes";
    stack.database.comes_to(waiting, 0).await;
    let header = |value: &str| Credential::Header(value.to_owned());
    vec![
        Caller::nobody("nobody", Credential::Nothing),
        Caller::nobody("an empty header", header("")),
        Caller::nobody("another scheme", header("Basic cm9vdDpyb290")),
        Caller::nobody("a scheme alone", header("Bearer")),
        Caller::nobody("a token that never was", bearer(unknown)),
        Caller::nobody("a token of half a mile", bearer(&"x".repeat(4000))),
        Caller::nobody("an expired token", bearer(&expired)),
        Caller::nobody("a revoked token", bearer(&revoked)),
        Caller::nobody("a token revoked after use", bearer(&used)),
        Caller::nobody("a session that never was", cookie("nonsense")),
        Caller::nobody("a session that has ended", cookie(&ended)),
        Caller::nobody("a user's session that has ended", cookie(&late_session)),
        Caller::nobody("a session ended after use", cookie(&signed_out)),
        Caller::nobody("a session of a revoked token", cookie(&orphan)),
        Caller::nobody("a session of a disabled user", cookie(&session_of_gone)),
        Caller::nobody("a token of a disabled user", bearer(&token_of_gone)),
        // The header is what counts; the session does not help it.
        Caller::nobody(
            "a revoked token that was shown as a session",
            cookie(&revoked),
        ),
    ]
}

/// Tokens that no user has made, and sessions that were signed in with them: by scope, and by bound.
async fn tokens(stack: &Stack, places: &Places) -> Vec<Caller> {
    let mut callers = Vec::new();
    for scope in SCOPES {
        let open = Wanted::of(scope);
        for (name, bound, wanted) in [
            ("", None, open.clone()),
            (
                " of this run",
                Some(true),
                Wanted {
                    run: Some(places.run()),
                    ..open.clone()
                },
            ),
            (
                " of another run",
                Some(false),
                Wanted {
                    run: Some(places.other_run()),
                    ..open.clone()
                },
            ),
            (
                " of these labels",
                Some(true),
                Wanted {
                    labels: Some(super::places::LABELS),
                    ..open.clone()
                },
            ),
            (
                " of other labels",
                Some(false),
                Wanted {
                    labels: Some(OTHER_LABELS),
                    ..open.clone()
                },
            ),
        ] {
            let secret = token(stack, &wanted).await;
            let is = Is::Somebody {
                scopes: vec![scope],
                bound: bound.map(|is_ours| Bound { is_ours }),
                is_user: false,
            };
            callers.push(Caller {
                name: format!("a session with {scope}{name}"),
                credential: cookie(&session(stack, &owner_of(&secret), LATER).await),
                is: is.clone(),
            });
            callers.push(Caller {
                name: format!("{scope}{name}"),
                credential: bearer(&secret),
                is,
            });
        }
    }
    callers
}

/// Labels that the run in paths does not have.
const OTHER_LABELS: &str = r#"{"team": "other"}"#;

/// Users with each role that is built in, with none, and with roles that are bounded by labels; by session, and by a token
/// of theirs that asks for everything and gets what they have.
async fn users(stack: &Stack) -> Vec<Caller> {
    let everything = &["runs:read", "runs:publish", "runs:control"][..];
    for (role, labels) in [("inside", super::places::LABELS), ("outside", OTHER_LABELS)] {
        let make = format!("INSERT INTO roles (name, labels) VALUES ('{role}', '{labels}')");
        stack.database.tamper(&make).await;
        for scope in SCOPES {
            let permit = format!("INSERT INTO role_permissions VALUES ('{role}', '{scope}')");
            stack.database.tamper(&permit).await;
        }
    }
    let mut callers = Vec::new();
    for (name, roles, scopes, bound) in [
        ("no role", &[][..], &[][..], None),
        ("viewer", &["viewer"], &["runs:read"], None),
        ("operator", &["operator"], everything, None),
        ("admin", &["admin"], &["admin"], None),
        ("a role for its labels", &["inside"], everything, Some(true)),
        (
            "a role for other labels",
            &["outside"],
            everything,
            Some(false),
        ),
        // What one role allows, another does not take away.
        (
            "viewer, more elsewhere",
            &["viewer", "outside"],
            &["runs:read"],
            None,
        ),
    ] {
        let id = user(stack, &name.replace([' ', ','], "-"), roles).await;
        let is = Is::Somebody {
            scopes: scopes.to_vec(),
            bound: bound.map(|is_ours| Bound { is_ours }),
            is_user: true,
        };
        callers.push(Caller {
            name: format!("a user with {name}"),
            credential: cookie(&session(stack, &owner(id), LATER).await),
            is: is.clone(),
        });
        let wanted = Wanted {
            user: Some(id),
            ..Wanted::of("admin")
        };
        callers.push(Caller {
            name: format!("a token of a user with {name}"),
            credential: bearer(&token(stack, &wanted).await),
            is,
        });
    }
    callers
}

impl Credential {
    /// The request with it.
    pub(super) fn show(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Header(value) => request.header("authorization", value),
            Self::Cookie(value) => request.header("cookie", value),
        }
    }
}

/// A token as it is to be, in words of SQL where that is shorter.
#[derive(Debug, Clone)]
struct Wanted {
    scope: &'static str,
    run: Option<Uuid>,
    labels: Option<&'static str>,
    user: Option<Uuid>,
    expires: &'static str,
    revoked: &'static str,
}

impl Wanted {
    const fn of(scope: &'static str) -> Self {
        Self {
            scope,
            run: None,
            labels: None,
            user: None,
            expires: "NULL",
            revoked: "NULL",
        }
    }
}

/// A token as the store has it, which may be one that no command would make.
async fn token(stack: &Stack, wanted: &Wanted) -> String {
    let secret = format!("rct_{:0>43}", Uuid::new_v4().simple().to_string());
    let quoted = |text: Option<String>| text.map_or("NULL".to_owned(), |text| format!("'{text}'"));
    let insert = format!(
        "INSERT INTO tokens (id, hash, name, scopes, run_id, labels, user_id, expires_at, revoked_at)
         VALUES (gen_random_uuid(), sha256('{secret}'), 'matrix', '{{{}}}', {}, {}, {}, {}, {})",
        wanted.scope,
        quoted(wanted.run.map(|run| run.to_string())),
        quoted(wanted.labels.map(str::to_owned)),
        quoted(wanted.user.map(|user| user.to_string())),
        wanted.expires,
        wanted.revoked,
    );
    stack.database.tamper(&insert).await;
    secret
}

/// A user with these roles.
async fn user(stack: &Stack, name: &str, roles: &[&str]) -> Uuid {
    let id = Uuid::now_v7();
    let insert = format!(
        "INSERT INTO users (id, name, email) VALUES ('{id}', '{name}', '{name}@example.com')"
    );
    stack.database.tamper(&insert).await;
    for role in roles {
        let grant = format!("INSERT INTO user_roles (user_id, role) VALUES ('{id}', '{role}')");
        stack.database.tamper(&grant).await;
    }
    id
}

/// Whose a session is, as SQL: the user, and the token.
fn owner(user: Uuid) -> String {
    format!("'{user}', NULL")
}

fn owner_of(token: &str) -> String {
    format!("NULL, (SELECT id FROM tokens WHERE hash = sha256('{token}'))")
}

/// A session with this end.
async fn session(stack: &Stack, owner: &str, expires: &str) -> String {
    let secret = Uuid::new_v4().simple().to_string();
    let insert = format!(
        "INSERT INTO sessions (hash, user_id, token_id, expires_at)
         VALUES (sha256('{secret}'), {owner}, {expires})"
    );
    stack.database.tamper(&insert).await;
    secret
}

fn bearer(token: &str) -> Credential {
    Credential::Header(format!("Bearer {token}"))
}

fn cookie(session: &str) -> Credential {
    Credential::Cookie(format!("runcast_session={session}"))
}
