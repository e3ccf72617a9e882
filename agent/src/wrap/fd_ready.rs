//! Waits for a descriptor that has no tokio type: an `epoll`, a terminal.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with tokio. Must be called within a tokio runtime. Fails for descriptors
/// that are always ready.
#[expect(unsafe_code, reason = "tokio has no safe call for an owned descriptor")]
pub(crate) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid and unchanged until it is dropped. It is moved into the
    // `AsyncFd`, which deregisters it before closing it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
