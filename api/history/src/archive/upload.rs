//! How an object gets to its place: at once, or, above [`PART_BYTES`], in parts.
//!
//! In a folder it appears under its name only when it is whole and on disk. In a bucket parts go under an
//! upload whose id the caller keeps, so that one that was broken off can be taken back. Memory: one part, and
//! what was added to it last.

use std::fmt;

use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};

use super::object_store::{ArchiveStore, ArchiveStoreError, Kind};

/// What is put at once, and the size of the parts of what is larger: 10,000 of them are allowed, 80 GB of
/// packed lines.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// An object that is being written: bytes go in, in order, and nothing is there under its name until
/// [`Upload::finish`].
pub struct Upload<'a> {
    place: &'a ArchiveStore,
    object: &'a str,
    waiting: Vec<u8>,
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
    #[must_use]
    pub const fn new(place: &'a ArchiveStore, object: &'a str) -> Self {
        Self {
            place,
            object,
            waiting: Vec::new(),
            parts: Parts::None,
        }
    }

    /// Where bytes are put that come next.
    pub const fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// True if enough bytes wait for [`Upload::send`].
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.waiting.len() >= PART_BYTES
    }

    /// Before the first part: begins an upload in parts. Its id, where it has one, is what
    /// [`ArchiveStore::remove`] needs if nobody finishes it.
    ///
    /// # Errors
    /// [`ArchiveStoreError`].
    pub async fn begin(&mut self) -> Result<Option<String>, ArchiveStoreError> {
        if !matches!(self.parts, Parts::None) {
            return Ok(None);
        }
        let path = Path::from(self.object);
        let failed = |error| self.place.failed(self.object, &error);
        match &self.place.kind {
            Kind::Folder(_) => {
                let file = self
                    .place
                    .objects
                    .put_multipart(&path)
                    .await
                    .map_err(failed)?;
                self.parts = Parts::File(file);
                Ok(None)
            }
            Kind::Bucket(client) => {
                let id = client.create_multipart(&path).await.map_err(failed)?;
                self.parts = Parts::Bucket {
                    id: id.clone(),
                    parts: Vec::new(),
                };
                Ok(Some(id))
            }
        }
    }

    /// Sends a part of what waits, after [`Upload::begin`]. All parts but the last have the same size, as some
    /// stores want it.
    ///
    /// # Errors
    /// [`ArchiveStoreError`].
    pub async fn send(&mut self) -> Result<(), ArchiveStoreError> {
        let rest = self.waiting.split_off(self.waiting.len().min(PART_BYTES));
        let payload = PutPayload::from(std::mem::replace(&mut self.waiting, rest));
        let path = Path::from(self.object);
        let sent = match (&mut self.parts, &self.place.kind) {
            (Parts::File(file), _) => file.put_part(payload).await,
            (Parts::Bucket { id, parts }, Kind::Bucket(client)) => {
                let part = client.put_part(&path, id, parts.len(), payload).await;
                part.map(|part| parts.push(part))
            }
            _ => Err(object_store::Error::Generic {
                store: "upload",
                source: "a part was sent before the upload was begun".into(),
            }),
        };
        sent.map_err(|error| self.place.failed(self.object, &error))
    }

    /// Sends what waits and gives the object its name.
    ///
    /// # Errors
    /// [`ArchiveStoreError`]; then there may be an object of this name, or none.
    pub async fn finish(mut self) -> Result<(), ArchiveStoreError> {
        let path = Path::from(self.object);
        while !matches!(self.parts, Parts::None) && !self.waiting.is_empty() {
            self.send().await?;
        }
        let finished = match (self.parts, &self.place.kind) {
            (Parts::File(mut file), _) => file.complete().await.map(drop),
            (Parts::Bucket { id, parts }, Kind::Bucket(client)) => {
                client.complete_multipart(&path, &id, parts).await.map(drop)
            }
            _ => {
                let whole = PutPayload::from(self.waiting);
                self.place.objects.put(&path, whole).await.map(drop)
            }
        };
        finished.map_err(|error| self.place.failed(self.object, &error))
    }
}
