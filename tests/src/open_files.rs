//! The limit of open files: thousands of viewers need more than the default of a process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of this process to its hard limit; child processes inherit it. Panics if that
/// is less than `needed`.
pub fn raise_limit(needed: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    assert!(
        hard >= needed,
        "the hard limit of open files is {hard}, and {needed} are needed: raise it with `ulimit -Hn {needed}` as root"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the limit can be raised");
}
