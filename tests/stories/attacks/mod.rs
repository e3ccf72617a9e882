//! Attacks by clients without rights, or with fewer rights than they want. None succeeds.
//!
//! Each story ends with a check of the gateway's log: an attack causes no error on our side.

mod brute_force;
mod cookies;
mod enumeration;
mod escalation;
mod fixtures;
mod forgery;
mod hostile_publisher;
mod hostile_publisher_heartbeats;
mod hostile_publisher_queue;
mod hostile_publisher_stream;
mod injection;
mod isolation;
mod run_users;
mod secret_leaks;
