//! Returns memory that was freed, and that the allocator keeps, to the system.
//!
//! Admitting a viewer takes some tens of KiB for a moment (buffers of the HTTP library, queries to
//! Redis and Postgres), and keeps a few hundred bytes. After thousands have come at once, glibc's
//! allocator would hold the memory of that moment as long as the process runs, since small
//! allocations that stay lie in between. It knows which pages are empty, but returns them only on
//! request.

/// Returns empty pages to the system. Takes some milliseconds per 100 MiB, in which other threads
/// may have to wait for memory. Does nothing with another allocator than glibc's.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no safe binding of malloc_trim")]
    // SAFETY: its only argument is how many bytes to leave at the end of the heap, and it locks
    // what it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}
