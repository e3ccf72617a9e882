//! Exit codes of the program, as in `sysexits.h`. `runcast wrap` else exits with the command's
//! code.

/// Wrong use of the command line. Not clap's 2, which could be the wrapped command's code.
pub const EX_USAGE: u8 = 64;

/// A run or a folder does not exist.
pub const EX_NOINPUT: u8 = 66;

/// The gateway or Redis cannot be reached.
pub const EX_UNAVAILABLE: u8 = 69;

/// Something is in use: try again later.
pub const EX_TEMPFAIL: u8 = 75;

/// The token is not accepted.
pub const EX_NOPERM: u8 = 77;

/// A setting is missing or wrong.
pub const EX_CONFIG: u8 = 78;
