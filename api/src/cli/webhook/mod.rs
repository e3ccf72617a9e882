//! `runcastd webhook`: [`command`] runs the commands, [`tables`] prints webhooks and deliveries.

pub mod command;
mod tables;

pub use self::command::{WEBHOOK_HELP, Webhook};
