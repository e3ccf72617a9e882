//! Signing in through an OpenID Connect issuer that the operator names: the authorization code flow with PKCE.
//!
//! [`flow`] sends a browser to the issuer and checks what it brings back, with the [`login_state`] that it began with.
//! [`issuer`]: what the issuer says of itself. [`account`]: the user that it vouches for. [`settings`]: what the operator sets.

mod account;
pub mod flow;
mod issuer;
mod login_state;
pub mod settings;

pub use account::is_subject;
pub use flow::{Finished, Oidc, Returned, SignInRefused};
pub use issuer::CALLBACK;
