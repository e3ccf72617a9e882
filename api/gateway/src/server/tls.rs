//! The gateway's certificate, for installations where no proxy in front of it terminates TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runcast_common::config::{ConfigError, Env};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::serve::ALPN_PROTOCOLS;

const CERT_SETTING: &str = "RUNCAST_TLS_CERT";
const KEY_SETTING: &str = "RUNCAST_TLS_KEY";

/// A certificate with its key. `Debug` prints neither.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the two PEM files that the settings name; `None` if neither is set. They are read
    /// once: a new certificate takes effect with the next start.
    pub fn from_env(env: &impl Env) -> Result<Option<Self>, ConfigError> {
        let path = |name| env.get(name).map(PathBuf::from);
        let (cert, key) = match (path(CERT_SETTING), path(KEY_SETTING)) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(missing(KEY_SETTING)),
            (None, Some(_)) => return Err(missing(CERT_SETTING)),
        };
        let chain = CertificateDer::pem_file_iter(&cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| invalid(CERT_SETTING, &cert, &error))?;
        let secret = PrivateKeyDer::from_pem_file(&key)
            .map_err(|error| invalid(KEY_SETTING, &key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(chain, secret)
            })
            .map_err(|error| invalid(CERT_SETTING, &cert, &error))?;
        config.alpn_protocols = ALPN_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Self(Arc::new(config))))
    }

    /// Performs TLS handshakes with this certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

fn missing(name: &'static str) -> ConfigError {
    ConfigError::Missing {
        name,
        hint: "give both RUNCAST_TLS_CERT and RUNCAST_TLS_KEY, each the path of a PEM file, or neither",
    }
}

fn invalid(name: &'static str, path: &Path, error: &dyn fmt::Display) -> ConfigError {
    ConfigError::Invalid {
        name,
        reason: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn both_files_are_required_and_read_at_start() {
        let refused = |settings: &[(&'static str, &'static str)]| {
            let env: HashMap<&str, &str> = settings.iter().copied().collect();
            Tls::from_env(&env).expect_err("refused").to_string()
        };
        assert!(refused(&[(CERT_SETTING, "cert.pem")]).starts_with(KEY_SETTING));
        assert!(refused(&[(KEY_SETTING, "key.pem")]).starts_with(CERT_SETTING));
        let nowhere = "/there/is/no/such/file.pem";
        let error = refused(&[(CERT_SETTING, nowhere), (KEY_SETTING, nowhere)]);
        assert!(
            error.starts_with(CERT_SETTING) && error.contains(nowhere),
            "{error}"
        );
        assert!(Tls::from_env(&HashMap::new()).expect("none").is_none());
    }
}
