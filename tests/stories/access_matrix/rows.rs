//! Rows of credentials, also such as no command would create.

use runcast_tests::stack::Stack;
use uuid::Uuid;

/// The row of a token, also one that no command would create.
#[derive(Debug, Clone)]
pub(super) struct TokenRow {
    columns: String,
    values: String,
}

impl TokenRow {
    pub(super) fn new(scope: &str) -> Self {
        Self {
            columns: "scopes".to_owned(),
            values: format!("'{{{scope}}}'"),
        }
    }

    /// A token of a run with this column for its parent, whose row says that it may do everything.
    pub(super) fn of_run(run: Uuid, (column, parent): &(&str, String)) -> Self {
        Self::new("admin")
            .with("run_id", &format!("'{run}'"))
            .with("renewed_at", "now()")
            .with(column, parent)
    }

    /// Sets a column to an SQL expression.
    pub(super) fn with(mut self, column: &str, value: &str) -> Self {
        self.columns = format!("{}, {column}", self.columns);
        self.values = format!("{}, {value}", self.values);
        self
    }

    /// Inserts it, and returns its secret.
    pub(super) async fn insert(&self, stack: &Stack) -> String {
        let (secret, Self { columns, values }) = (secret(), self);
        let insert = format!(
            "INSERT INTO tokens (id, hash, name, {columns})
             VALUES (gen_random_uuid(), sha256('{secret}'), 'matrix', {values})"
        );
        stack.database.execute(&insert).await;
        secret
    }
}

/// A random value in the form of a token.
pub(super) fn secret() -> String {
    let random = [Uuid::new_v4(), Uuid::new_v4()].map(|one| one.simple().to_string());
    format!("rct_{}", &random.concat()[..43])
}

/// Inserts a session; `whose` is the column of its owner, its expiry, and the source of the owner's
/// `id`.
pub(super) async fn session(stack: &Stack, whose: &str) -> String {
    let secret = Uuid::new_v4().simple().to_string();
    let (column, rest) = whose.split_once(", ").expect("a column and the rest");
    let insert = format!(
        "INSERT INTO sessions (hash, {column}, expires_at) SELECT sha256('{secret}'), id, {rest}"
    );
    stack.database.execute(&insert).await;
    secret
}
