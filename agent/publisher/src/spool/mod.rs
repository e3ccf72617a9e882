//! The spool: batches in files, so that they survive the process that published them.
//!
//! - `writer`: writes records, reads them again, deletes segments;
//! - `format`: the bytes of a segment, pure;
//! - [`directory`]: names of folders and files, epochs, two processes in one folder;
//! - `recovery`: what all segments of a folder contain together;
//! - `late_writes`: what an older process wrote after this one had read the folder;
//! - `fsync`: when written data is synced.

pub mod directory;
mod format;
mod fsync;
mod late_writes;
pub(crate) mod recovery;
#[cfg(test)]
mod tests;
pub(crate) mod writer;
