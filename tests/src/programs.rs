//! Paths of the programs under test and of the servers they need, and free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The root of the repository, the parent folder of this crate.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in a folder of the repository")
}

/// The service, `runcastd`.
pub fn runcastd() -> PathBuf {
    built_program("runcastd")
}

/// The export, `runcast-export`.
pub fn runcast_export() -> PathBuf {
    built_program("runcast-export")
}

/// The agent, `runcast`.
pub fn runcast() -> PathBuf {
    built_program("runcast")
}

/// A program built into the same profile folder as the running test.
fn built_program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the running test");
    // target/<profile>/deps/stories-<hash>
    let profile = test.parent().and_then(Path::parent);
    let program = profile.expect("a profile folder").join(name);
    assert!(
        program.is_file(),
        "{} is missing: build the programs first, `cargo build --workspace --bins`, or call tests/run",
        program.display()
    );
    program
}

/// A program of the Python environment of this name that `deploy/local/install` has created.
pub fn python_program(environment: &str, program: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = cache.or_else(home).expect("a home folder");
    let path = cache.join(format!("runcast/{environment}/bin/{program}"));
    assert!(
        path.is_file(),
        "{} is missing: call tests/run, which installs it",
        path.display()
    );
    path
}

/// The folder of the Postgres server programs of the newest installed version.
pub fn postgres_folder() -> PathBuf {
    let version = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = debian
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(version)
        .map(|path| path.join("bin"));
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").is_file())
    };
    newest.or_else(in_path).expect(
        "no Postgres server programs (initdb) in /usr/lib/postgresql or PATH: \
         call tests/run, which installs them",
    )
}

/// A free port below the range of ports for outgoing connections. Two test processes may get the
/// same one: try again with another if it was taken in the meantime.
pub fn free_port() -> u16 {
    const PORT_RANGE: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let [one, other, ..] = *uuid::Uuid::new_v4().as_bytes();
        AtomicU16::new(u16::from_be_bytes([one, other]))
    });
    (0..1000)
        .map(|_| {
            PORT_RANGE.start
                + NEXT.fetch_add(1, Ordering::Relaxed) % (PORT_RANGE.end - PORT_RANGE.start)
        })
        .find(|&port| TcpListener::bind(loopback(port)).is_ok())
        .expect("no free port among a thousand between 20000 and 32000")
}

/// A port of the loopback address.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
