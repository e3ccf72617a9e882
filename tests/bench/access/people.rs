//! Users with sessions and tokens, many at once, as the store has them.

use runcast_tests::stack::Stack;

/// Makes so many users who may read, each with a session and a token.
pub(crate) async fn make(stack: &Stack, count: usize) {
    for statement in [
        format!(
            "INSERT INTO users (id, name, email)
             SELECT gen_random_uuid(), 'user' || n, 'user' || n || '@example.com' FROM generate_series(0, {count} - 1) n"
        ),
        "INSERT INTO user_roles (user_id, role) SELECT id, 'viewer' FROM users".to_owned(),
        // Half of the tokens are of users, half of nobody.
        format!(
            "INSERT INTO tokens (id, hash, name, scopes, user_id)
             SELECT gen_random_uuid(), sha256(('{TOKEN}' || lpad(n::text, 43, '0'))::bytea), 'bench', '{{runs:read}}',
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

/// What tokens begin with.
const TOKEN: &str = "rct_";

/// Starts the session of a user, ending the one before.
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

/// Revokes and restores a token, which is two changes of it.
pub(crate) async fn change_token(stack: &Stack, token_of: usize) {
    for revoked in ["now()", "NULL"] {
        let change = format!(
            "UPDATE tokens SET revoked_at = {revoked} WHERE hash = sha256('{}')",
            token(token_of)
        );
        stack.database.execute(&change).await;
    }
}

/// Gives a user one more role, or takes it.
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

/// The secret of a user's session of that number.
pub(crate) fn session(user: usize, number: usize) -> String {
    format!("session-{user}-{number}")
}

/// The secret of a token.
pub(crate) fn token(number: usize) -> String {
    format!("{TOKEN}{number:043}")
}
