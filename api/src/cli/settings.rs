//! `runcastd settings`: the table of all settings, those of agents too.

use std::path::PathBuf;

use clap::Args;

use super::output::print;
use crate::settings::{help, markdown};

/// How to show the settings.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Print Markdown
    #[arg(long)]
    markdown: bool,
    /// Replace the Markdown in this file, between the two marks there
    #[arg(long, value_name = "FILE", conflicts_with = "markdown")]
    update: Option<PathBuf>,
}

impl SettingsArgs {
    /// Prints or writes the table.
    pub fn run(&self) -> anyhow::Result<()> {
        match &self.update {
            Some(path) => markdown::update(path),
            None if self.markdown => print(markdown::tables().as_bytes()),
            None => print(help::of_all().trim_start().as_bytes()),
        }
    }
}
