//! Backups of a database by `pg_dump`, and how an operator restores them.

use std::path::Path;
use std::process::Stdio;

use crate::postgres::PostgresServer;
use crate::programs;

impl PostgresServer {
    /// Writes a backup of a database to a file.
    pub async fn dump(&self, database: &str, file: &Path) {
        let file = file.to_str().expect("a path in UTF-8");
        self.run_tool("pg_dump", database, &["--format=custom", "--file", file])
            .await;
    }

    /// Drops a database, also while services are connected to it, and creates an empty one.
    pub async fn make_empty(&self, database: &str) {
        self.execute_as_admin(&format!("DROP DATABASE {database} WITH (FORCE)"))
            .await;
        self.execute_as_admin(&format!("CREATE DATABASE {database}"))
            .await;
    }

    /// Fills an empty database from a backup, without any error.
    pub async fn restore(&self, database: &str, file: &Path) {
        let file = file.to_str().expect("a path in UTF-8");
        self.run_tool("pg_restore", database, &["--exit-on-error", file])
            .await;
    }

    async fn run_tool(&self, tool: &str, database: &str, arguments: &[&str]) {
        let mut command = tokio::process::Command::new(programs::postgres_folder().join(tool));
        command
            .arg("--dbname")
            .arg(self.url(database, self.port()))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command.output().await.expect("the tool of Postgres runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool}: {errors}");
    }
}
