//! Certificate authorities that sign for Redis: `RUNCAST_REDIS_CA`.

use std::str::FromStr;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::env::{ConfigError, Env};

/// CA certificates as PEM. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ca(Arc<str>);

impl Ca {
    /// The certificates as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ca {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate =
                certificate.map_err(|_unusable| "it holds a certificate that is damaged")?;
            roots
                .add(certificate)
                .map_err(|_unusable| "it holds a certificate that is not valid for an authority")?;
        }
        if roots.is_empty() {
            return Err("it holds no certificate: expected -----BEGIN CERTIFICATE-----");
        }
        Ok(Self(text.into()))
    }
}

/// Reads the file that `RUNCAST_REDIS_CA` names. Its authorities replace those of the platform.
pub fn redis_ca(env: &impl Env) -> Result<Option<Ca>, ConfigError> {
    let name = "RUNCAST_REDIS_CA";
    let Some(path) = env.get(name) else {
        return Ok(None);
    };
    let invalid = |reason: String| ConfigError::Invalid { name, reason };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| invalid(format!("{path} cannot be read: {error}")))?;
    let ca = text
        .parse()
        .map_err(|reason| invalid(format!("{path}: {reason}")))?;
    Ok(Some(ca))
}
