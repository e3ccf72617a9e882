//! Waits for a descriptor that tokio has no type for: an `epoll`, a terminal.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets tokio tell when the descriptor is ready. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel refuses, as for a descriptor that is always ready.
#[expect(unsafe_code, reason = "tokio has no safe call for an owned descriptor")]
pub(crate) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid and the same until it is dropped; it is moved into the `AsyncFd`, which
    // takes it off the reactor before it is closed.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
