//! Configuration from the environment, in types that check it and never print a secret.
//!
//! - [`Env`]: where settings come from; [`optional`] and [`required`] read one.
//! - [`ServerUrl`], [`PostgresUrl`], [`RedisUrl`]: addresses whose credentials no print shows.
//! - [`environment`]: how strict a program is. [`byte_size`], [`HumanDuration`]: amounts as an operator writes them.
//!
//! Every error names the setting, what is wrong and what is expected. It never repeats a value that
//! could be a secret.

pub mod byte_size;
mod ca;
mod duration;
mod env;
pub mod environment;
mod redis_url;
mod server_url;

pub use self::ca::{Ca, redis_ca};
pub use self::duration::{HumanDuration, InvalidDuration};
pub use self::env::{ConfigError, Env, ProcessEnv, optional, required};
pub(crate) use self::redis_url::Topology;
pub use self::redis_url::{InvalidRedisUrl, RedisUrl, redis_url};
pub use self::server_url::{InvalidServerUrl, PostgresUrl, ServerUrl};
