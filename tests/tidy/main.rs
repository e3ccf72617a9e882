//! The rules of the repository that no compiler checks: size of files, who may spell what, who may know
//! whom. A rule that nobody checks is broken within a month; each message says what to do instead.

mod boundaries;
mod files;
mod sources;
