//! The mailbox of a writer thread: how tails, the HTTP server and the pool reach it.
//!
//! Data: new connections, the set of changed runs, and two flags. The sender of the first message
//! wakes the thread; the thread takes everything at once.

use std::collections::HashSet;
use std::io;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use mio::{Registry, Token, Waker};
use uuid::Uuid;

use crate::tail::TailListener;
use crate::viewer::Viewer;

/// The token of the waker. Connections have all other tokens.
pub(super) const WAKER_TOKEN: Token = Token(usize::MAX);

/// The mailbox of one thread.
#[derive(Debug)]
pub(super) struct Mailbox {
    messages: Mutex<Messages>,
    waker: Waker,
}

/// What a thread has been told since it looked last.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) new_connections: Vec<NewConnection>,
    /// Runs with something new for their viewers.
    pub(super) changed: HashSet<Uuid>,
    /// The credentials of some viewers have ended.
    pub(super) has_revocations: bool,
    /// The server drains. Stays set.
    pub(super) drains: bool,
}

/// A connection whose request is answered, except for the head of the response.
#[derive(Debug)]
pub(super) struct NewConnection {
    pub(super) socket: TcpStream,
    /// The head of the response.
    pub(super) head: Bytes,
    pub(super) viewer: Viewer,
}

impl TailListener for Mailbox {
    fn on_change(&self, run: Uuid) {
        self.put(|messages| {
            messages.changed.insert(run);
        });
    }
}

impl Mailbox {
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            waker: Waker::new(registry, WAKER_TOKEN)?,
        })
    }

    pub(super) fn add_connection(&self, connection: NewConnection) {
        self.put(|messages| messages.new_connections.push(connection));
    }

    pub(super) fn check_revocations(&self) {
        self.put(|messages| messages.has_revocations = true);
    }

    pub(super) fn drain(&self) {
        self.put(|messages| messages.drains = true);
    }

    fn put(&self, add: impl FnOnce(&mut Messages)) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = messages.new_connections.is_empty() && messages.changed.is_empty();
        add(&mut messages);
        drop(messages);
        // The sender of the first message has woken the thread for the others too.
        if was_empty && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a writer thread; it serves viewers every second only");
        }
    }

    /// Empties the mailbox.
    pub(super) fn take_all(&self) -> Messages {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        Messages {
            drains: messages.drains,
            has_revocations: std::mem::take(&mut messages.has_revocations),
            new_connections: std::mem::take(&mut messages.new_connections),
            changed: std::mem::take(&mut messages.changed),
        }
    }
}
