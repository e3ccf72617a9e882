//! Sign-in with an OpenID Connect issuer that the operator names: the authorization code flow with
//! PKCE.
//!
//! [`flow`] sends a browser to the issuer, remembers the [`login_state`], and verifies what the
//! browser brings back. [`issuer`]: requests to the issuer. [`account`]: finds or creates the user
//! that the issuer vouches for. [`settings`]: what the operator sets.

mod account;
pub mod flow;
mod issuer;
mod login_state;
pub mod settings;

pub(crate) use account::Accounts;
pub use account::is_subject;
pub use flow::{CallbackParams, CompletedLogin, Oidc, SignInRefused, StartedLogin};
pub use issuer::CALLBACK_PATH;
pub(crate) use login_state::LoginStates;
