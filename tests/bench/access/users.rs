//! Many users with sessions and tokens, inserted directly as the store keeps them.

use runcast_tests::stack::Stack;

/// Creates this many users with read access, each with a session and a token.
pub(crate) async fn make(stack: &Stack, count: usize) {
    for statement in [
        format!(
            "INSERT INTO users (id, name, email)
             SELECT gen_random_uuid(), 'user' || n, 'user' || n || '@example.com' FROM generate_series(0, {count} - 1) n"
        ),
        "INSERT INTO user_roles (user_id, role) SELECT id, 'viewer' FROM users".to_owned(),
        // Half of the tokens belong to users, half to none.
        format!(
            "INSERT INTO tokens (id, hash, name, scopes, user_id)
             SELECT gen_random_uuid(), sha256(('{TOKEN_PREFIX}' || lpad(n::text, 43, '0'))::bytea), 'bench', '{{runs:read}}',
                    CASE WHEN n % 2 = 0 THEN (SELECT id FROM users WHERE name = 'user' || n) END
               FROM generate_series(0, {count} - 1) n"
        ),
    ] {
        stack.database.execute(&statement).await;
    }
    for user in 0..count {
        sign_in(stack, user, 0).await;
    }
}

/// The prefix of tokens.
const TOKEN_PREFIX: &str = "rct_";

/// Starts a session of a user, and ends the previous one.
pub(crate) async fn sign_in(stack: &Stack, user: usize, number: usize) {
    let end = format!(
        "DELETE FROM sessions WHERE user_id = (SELECT id FROM users WHERE name = 'user{user}')"
    );
    let start = format!(
        "INSERT INTO sessions (hash, user_id, expires_at)
         SELECT sha256('{}'), id, now() + interval '1 day' FROM users WHERE name = 'user{user}'",
        session(user, number)
    );
    stack.database.execute(&end).await;
    stack.database.execute(&start).await;
}

/// Revokes and restores a token: two changes.
pub(crate) async fn change_token(stack: &Stack, token_of: usize) {
    for revoked in ["now()", "NULL"] {
        let change = format!(
            "UPDATE tokens SET revoked_at = {revoked} WHERE hash = sha256('{}')",
            token(token_of)
        );
        stack.database.execute(&change).await;
    }
}

/// Gives a user one more role, or removes it.
pub(crate) async fn change_roles(stack: &Stack, user: usize) {
    let take = format!(
        "DELETE FROM user_roles WHERE role = 'operator'
            AND user_id = (SELECT id FROM users WHERE name = 'user{user}')"
    );
    let give = format!(
        "INSERT INTO user_roles (user_id, role)
         SELECT id, 'operator' FROM users WHERE name = 'user{user}'"
    );
    stack.database.execute(&take).await;
    stack.database.execute(&give).await;
}

/// The secret of a user's session with this number.
pub(crate) fn session(user: usize, number: usize) -> String {
    format!("session-{user}-{number}")
}

/// The secret of a token.
pub(crate) fn token(number: usize) -> String {
    format!("{TOKEN_PREFIX}{number:043}")
}
