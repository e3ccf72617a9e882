//! The cryptography of all TLS connections of a process.

/// Selects `ring` for every TLS connection of this process (Redis, Postgres, HTTPS). Call it once,
/// at the start of `main`; later calls change nothing.
pub fn install_tls_provider() {
    // The only error: a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}
