//! The one-time sign-in code of `runcastd dev`, which prints it as a link when it starts.
//!
//! A code signs in once, as the token it was offered for, within [`SIGN_IN_CODE_TTL`]. It lives in
//! the memory of the process that offered it, so it works at that gateway alone and ends with it:
//! `dev` runs a single gateway, and a code that others must not use again needs no other store.
//!
//! Data: at most one code, as its SHA-256 and the SHA-256 of the token. A new offer replaces the
//! code before it. A wrong code leaves the offered one valid, so that guessing cannot use it up;
//! the limit on failed attempts slows it down. Time that the machine spends suspended does not
//! count.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::credential::Credential;
use crate::secret::Secret;

/// How long a code can be used after it was offered.
pub const SIGN_IN_CODE_TTL: Duration = Duration::from_secs(600);

/// The code that is offered at the moment, if any.
#[derive(Debug, Default)]
pub(crate) struct SignInCode(Mutex<Option<OfferedCode>>);

#[derive(Debug)]
struct OfferedCode {
    code_hash: [u8; 32],
    token_hash: [u8; 32],
    expires_at: Instant,
}

impl SignInCode {
    /// Offers `code` in place of the one before.
    pub(crate) fn offer(&self, code: &Secret, token: &Secret) {
        self.offer_at(code, token, Instant::now());
    }

    /// Uses the code up if it is the offered one, and returns the token it stands for.
    pub(crate) fn redeem(&self, code: &Secret) -> Option<Credential> {
        self.redeem_at(code, Instant::now())
    }

    fn offer_at(&self, code: &Secret, token: &Secret, now: Instant) {
        *self.lock() = Some(OfferedCode {
            code_hash: code.hash(),
            token_hash: token.hash(),
            expires_at: now + SIGN_IN_CODE_TTL,
        });
    }

    /// Hashes are compared, so the time that this takes reveals nothing about the code. The check
    /// and the removal happen under one lock: of two requests with the same code one signs in.
    fn redeem_at(&self, code: &Secret, now: Instant) -> Option<Credential> {
        let presented = code.hash();
        let mut offered = self.lock();
        let redeemed = offered
            .take_if(|offered| offered.expires_at <= now || offered.code_hash == presented)?;
        let is_valid = now < redeemed.expires_at;
        is_valid.then_some(Credential::Token(redeemed.token_hash))
    }

    fn lock(&self) -> MutexGuard<'_, Option<OfferedCode>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(now: Instant) -> (SignInCode, Secret, Credential) {
        let code = Secret::generate("").expect("random");
        let token = Secret::from_text("rct_admin");
        let slot = SignInCode::default();
        slot.offer_at(&code, &token, now);
        (slot, code, Credential::Token(token.hash()))
    }

    #[test]
    fn a_code_signs_in_once() {
        let now = Instant::now();
        let (slot, code, token) = offered(now);
        assert_eq!(slot.redeem_at(&code, now), Some(token));
        assert_eq!(slot.redeem_at(&code, now), None);
    }

    #[test]
    fn a_code_signs_in_once_when_redeemed_concurrently() {
        let now = Instant::now();
        let (slot, code, _) = offered(now);
        let redeem = || slot.redeem_at(&code, now).is_some();
        let redeemed = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(redeem)).collect();
            let outcomes = threads.into_iter().map(|one| one.join().expect("no panic"));
            outcomes.filter(|redeemed| *redeemed).count()
        });
        assert_eq!(redeemed, 1);
    }

    #[test]
    fn a_code_expires_and_is_removed() {
        let now = Instant::now();
        let (slot, code, token) = offered(now);
        let just_before = now + SIGN_IN_CODE_TTL - Duration::from_millis(1);
        assert_eq!(slot.redeem_at(&code, just_before), Some(token));
        let (slot, code, _) = offered(now);
        assert_eq!(slot.redeem_at(&code, now + SIGN_IN_CODE_TTL), None);
        assert!(slot.lock().is_none());
    }

    #[test]
    fn a_wrong_code_does_not_sign_in_and_leaves_the_offered_one_valid() {
        let now = Instant::now();
        let (slot, code, token) = offered(now);
        for wrong in ["", "rct_admin", &code.expose()[1..]] {
            assert_eq!(
                slot.redeem_at(&Secret::from_text(wrong), now),
                None,
                "{wrong}"
            );
        }
        assert_eq!(slot.redeem_at(&code, now), Some(token));
        let none = SignInCode::default();
        assert_eq!(none.redeem_at(&code, now), None);
    }

    #[test]
    fn a_new_code_replaces_the_one_before() {
        let now = Instant::now();
        let (slot, first, token) = offered(now);
        let second = Secret::generate("").expect("random");
        slot.offer_at(&second, &Secret::from_text("rct_admin"), now);
        assert_eq!(slot.redeem_at(&first, now), None);
        assert_eq!(slot.redeem_at(&second, now), Some(token));
    }

    #[test]
    fn an_offered_code_does_not_print_its_secrets() {
        let (slot, code, _) = offered(Instant::now());
        let printed = format!("{slot:?}");
        assert!(!printed.contains(code.expose()), "{printed}");
        assert!(!printed.contains("rct_admin"), "{printed}");
    }
}
