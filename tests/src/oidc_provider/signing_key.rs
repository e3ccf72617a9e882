//! Signed JSON Web Tokens with real keys: ES256, and RS256 with a key of `openssl`.
//!
//! It shares no code with `openidconnect`, which checks the tokens in the gateway. That crate could
//! not replace it: it has no ES256 signing, and its typed claims cannot express the wrong tokens
//! that the stories need (text for `email_verified`, a changed payload, `alg: none`).

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

/// Length of a coordinate on the curve P-256.
const P256_BYTES: usize = 32;

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// RSA, which every provider supports.
    Rs256,
}

impl Algorithm {
    /// Its name in JWT headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A key that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    id: String,
    algorithm: Algorithm,
    pair: KeyPair,
}

impl SigningKey {
    /// Generates a key with this id.
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::Rs256 => KeyPair::from_pem(&rsa_key()),
        };
        Self {
            id: id.to_owned(),
            algorithm,
            pair: pair.expect("a key"),
        }
    }

    /// Its signature algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as a JSON Web Key.
    pub fn public(&self) -> Value {
        let mut key = json!({"kid": self.id, "use": "sig", "alg": self.algorithm.name()});
        let raw = self.pair.der_bytes();
        let (kind, numbers) = match self.algorithm {
            Algorithm::Es256 => {
                // An uncompressed point: 4, x, y.
                let (x, y) = raw[1..].split_at(P256_BYTES);
                key["crv"] = "P-256".into();
                ("EC", [("x", x.to_vec()), ("y", y.to_vec())])
            }
            Algorithm::Rs256 => {
                let [n, e] = der_integer_pair(raw);
                ("RSA", [("n", n), ("e", e)])
            }
        };
        key["kty"] = kind.into();
        for (name, number) in numbers {
            key[name] = BASE64.encode(number).into();
        }
        key
    }

    /// A signed token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm.name(), "kid": self.id, "typ": "JWT"});
        let text = signing_input(&header, claims);
        let signature = self.pair.sign(text.as_bytes()).expect("a signature");
        let signature = match self.algorithm {
            Algorithm::Rs256 => signature,
            Algorithm::Es256 => {
                let padded = der_integer_pair(&signature).map(|number| {
                    let zeros = vec![0; P256_BYTES - number.len()];
                    [zeros, number].concat()
                });
                padded.concat()
            }
        };
        format!("{text}.{}", BASE64.encode(signature))
    }
}

/// Header and claims of a token, without a signature.
pub(super) fn signing_input(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn rsa_key() -> String {
    let arguments = [
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ];
    let made = Command::new("openssl").args(arguments).output();
    let made = made.expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).expect("PEM is text")
}

/// The two integers of a DER sequence, without leading zeros: an RSA key, or an ECDSA signature.
fn der_integer_pair(der: &[u8]) -> [Vec<u8>; 2] {
    let (sequence, rest) = der_element(der, 0x30);
    assert!(rest.is_empty(), "bytes after the sequence");
    let (first, rest) = der_element(sequence, 0x02);
    let (second, rest) = der_element(rest, 0x02);
    assert!(rest.is_empty(), "bytes after the second integer");
    [first, second].map(|number| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    })
}

/// The content of the first DER element, which must have this tag, and the bytes after it.
fn der_element(der: &[u8], tag: u8) -> (&[u8], &[u8]) {
    assert_eq!(der[0], tag, "unexpected DER tag");
    let (length, start) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let digits = der[2..2 + bytes].iter();
            let length = digits.fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + bytes)
        }
    };
    der[start..].split_at(length)
}
