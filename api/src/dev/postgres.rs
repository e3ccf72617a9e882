//! The private Postgres of `runcastd dev`: its own cluster and port, never those of the system.
//!
//! Postgres refuses to run as root: started by root it runs as the user `postgres`, which must be
//! able to reach the data folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::{User, chown};
use runcast_common::config::PostgresUrl;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::info;

use super::child::{Child, free_port};
use super::data_dir::password;
use runcast_store::Store;

/// The user that Postgres runs as when root starts it.
const POSTGRES_USER: &str = "postgres";

/// Longest time for one ping while the server starts.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// The running server.
pub(super) struct PostgresServer {
    pub(super) child: Child,
    pub(super) url: PostgresUrl,
}

/// Starts it on its data in the folder, and waits until it answers. The first start creates the
/// cluster.
pub(super) async fn start(dir: &Path) -> anyhow::Result<PostgresServer> {
    let home = dir.join("postgres");
    let user = server_user()?;
    create_folder(&home, user.as_ref()).await?;
    let password_file = dir.join("postgres-password");
    let password = password(&password_file)?;
    let binaries = binaries()?;
    if !home.join("PG_VERSION").exists() {
        info!("creating a Postgres cluster in {}", home.display());
        create_cluster(&binaries, &home, user.as_ref(), &password_file).await?;
    }
    let port = free_port()?;
    let arguments: Vec<String> = [
        "-D",
        &home.display().to_string(),
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-c",
        "unix_socket_directories=",
    ]
    .map(str::to_owned)
    .to_vec();
    let program = binaries.join("postgres");
    let mut child = Child::start(
        "Postgres",
        user.as_ref().map(|user| user.name.as_str()),
        &program,
        &arguments,
        &dir.join("postgres.log"),
    )?;
    let url: PostgresUrl = format!(
        "postgres://runcast:{}@127.0.0.1:{port}/postgres",
        password.expose()
    )
    .parse()?;
    let probe = Store::new(&url, "runcastd dev")?;
    child
        .wait_until(async || matches!(timeout(PING_TIMEOUT, probe.ping()).await, Ok(Ok(()))))
        .await?;
    probe.close().await;
    Ok(PostgresServer { child, url })
}

/// The folder with the newest server programs; Debian keeps them out of PATH.
fn binaries() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .max();
    if let Some((_, folder)) = newest {
        return Ok(folder);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("initdb").exists())
        .context(
            "no Postgres server is installed: apt-get install postgresql, or give DATABASE_URL",
        )
}

/// Creates the folder and gives it to the user that Postgres runs as.
async fn create_folder(home: &Path, user: Option<&User>) -> anyhow::Result<()> {
    let cannot = || format!("cannot create {}", home.display());
    std::fs::create_dir_all(home).with_context(cannot)?;
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o700)).with_context(cannot)?;
    give_to(home, user)?;
    let Some(user) = user else {
        return Ok(());
    };
    let reachable = as_user(Some(user), Path::new("test"))
        .arg("-x")
        .arg(home)
        .status()
        .await
        .context("cannot run setpriv")?;
    if !reachable.success() {
        bail!(
            "RUNCAST_DATA_DIR: Postgres runs as the user {}, which cannot reach {}: choose a folder \
             that all users can reach, such as /var/lib/runcast",
            user.name,
            home.display()
        );
    }
    Ok(())
}

/// Runs initdb. It reads the password from a file, which no other process can see in its arguments;
/// so the file must belong to the user that initdb runs as.
async fn create_cluster(
    binaries: &Path,
    home: &Path,
    user: Option<&User>,
    password_file: &Path,
) -> anyhow::Result<()> {
    give_to(password_file, user)?;
    let mut command = as_user(user, &binaries.join("initdb"));
    command
        .arg("-D")
        .arg(home)
        .args(["-U", "runcast", "-E", "UTF8", "--locale=C.UTF-8"])
        .arg("--auth=scram-sha-256")
        .arg(format!("--pwfile={}", password_file.display()));
    let output = command.output().await.context("cannot start initdb")?;
    if !output.status.success() {
        bail!(
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn give_to(path: &Path, user: Option<&User>) -> anyhow::Result<()> {
    let Some(user) = user else {
        return Ok(());
    };
    let cannot = || format!("cannot give {} to {}", path.display(), user.name);
    chown(path, Some(user.uid), Some(user.gid)).with_context(cannot)
}

/// The user that Postgres runs as: none for that of this process, which must not be root.
fn server_user() -> anyhow::Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name(POSTGRES_USER)? {
        Some(user) => Ok(Some(user)),
        None => bail!(
            "there is no user {POSTGRES_USER}, and Postgres does not run as root: install postgresql, or give DATABASE_URL"
        ),
    }
}

/// A command that runs as the given user, or as that of this process.
fn as_user(user: Option<&User>, program: &Path) -> Command {
    let Some(user) = user else {
        return Command::new(program);
    };
    let user = &user.name;
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--init-groups",
            "--",
        ])
        .arg(program);
    command
}
