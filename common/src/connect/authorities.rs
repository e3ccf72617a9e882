//! The certificate authorities that TLS connections trust where a setting names no others.
//!
//! They are those of the platform, where OpenSSL looks for them: in `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` if these are set, else in the usual places. On a machine without any (an image
//! without `ca-certificates`) they are Mozilla's, which are part of the program. A variable that is
//! set replaces them, so if nothing can be read there, that is an error: it may be meant to trust
//! fewer.
//!
//! Data: about 150 certificates, read anew by each call. Time: some milliseconds.

use std::env;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::load_native_certs;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::config::ConfigError;

/// The variables that name the authorities.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The authorities that are trusted.
#[derive(Debug)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// All that the platform has.
    Platform,
    /// What could be read of those that the platform has.
    PartOfPlatform,
    /// Mozilla's, which are part of the program.
    Bundled,
}

impl Authorities {
    /// Reads them. Fails if a variable is set, but names none.
    pub fn load() -> Result<Self, ConfigError> {
        let found = load_native_certs();
        let mut usable = RootCertStore::empty();
        let mut certificates = found.certs;
        certificates.retain(|certificate| usable.add(certificate.clone()).is_ok());
        let reason = found.errors.first().map(ToString::to_string);
        if certificates.is_empty() {
            let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
            if let Some(name) = VARIABLES.into_iter().find(is_set) {
                let reason = reason.unwrap_or_else(|| "it holds no certificate".to_owned());
                return Err(ConfigError::Invalid { name, reason });
            }
            tracing::debug!(
                ?reason,
                "no certificate authorities here: Mozilla's are trusted"
            );
            return Ok(Self {
                certificates: TLS_SERVER_ROOT_CERTS.to_vec(),
                origin: Origin::Bundled,
            });
        }
        let origin = match reason {
            None => Origin::Platform,
            Some(reason) => {
                tracing::debug!(reason, "not all certificate authorities can be read");
                Origin::PartOfPlatform
            }
        };
        Ok(Self {
            certificates,
            origin,
        })
    }

    /// Their certificates in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }

    /// Whether they are part of the program, since the machine has none.
    #[must_use]
    pub fn are_bundled(&self) -> bool {
        self.origin == Origin::Bundled
    }

    /// Their certificates as PEM, for a client that cannot use the platform's by itself.
    pub(super) fn replacement(&self) -> Option<Vec<u8>> {
        if self.origin == Origin::Platform {
            return None;
        }
        let mut pem = String::new();
        for certificate in &self.certificates {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            STANDARD.encode_string(certificate, &mut pem);
            pem.push_str("\n-----END CERTIFICATE-----\n");
        }
        Some(pem.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn bundled_authorities_are_valid_and_survive_pem() {
        let bundled = Authorities {
            certificates: TLS_SERVER_ROOT_CERTS.to_vec(),
            origin: Origin::Bundled,
        };
        let mut store = RootCertStore::empty();
        let (valid, _) = store.add_parsable_certificates(bundled.certificates.iter().cloned());
        assert!(valid > 100, "{valid}");
        let pem = bundled.replacement().expect("they replace the platform's");
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        assert_eq!(read.expect("PEM"), bundled.certificates);
    }
}
