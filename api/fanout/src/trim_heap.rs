//! Memory that was freed and that the allocator keeps.
//!
//! Letting a viewer in takes some tens of KiB for a moment (buffers of the HTTP library, what asks Redis and Postgres), and
//! keeps a few hundred bytes. After thousands have come in one moment glibc's allocator would hold what that took for
//! good, since small things that stay lie in between; it knows which pages are empty, and gives them back when it is told to.

/// Gives empty pages back to the system. Takes milliseconds for each hundred MiB, in which others may have to wait for
/// memory. Allocators other than that of glibc are left alone.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no safe form of it")]
    // SAFETY: it only takes how much to leave at the end of the heap, and locks what it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}
