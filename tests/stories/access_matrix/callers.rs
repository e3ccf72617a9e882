//! Everybody who may knock: by what, and what they are known to be. A new kind of credential is a new entry in
//! [`callers`], and nothing else.

use runcast_tests::stack::Stack;
use uuid::Uuid;

use super::places::Places;

/// All scopes.
const SCOPES: [&str; 4] = ["runs:read", "runs:publish", "runs:control", "admin"];

/// When what is valid ends.
const LATER: &str = "now() + interval '1 hour'";

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
        /// The only run that they may touch.
        run: Option<Bound>,
    },
}

/// A run that somebody is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// It is the one that paths name.
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
    let header = |value: &str| Credential::Header(value.to_owned());
    let bearer = |token: &str| Credential::Header(format!("Bearer {token}"));
    let all = "'{admin}'";
    let expired = token(stack, all, None, "now() - interval '1 second'", "NULL").await;
    let revoked = token(stack, all, None, "NULL", "now()").await;
    let unknown = "rct_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let ended = session(stack, stack.token(), "now() - interval '1 second'").await;
    let orphan = session(stack, &revoked, LATER).await;
    let mut callers = vec![
        Caller::nobody("nobody", Credential::Nothing),
        Caller::nobody("an empty header", header("")),
        Caller::nobody("another scheme", header("Basic cm9vdDpyb290")),
        Caller::nobody("a scheme alone", header("Bearer")),
        Caller::nobody("a token that never was", bearer(unknown)),
        Caller::nobody("a token of half a mile", bearer(&"x".repeat(4000))),
        Caller::nobody("an expired token", bearer(&expired)),
        Caller::nobody("a revoked token", bearer(&revoked)),
        Caller::nobody("a session that never was", cookie("nonsense")),
        Caller::nobody("a session that has ended", cookie(&ended)),
        Caller::nobody("a session of a revoked token", cookie(&orphan)),
        // The header is what counts; the session does not help it.
        Caller::nobody(
            "a revoked token that was shown as a session",
            cookie(&revoked),
        ),
    ];
    for scope in SCOPES {
        let scopes = format!("'{{{scope}}}'");
        let run = |is_ours| match is_ours {
            true => places.run(),
            false => places.other_run(),
        };
        for bound in [None, Some(true), Some(false)] {
            let secret = token(stack, &scopes, bound.map(run), "NULL", "NULL").await;
            let name = match bound {
                None => scope.to_owned(),
                Some(true) => format!("{scope} of this run"),
                Some(false) => format!("{scope} of another run"),
            };
            let is = Is::Somebody {
                scopes: vec![scope],
                run: bound.map(|is_ours| Bound { is_ours }),
            };
            callers.push(Caller {
                name: format!("a session with {name}"),
                credential: cookie(&session(stack, &secret, LATER).await),
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

/// A token as the store has it, which may be one that no command would make.
async fn token(
    stack: &Stack,
    scopes: &str,
    run: Option<Uuid>,
    expires: &str,
    revoked: &str,
) -> String {
    let secret = format!("rct_{}", Uuid::new_v4().simple());
    let run = run.map_or("NULL".to_owned(), |run| format!("'{run}'"));
    let insert = format!(
        "INSERT INTO tokens (id, hash, name, scopes, run_id, expires_at, revoked_at)
         VALUES (gen_random_uuid(), sha256('{secret}'), 'matrix', {scopes}, {run}, {expires}, {revoked})"
    );
    stack.database.tamper(&insert).await;
    secret
}

/// A session of the token, with this end.
async fn session(stack: &Stack, token: &str, expires: &str) -> String {
    let secret = Uuid::new_v4().simple().to_string();
    let insert = format!(
        "INSERT INTO sessions (hash, token_id, expires_at)
         SELECT sha256('{secret}'), id, {expires} FROM tokens WHERE hash = sha256('{token}')"
    );
    stack.database.tamper(&insert).await;
    secret
}

fn cookie(session: &str) -> Credential {
    Credential::Cookie(format!("runcast_session={session}"))
}
