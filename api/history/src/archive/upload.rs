//! Uploads an object to the archive store: at once, or, above [`PART_BYTES`], in parts.
//!
//! In a folder the object appears under its name only when it is whole and on disk. In a bucket the
//! parts belong to an upload whose id the caller keeps, so that an unfinished upload can be
//! aborted. Memory: one part, and what was added last.

use std::fmt;

use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};

use super::object_store::{ArchiveStore, ArchiveStoreError, Backend};

/// The largest object that is put at once, and the size of the parts of larger ones. 10,000 parts
/// are allowed: 80 GB of compressed lines.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// An object that is being written. Bytes go in in order; the object does not exist under its name
/// until [`Upload::finish`].
pub struct Upload<'a> {
    archive_store: &'a ArchiveStore,
    object: &'a str,
    buffer: Vec<u8>,
    parts: Parts,
}

enum Parts {
    /// Nothing has been sent yet.
    None,
    File(Box<dyn MultipartUpload>),
    Bucket {
        id: String,
        parts: Vec<PartId>,
    },
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl<'a> Upload<'a> {
    /// An upload of which nothing has been sent.
    pub const fn new(archive_store: &'a ArchiveStore, object: &'a str) -> Self {
        Self {
            archive_store,
            object,
            buffer: Vec::new(),
            parts: Parts::None,
        }
    }

    /// The buffer to which the next bytes are added.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// True if the buffer holds enough for [`Upload::send`].
    pub const fn is_full(&self) -> bool {
        self.buffer.len() >= PART_BYTES
    }

    /// Begins an upload in parts, before the first part. Returns its id, where it has one:
    /// [`ArchiveStore::remove`] needs it if the upload is never finished.
    pub async fn begin(&mut self) -> Result<Option<String>, ArchiveStoreError> {
        if !matches!(self.parts, Parts::None) {
            return Ok(None);
        }
        let path = Path::from(self.object);
        let failed = |error| self.archive_store.object_error(self.object, &error);
        match &self.archive_store.backend {
            Backend::Folder(_) => {
                let file = self
                    .archive_store
                    .objects
                    .put_multipart(&path)
                    .await
                    .map_err(failed)?;
                self.parts = Parts::File(file);
                Ok(None)
            }
            Backend::Bucket(client) => {
                let id = client.create_multipart(&path).await.map_err(failed)?;
                self.parts = Parts::Bucket {
                    id: id.clone(),
                    parts: Vec::new(),
                };
                Ok(Some(id))
            }
        }
    }

    /// Sends a part of the buffer, after [`Upload::begin`]. All parts but the last have the same
    /// size, as some stores require.
    pub async fn send(&mut self) -> Result<(), ArchiveStoreError> {
        let rest = self.buffer.split_off(self.buffer.len().min(PART_BYTES));
        let payload = PutPayload::from(std::mem::replace(&mut self.buffer, rest));
        let path = Path::from(self.object);
        let sent = match (&mut self.parts, &self.archive_store.backend) {
            (Parts::File(file), _) => file.put_part(payload).await,
            (Parts::Bucket { id, parts }, Backend::Bucket(client)) => {
                let part = client.put_part(&path, id, parts.len(), payload).await;
                part.map(|part| parts.push(part))
            }
            _ => Err(object_store::Error::Generic {
                store: "upload",
                source: "a part was sent before the upload was begun".into(),
            }),
        };
        sent.map_err(|error| self.archive_store.object_error(self.object, &error))
    }

    /// Sends the rest of the buffer and gives the object its name. After an error the object may
    /// exist or not.
    pub async fn finish(mut self) -> Result<(), ArchiveStoreError> {
        let path = Path::from(self.object);
        while !matches!(self.parts, Parts::None) && !self.buffer.is_empty() {
            self.send().await?;
        }
        let finished = match (self.parts, &self.archive_store.backend) {
            (Parts::File(mut file), _) => file.complete().await.map(drop),
            (Parts::Bucket { id, parts }, Backend::Bucket(client)) => {
                client.complete_multipart(&path, &id, parts).await.map(drop)
            }
            _ => {
                let whole = PutPayload::from(self.buffer);
                self.archive_store.objects.put(&path, whole).await.map(drop)
            }
        };
        finished.map_err(|error| self.archive_store.object_error(self.object, &error))
    }
}
