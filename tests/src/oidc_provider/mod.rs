//! An OpenID Connect provider: a real HTTP server with real keys.
//!
//! It checks requests as strictly as the standards allow, signs in the account that the story has
//! chosen without asking, and issues wrong tokens where a story wants them ([`TokenFault`]). It is
//! called `localhost`, so that a browser treats it as another site than a gateway at `127.0.0.1`.

mod endpoints;
mod id_token;
mod provider;
mod signing_key;

pub use self::id_token::TokenFault;
pub use self::provider::{Account, CLIENT_ID, CLIENT_SECRET, OidcProvider};
pub use self::signing_key::{Algorithm, SigningKey};
