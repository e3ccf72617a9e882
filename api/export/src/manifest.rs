//! `export.json`: what an export selects, kept in its folder so that the same command continues an
//! interrupted export.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use runcast_store::export::Selection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::args::ExportArgs;
use crate::parquet_file;

/// What `export.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) until: DateTime<Utc>,
    labels: Vec<(String, String)>,
    runs: Vec<Uuid>,
}

impl Manifest {
    /// The manifest of the export that was begun in the folder; of a new export, if there is none.
    pub(crate) fn open(args: &ExportArgs) -> anyhow::Result<Self> {
        let path = args.parquet.join("export.json");
        let mut requested = Self {
            from: args.from,
            until: args.until.unwrap_or_else(Utc::now),
            labels: args.labels.clone(),
            runs: args.runs.clone(),
        };
        if !path.is_file() {
            requested.write(&path)?;
            return Ok(requested);
        }
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let begun: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} does not describe an export", path.display()))?;
        // Without --until the end is the moment at which the export was begun.
        requested.until = args.until.unwrap_or(begun.until);
        if requested != begun {
            bail!(
                "{} holds an export of another selection, see export.json there: use another folder, \
                 or the same --from, --until, --label and --run",
                args.parquet.display()
            );
        }
        Ok(begun)
    }

    /// Which runs to read.
    pub(crate) fn selection(&self) -> Selection {
        let labels = self.labels.iter().cloned();
        Selection {
            runs: self.runs.clone(),
            labels: labels.map(|(key, value)| (key, value.into())).collect(),
        }
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let part = path.with_extension("json.part");
        let text = serde_json::to_vec_pretty(self)?;
        let written = fs::write(&part, text).and_then(|()| fs::File::open(&part)?.sync_all());
        written.with_context(|| format!("cannot write {}", part.display()))?;
        parquet_file::publish(&part, path)
    }
}
