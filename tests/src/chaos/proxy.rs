//! The proxy. It can be switched while it runs between these modes and faults:
//!
//! - **delay**: everything from the server arrives later;
//! - **cut**: connections break; **refuse**: new ones break at once as well;
//! - **half-open**: connections stay open, but no bytes pass any more, as after a lost route;
//! - **drop replies**: a request that contains a pattern reaches the server, but the connection
//!   breaks before the reply, so that the client cannot know whether it was executed;
//! - **cut after**: a connection breaks in the middle of a reply, right after a pattern;
//! - **hold reply**: a request that contains a pattern reaches the server, and its reply is held
//!   until the story releases it;
//! - **block requests**: a request that contains a pattern never reaches the server, and its
//!   connection stays silent.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::fault::{Fault, FaultRules};
use crate::eventually::{WAIT_DEADLINE, eventually, within};
use crate::programs::loopback;

/// The state of a reply that is to be held.
#[derive(Debug, Clone, Copy, Default)]
struct HeldReply {
    arrived: bool,
    released: bool,
}

/// What passes, apart from faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Delay(Duration),
    HalfOpen,
    Refuse,
}

#[derive(Debug)]
struct ProxyState {
    target: watch::Sender<SocketAddr>,
    mode: watch::Sender<Mode>,
    /// Counts cuts: connections older than the last cut break.
    cuts: watch::Sender<u64>,
    /// Counts silences: connections older than the last one stay open, but silent for ever.
    silences: watch::Sender<u64>,
    request_rules: FaultRules,
    /// Faults for bytes from the server.
    reply_rules: FaultRules,
    /// The reply that is held.
    held_reply: watch::Sender<HeldReply>,
    /// The count of accepted connections.
    connections: AtomicUsize,
}

/// A running proxy. It ends when dropped, with all its connections.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    shared: Arc<ProxyState>,
    acceptor: AbortHandle,
}

/// How long a server may take to execute a request whose reply is dropped.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

impl ChaosProxy {
    /// Starts a proxy in front of a port of this machine. It forwards until the story changes that.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(loopback(0)).await.expect("a free port");
        let address = listener.local_addr().expect("the address that was bound");
        let shared = Arc::new(ProxyState {
            target: watch::Sender::new(loopback(port)),
            mode: watch::Sender::new(Mode::Forward),
            cuts: watch::Sender::new(0),
            silences: watch::Sender::new(0),
            request_rules: FaultRules::default(),
            reply_rules: FaultRules::default(),
            held_reply: watch::Sender::default(),
            connections: AtomicUsize::new(0),
        });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            address,
            shared,
            acceptor,
        }
    }

    /// The port to connect to instead of the server's.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Forwards again; silent connections stay silent.
    pub fn forward(&self) {
        self.shared.mode.send_replace(Mode::Forward);
    }

    /// Delays everything that the server sends from now on.
    pub fn delay(&self, by: Duration) {
        self.shared.mode.send_replace(Mode::Delay(by));
    }

    /// Forwards nothing from now on, in either direction, without closing any connection.
    pub fn half_open(&self) {
        self.shared.mode.send_replace(Mode::HalfOpen);
        self.shared.silences.send_modify(|count| *count += 1);
    }

    /// Breaks all connections; accepts new ones.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Breaks all connections, and every new one at once.
    pub fn refuse(&self) {
        self.shared.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// The server executes the next `times` requests that contain `pattern`, but their replies are
    /// lost.
    pub fn drop_replies(&self, times: usize, pattern: &[u8]) {
        self.shared
            .request_rules
            .set(Fault::DropReply, times, pattern);
    }

    /// The server executes the next request that contains `pattern`. Its reply, and all that
    /// follows on that connection, waits for [`ChaosProxy::release_reply`].
    pub fn hold_reply(&self, pattern: &[u8]) {
        self.shared.held_reply.send_replace(HeldReply::default());
        self.shared.request_rules.set(Fault::HoldReply, 1, pattern);
    }

    /// Waits until the server has sent the held reply.
    pub async fn wait_for_held_reply(&self) {
        let mut held = self.shared.held_reply.subscribe();
        let held = held.wait_for(|held| held.arrived);
        let held = within(WAIT_DEADLINE, "the server answers the request", held).await;
        drop(held.expect("the proxy runs"));
    }

    /// Lets the held reply pass.
    pub fn release_reply(&self) {
        self.shared
            .held_reply
            .send_modify(|held| held.released = true);
    }

    /// Blocks all requests that contain `pattern`; their connections stay silent.
    pub fn block_requests(&self, pattern: &[u8]) {
        self.shared
            .request_rules
            .set(Fault::BlockRequest, usize::MAX, pattern);
    }

    /// The next time the server sends `pattern`, the client gets everything up to its last byte;
    /// then the connection breaks.
    pub fn cut_after(&self, pattern: &[u8]) {
        self.shared.reply_rules.set(Fault::CutAfter, 1, pattern);
    }

    /// Whether the connection was cut after that pattern.
    pub fn has_cut(&self) -> bool {
        self.shared.reply_rules.hits() > 0
    }

    /// Connects new connections to this port from now on; existing ones stay.
    pub fn redirect_to(&self, port: u16) {
        self.shared.target.send_replace(loopback(port));
    }

    /// The count of connections accepted so far.
    pub fn connection_count(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until this many requests have matched the fault.
    pub async fn wait_for_hits(&self, times: usize) {
        eventually("the proxy meets the requests it waits for", async || {
            let hits = self.shared.request_rules.hits();
            let enough = (hits >= times).then_some(());
            enough.ok_or_else(|| format!("{hits} of {times}"))
        })
        .await;
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<ProxyState>) {
    // All connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if *shared.mode.borrow() == Mode::Refuse {
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let (mut cuts, mut silences) = (shared.cuts.subscribe(), shared.silences.subscribe());
            let mut carried = pin!(forward_connection(client, &shared));
            // Both senders live in `shared`, so `changed` never fails. Nothing may pass after a
            // change, so `biased` checks them first.
            tokio::select! {
                biased;
                _cut = cuts.changed() => {}
                _silenced = silences.changed() => drop(cuts.changed().await),
                () = &mut carried => {}
            }
        });
    }
}

/// What happens to the bytes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyAction {
    Forward,
    Hold,
    Drop,
}

/// Forwards one connection until either side closes it.
async fn forward_connection(client: TcpStream, shared: &ProxyState) {
    let mode = *shared.mode.borrow();
    if mode == Mode::HalfOpen {
        pend_forever().await;
    }
    let target = *shared.target.borrow();
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let action = watch::Sender::new(ReplyAction::Forward);
    tokio::select! {
        () = forward_requests(from_client, to_server, shared, &action) => {}
        () = forward_replies(from_server, to_client, shared, &action) => {}
    }
}

/// Client to server.
async fn forward_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &ProxyState,
    action: &watch::Sender<ReplyAction>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let chunk = &buffer[..length];
        seen.extend_from_slice(chunk);
        let fault = shared.request_rules.next_fault(&seen);
        let keep = shared.request_rules.overlap_bytes().min(seen.len());
        seen.drain(..seen.len() - keep);
        match fault {
            Some(Fault::BlockRequest) => pend_forever().await,
            Some(Fault::DropReply) => drop(action.send_replace(ReplyAction::Drop)),
            Some(Fault::HoldReply) => drop(action.send_replace(ReplyAction::Hold)),
            Some(Fault::CutAfter) | None => {}
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
        if fault == Some(Fault::DropReply) {
            // Ends the requests, so that the server closes the connection once it has executed all.
            drop(to.shutdown().await);
            return pend_forever().await;
        }
    }
}

/// Server to client.
async fn forward_replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &ProxyState,
    action: &watch::Sender<ReplyAction>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = Vec::new();
    let mut dropped = action.subscribe();
    loop {
        let read = tokio::select! {
            biased;
            () = async { drop(dropped.wait_for(|action| *action == ReplyAction::Drop).await) } => None,
            read = from.read(&mut buffer) => Some(read),
        };
        let Some(read) = read else {
            let drained = async { while let Ok(1..) = from.read(&mut buffer).await {} };
            // Whether or not the server finished in time, the client learns nothing.
            drop(timeout(DRAIN_DEADLINE, drained).await);
            return;
        };
        let Ok(length @ 1..) = read else { return };
        let mode = *shared.mode.borrow();
        if let Mode::Delay(by) = mode {
            sleep(by).await;
        }
        if *action.borrow() == ReplyAction::Hold {
            shared.held_reply.send_modify(|held| held.arrived = true);
            let mut held = shared.held_reply.subscribe();
            drop(held.wait_for(|held| held.released).await);
            action.send_replace(ReplyAction::Forward);
        }
        let carried = seen.len();
        seen.extend_from_slice(&buffer[..length]);
        if let Some(end) = shared.reply_rules.end_of_match(&seen) {
            // `seen` starts with bytes that were forwarded already; the pattern ends after them.
            let last = to.write_all(&seen[carried..end.max(carried)]).await;
            return drop(last);
        }
        let keep = shared.reply_rules.overlap_bytes().min(seen.len());
        seen.drain(..seen.len() - keep);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn pend_forever() {
    std::future::pending::<()>().await;
}
