//! The private Postgres of `runcastd dev`: its own cluster, its own port, never the system's.
//!
//! Postgres refuses to run as root; started by root it runs as the user `postgres`, which must be able
//! to reach the data folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::{User, chown};
use runcast_common::config::PostgresUrl;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::info;

use super::child::Child;
use super::start::{free_port, password};
use runcast_store::Store;

/// Whom it runs as when it is started by root.
const USER: &str = "postgres";

/// How long one attempt to reach it may take while it starts.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The running server.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) url: PostgresUrl,
}

/// Starts it on the data of `dir`, which is made at the first start.
pub(super) async fn start(dir: &Path) -> anyhow::Result<Server> {
    let home = dir.join("postgres");
    let user = runs_as()?;
    make_home(&home, user.as_ref()).await?;
    let password_file = dir.join("postgres-password");
    let password = password(&password_file)?;
    let binaries = binaries()?;
    if !home.join("PG_VERSION").exists() {
        info!("making a Postgres cluster in {}", home.display());
        make_cluster(&binaries, &home, user.as_ref(), &password_file).await?;
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
        .wait_until(async || matches!(timeout(ATTEMPT, probe.ping()).await, Ok(Ok(()))))
        .await?;
    probe.close().await;
    Ok(Server { child, url })
}

/// The folder with the newest server programs: Debian keeps them out of the PATH.
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

/// Makes the folder and gives it to the user that Postgres runs as.
async fn make_home(home: &Path, user: Option<&User>) -> anyhow::Result<()> {
    let cannot = || format!("cannot make {}", home.display());
    std::fs::create_dir_all(home).with_context(cannot)?;
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o700)).with_context(cannot)?;
    give(home, user)?;
    let Some(user) = user else {
        return Ok(());
    };
    let reached = as_user(Some(user), Path::new("test"))
        .arg("-x")
        .arg(home)
        .status()
        .await
        .context("cannot run setpriv")?;
    if !reached.success() {
        bail!(
            "RUNCAST_DATA_DIR: the user {}, as whom Postgres runs, cannot reach {}: choose a folder \
             below one that everybody may enter, such as /var/lib/runcast",
            user.name,
            home.display()
        );
    }
    Ok(())
}

/// initdb reads the password from a file, so that it stands in no argument; it must be allowed to.
async fn make_cluster(
    binaries: &Path,
    home: &Path,
    user: Option<&User>,
    password_file: &Path,
) -> anyhow::Result<()> {
    give(password_file, user)?;
    let mut command = as_user(user, &binaries.join("initdb"));
    command
        .arg("-D")
        .arg(home)
        .args(["-U", "runcast", "-E", "UTF8", "--locale=C.UTF-8"])
        .arg("--auth=scram-sha-256")
        .arg(format!("--pwfile={}", password_file.display()));
    let done = command.output().await.context("cannot start initdb")?;
    if !done.status.success() {
        bail!(
            "initdb failed: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(())
}

fn give(path: &Path, user: Option<&User>) -> anyhow::Result<()> {
    let Some(user) = user else {
        return Ok(());
    };
    let cannot = || format!("cannot give {} to {}", path.display(), user.name);
    chown(path, Some(user.uid), Some(user.gid)).with_context(cannot)
}

/// Whom Postgres runs as: us, or, as it refuses root, a user of its own.
fn runs_as() -> anyhow::Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name(USER)? {
        Some(user) => Ok(Some(user)),
        None => bail!(
            "there is no user {USER}, and Postgres does not run as root: install postgresql, or give DATABASE_URL"
        ),
    }
}

/// A command that runs as the given user, or as we do.
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
