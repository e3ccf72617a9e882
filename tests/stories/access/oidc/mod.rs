//! Signing in with OpenID Connect, against a provider of the story's own: the whole flow over
//! HTTP, with the cookies of a browser.

mod accounts;
pub(crate) mod fixture;
mod login_state;
mod outages;
mod sign_in;
mod token_validation;
