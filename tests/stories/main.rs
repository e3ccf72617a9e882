//! The stories: what a user relies on, each played against a stack of its own.

mod chaos;
mod control;
mod crashes;
mod cursors;
mod dead_letters;
mod dev;
mod history;
mod ingest;
mod lost_redis;
mod outages;
mod page;
mod pulse;
mod refusals;
mod startup;
mod viewer;
mod volume;
mod worker;
mod wrap;
