//! Webhooks: which notifications are sent and retried, and which addresses are never connected to.

mod configuration;
mod deliveries;
mod fixtures;
