//! Secrets and signatures by the Standard Webhooks specification
//! (<https://www.standardwebhooks.com>). Receivers check them with the library of that name for
//! their language.
//!
//! A signature is HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, as base64 behind
//! `v1,`. The crate `standardwebhooks` does not sign here, because it copies the secret into memory
//! that is not wiped. The tests verify with it, so two implementations check each other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use runcast_access::secret::{NoRandomness, Secret};

/// What the text form of a secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// Size of a secret; the specification asks for 24 to 64 bytes.
const SECRET_BYTES: usize = 32;

/// A new secret, as it is stored.
///
/// # Errors
/// [`NoRandomness`]; weaker randomness is never used instead.
pub fn new_secret() -> Result<SecretSlice<u8>, NoRandomness> {
    let mut bytes = vec![0; SECRET_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| NoRandomness::new(&error))?;
    Ok(bytes.into())
}

/// The text form of a secret, `whsec_...`, for the one reply that hands it to the receiver.
pub fn encode_secret(secret: &SecretSlice<u8>) -> Secret {
    Secret::from_text(&format!(
        "{SECRET_PREFIX}{}",
        BASE64.encode(secret.expose_secret())
    ))
}

/// The value of `webhook-signature`.
///
/// # Errors
/// [`InvalidLength`] never occurs: HMAC takes a secret of any length.
pub(crate) fn sign(
    secret: &SecretSlice<u8>,
    id: &str,
    timestamp: i64,
    body: &str,
) -> Result<String, InvalidLength> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret())?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    let code = BASE64.encode(mac.finalize().into_bytes());
    Ok(format!("v1,{code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the specification's own libraries.
    #[test]
    fn signatures_match_the_specification() {
        let secret = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let secret = SecretSlice::from(secret.expect("base64"));
        let signature = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signature.expect("a signature"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(
            encode_secret(&secret).expose(),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        );
        assert!(!format!("{secret:?}").contains("77"));
    }
}
