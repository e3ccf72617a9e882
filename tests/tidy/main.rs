//! The rules of the repository that no compiler checks: layers, modules, names, prose, size of
//! files, and what belongs where. Each message says what to do instead.

mod boundaries;
mod build;
mod files;
mod layers;
mod modules;
mod prose;
mod rust;
mod sources;
