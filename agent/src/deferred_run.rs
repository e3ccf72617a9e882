//! A run that could not be created because the gateway was unreachable: `run.json` in its spool
//! folder.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use runcast_publisher::gateway_client::NewRun;
use runcast_publisher::spool::directory;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE_NAME: &str = "run.json";

/// The run to create, and its id once it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeferredRun {
    /// The run to create.
    #[serde(flatten)]
    pub run: NewRun,
    /// The run's id, once it was created.
    pub created: Option<Uuid>,
}

impl DeferredRun {
    /// Reads it from a producer's folder; none if the folder's run exists already.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(FILE_NAME)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it atomically: after a crash the folder has the old or the new version.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        directory::create_folder(folder)?;
        let draft = folder.join("run.json.new");
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = directory::create_file(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(draft, folder.join(FILE_NAME))
    }
}
