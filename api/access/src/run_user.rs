//! The Redis user of a token of a run: its name and its password, for a gateway that hands out the
//! address of Redis.
//!
//! The password is an HMAC, keyed by the token. So all gateways hand out the same to each who asks
//! with that token, and nothing has to be stored: Redis holds its hash alone. It reveals nothing
//! about the token, and ends with it.

use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit as _, Mac as _};
use runcast_common::run_users::RunUser;
use sha2::Sha256;
use uuid::Uuid;

use crate::secret::Secret;

/// What the HMAC begins with, so that another use of the same key gives other values.
const PURPOSE: &[u8] = b"runcast password of a Redis user";

/// A user and its password.
#[derive(Debug, Clone)]
pub struct RunUserCredentials {
    /// The user.
    pub user: RunUser,
    /// Its password.
    pub password: Secret,
}

impl RunUserCredentials {
    /// Those of a token of a run. HMAC takes a key of any length, so this fails in no case that
    /// occurs.
    pub fn of(token: &Secret, run: Uuid) -> Result<Self, InvalidLength> {
        let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes())?;
        mac.update(PURPOSE);
        mac.update(run.as_bytes());
        let bytes = mac.finalize().into_bytes().into();
        Ok(Self {
            user: RunUser::new(run, &token.hash()),
            password: Secret::of_bytes("", &bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_depends_on_the_token_and_shows_nothing_of_it() {
        let (one, other) = (
            Secret::from_text("rct_one"),
            Secret::from_text("rct_another"),
        );
        let run = Uuid::from_u128(1);
        let of = |token| RunUserCredentials::of(token, run).expect("credentials");
        assert_eq!(of(&one).password.expose(), of(&one).password.expose());
        assert_ne!(of(&one).password.expose(), of(&other).password.expose());
        assert_ne!(of(&one).user, of(&other).user);
        assert!(!of(&one).password.expose().contains("one"));
    }
}
