//! The stories: what a user relies on, each played against a stack of its own.

mod chaos;
mod control;
mod crashes;
mod cursors;
mod dead_letters;
mod dev;
mod disk_full;
mod full;
mod history;
mod ingest;
mod interleavings;
mod lost_redis;
mod outages;
mod page;
mod persisters;
mod psql;
mod pulse;
mod redis_cluster;
mod redis_sentinel;
mod redis_tls;
mod refusals;
mod startup;
mod viewer;
mod volume;
mod worker;
mod wrap;
