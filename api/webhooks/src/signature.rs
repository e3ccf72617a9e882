//! Signatures by the Standard Webhooks specification (<https://www.standardwebhooks.com>): receivers check them with the
//! library of that name for their language.
//!
//! HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`, as base64 behind `v1,`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

use runcast_access::secret::{NoRandomness, Secret};

/// What a secret begins with when it is shown.
const PREFIX: &str = "whsec_";

/// Bytes of a secret; the specification asks for 24 to 64.
const SECRET_BYTES: usize = 32;

/// A new secret, as it is stored.
///
/// # Errors
/// [`NoRandomness`] if the system has none.
pub fn new_secret() -> Result<SecretSlice<u8>, NoRandomness> {
    let mut bytes = vec![0; SECRET_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| NoRandomness::new(&error))?;
    Ok(bytes.into())
}

/// A secret as its receiver is given it, once.
#[must_use]
pub fn shown(secret: &SecretSlice<u8>) -> Secret {
    Secret::claimed(&format!(
        "{PREFIX}{}",
        BASE64.encode(secret.expose_secret())
    ))
}

/// The value of `webhook-signature`.
///
/// # Errors
/// [`InvalidLength`] if HMAC does not take the secret; it takes any length.
pub fn signature(
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

    /// The vector that the libraries of the specification test themselves with.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secret = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let secret = SecretSlice::from(secret.expect("base64"));
        let signature = signature(
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
            shown(&secret).expose(),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        );
        assert!(!format!("{secret:?}").contains("77"));
    }
}
