//! [`OpenBodies`]: bounds what bodies that are being read occupy in this process.
//!
//! Data: for each principal with an open body, how many it has and how much memory their decoders
//! may take. Bounds: [`MAX_OPEN`] bodies of a principal, [`MAX_DECODER_BYTES`] for all, of which a
//! principal gets half, so that none keeps the others from compressed bodies.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runcast_access::principal::Principal;
use runcast_access::rate_limit::subject::RateKey;

use super::decoder::Encoding;
use crate::problem::Problem;

/// Bodies of one principal, with all its runs.
const MAX_OPEN: usize = 1000;

/// Memory of all decoders.
const MAX_DECODER_BYTES: usize = 256 * 1024 * 1024;

/// When a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The open bodies of this process.
#[derive(Debug, Default)]
pub(super) struct OpenBodies {
    by_principal: Mutex<HashMap<RateKey, Usage>>,
}

/// What the bodies of a principal occupy.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    bodies: usize,
    decoder_bytes: usize,
}

/// A body that is being read, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenBody {
    open: Arc<OpenBodies>,
    principal: RateKey,
    decoder_bytes: usize,
}

impl OpenBodies {
    /// Opens a body, if there is room for it: 429 where the principal has too many, 503 where all
    /// have.
    pub(super) fn open(
        self: &Arc<Self>,
        principal: &Principal,
        encoding: Encoding,
    ) -> Result<OpenBody, Problem> {
        self.open_for(RateKey::of(principal), encoding.decoder_bytes())
    }

    fn open_for(
        self: &Arc<Self>,
        principal: RateKey,
        decoder_bytes: usize,
    ) -> Result<OpenBody, Problem> {
        let mut by_principal = self.lock();
        let all: usize = by_principal.values().map(|usage| usage.decoder_bytes).sum();
        let own = by_principal.get(&principal).copied().unwrap_or_default();
        if own.bodies >= MAX_OPEN {
            let detail = format!(
                "{MAX_OPEN} requests that publish with the rights of this token or user are open: \
                 end some of them"
            );
            return Err(Problem::too_many(detail, RETRY_AFTER));
        }
        if own.decoder_bytes + decoder_bytes > MAX_DECODER_BYTES / 2 {
            let detail = "too many compressed bodies of this token or user are open: end some of \
                          them, or send them with gzip or without compression";
            return Err(Problem::too_many(detail, RETRY_AFTER));
        }
        if all + decoder_bytes > MAX_DECODER_BYTES {
            return Err(Problem::unavailable(
                "too many compressed bodies are open: try again, or send it without compression",
            ));
        }
        let usage = by_principal.entry(principal).or_default();
        usage.bodies += 1;
        usage.decoder_bytes += decoder_bytes;
        Ok(OpenBody {
            open: Arc::clone(self),
            principal,
            decoder_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RateKey, Usage>> {
        self.by_principal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        if let Entry::Occupied(mut usage) = self.open.lock().entry(self.principal) {
            usage.get_mut().bodies -= 1;
            usage.get_mut().decoder_bytes -= self.decoder_bytes;
            if usage.get().bodies == 0 {
                usage.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_principal_gets_half_of_the_decoders_and_gives_them_back() {
        let open = Arc::new(OpenBodies::default());
        let principal = |number| RateKey::Principal(Uuid::from_u128(number));
        let zstd = Encoding::Zstd.decoder_bytes();
        let opened = |number| -> Vec<OpenBody> {
            std::iter::from_fn(|| open.open_for(principal(number), zstd).ok()).collect()
        };
        let (first, second) = (opened(1), opened(2));
        assert_eq!((first.len(), second.len()), (15, 15));
        open.open_for(principal(3), zstd).expect_err("no room");
        let plain = open.open_for(principal(1), 0);
        plain.as_ref().expect("no decoder");
        drop((first, plain));
        open.open_for(principal(3), zstd).expect("room again");
        drop(second);
        assert!(open.lock().is_empty());
    }
}
