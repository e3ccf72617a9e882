//! A private certificate authority of one story, and what it signs for servers on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The files of an authority and of one server certificate that it has signed.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    folder: PathBuf,
}

impl CertificateAuthority {
    /// Makes both; the certificate is good for 127.0.0.1.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Another name than that of what it signs, which would pass for self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, "Authority of a story");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let made = Self {
            folder: folder.to_owned(),
        };
        for (path, text) in [
            (made.ca(), authority.pem()),
            (made.certificate(), certificate.pem()),
            (made.key(), key.serialize_pem()),
        ] {
            fs::write(&path, text).expect("a file of the authority is written");
        }
        made
    }

    /// The file with the certificate of the authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The file with the certificate that it has signed.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The file with the key of that.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// What a Redis server or sentinel is configured with to speak TLS, and only that, on a port.
    #[must_use]
    pub fn redis_config(&self, port: u16) -> String {
        format!(
            "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
             tls-auth-clients no\ntls-replication yes\ntls-cluster yes\n",
            self.certificate().display(),
            self.key().display(),
            self.ca().display()
        )
    }
}
