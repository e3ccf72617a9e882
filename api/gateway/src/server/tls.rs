//! The gateway's certificate, for installations where no proxy in front of it terminates TLS.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, fs};

use runcast_common::config::{ConfigError, Env};
use runcast_common::log_limit::LogLimit;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::serve::ALPN_PROTOCOLS;

const CERT_SETTING: &str = "RUNCAST_TLS_CERT";
const KEY_SETTING: &str = "RUNCAST_TLS_KEY";

static FAILED_LOG: LogLimit = LogLimit::new(Duration::from_secs(60));

/// How often the files are looked at. A connection that comes later gets the new certificate.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

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
    /// again when they change.
    pub fn from_env(env: &impl Env) -> Result<Option<Self>, ConfigError> {
        let path = |name| env.get(name).map(PathBuf::from);
        let files = match (path(CERT_SETTING), path(KEY_SETTING)) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => CertificateFiles { certificate, key },
            (Some(_), None) => return Err(missing(KEY_SETTING)),
            (None, Some(_)) => return Err(missing(CERT_SETTING)),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(CERT_SETTING, &files.certificate, &error))?;
        let resolver = CertificateResolver::new(files)?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = ALPN_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Self(Arc::new(config))))
    }

    /// Performs TLS handshakes with this certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

/// Where the certificate is.
#[derive(Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl CertificateFiles {
    fn read(&self) -> Result<Arc<CertifiedKey>, ConfigError> {
        let (certificate, key) = (&self.certificate, &self.key);
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| invalid(CERT_SETTING, certificate, &error))?;
        let secret =
            PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(KEY_SETTING, key, &error))?;
        let provider = rustls::crypto::ring::default_provider();
        let read = CertifiedKey::from_der(chain, secret, &provider)
            .map_err(|error| invalid(CERT_SETTING, certificate, &error))?;
        Ok(Arc::new(read))
    }

    /// When they were changed last, as far as that can be found out.
    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| fs::metadata(path).ok()?.modified().ok())
    }
}

/// Gives each handshake the certificate that the files hold.
struct CertificateResolver {
    files: CertificateFiles,
    last: Mutex<LastRead>,
}

struct LastRead {
    certificate: Arc<CertifiedKey>,
    changed_at: [Option<SystemTime>; 2],
    checked: Instant,
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateResolver")
    }
}

impl CertificateResolver {
    fn new(files: CertificateFiles) -> Result<Self, ConfigError> {
        let last = LastRead {
            // Before the files are read: if they change meanwhile they are read once more.
            changed_at: files.changed_at(),
            certificate: files.read()?,
            checked: Instant::now(),
        };
        Ok(Self {
            files,
            last: Mutex::new(last),
        })
    }

    /// Reads the files again if they have changed. One that cannot be used, such as a certificate
    /// whose key was not replaced yet, is tried again later.
    fn renew(&self, last: &mut LastRead) {
        last.checked = Instant::now();
        let changed_at = self.files.changed_at();
        if changed_at == last.changed_at {
            return;
        }
        match self.files.read() {
            Ok(certificate) => {
                info!("read the certificate again: its files have changed");
                (last.certificate, last.changed_at) = (certificate, changed_at);
            }
            Err(error) => {
                if let Some(times) = FAILED_LOG.admit(1) {
                    warn!(%error, times, "cannot use the new certificate; going on with the old one");
                }
            }
        }
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.checked.elapsed() >= CHECK_INTERVAL {
            self.renew(&mut last);
        }
        Some(Arc::clone(&last.certificate))
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
