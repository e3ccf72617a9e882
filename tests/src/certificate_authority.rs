//! A private certificate authority of one story, and the server certificate that it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The files of an authority and of one server certificate that it has signed.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    folder: PathBuf,
}

impl CertificateAuthority {
    /// Creates both. The certificate is valid for 127.0.0.1.
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // The names must differ: a certificate with the authority's name would count as
        // self-signed.
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
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The file with the server certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// The file with the key of the server certificate.
    pub fn key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// The configuration of a Redis server or sentinel that speaks only TLS, on this port.
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
