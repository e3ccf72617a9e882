//! Connections of clients: HTTP/1.1 and HTTP/2, in the clear or by TLS.
//!
//! A plain HTTP/1.1 connection whose request is answered by a stream is taken out of the HTTP library's hands: its socket
//! goes to [`WriterPool`], with the head of the answer still to be sent, and nothing of the connection stays here. The
//! body ends with the connection then, as HTTP/1.1 allows; `end` or `closing` is its last frame. On any other
//! connection the library carries the stream.
//!
//! Time: [`HEAD_DEADLINE`] for the TLS handshake, the head of a request, and between two requests; a client that takes
//! nothing of what it asked for is cut off after the patience that viewers are given. After `stop` nobody is let in,
//! requests that are under way are answered, and after [`DRAIN_DEADLINE`] connections are cut. What a request may be is
//! bounded by [`request`](super::request), and how many connections there may be by [`ConnectionLimiter`].

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use bytes::Bytes;
use futures::StreamExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::connections::{ConnectionLimiter, ConnectionPermit};
use super::guarded_body::holding;
use super::idle_timeout::Activity;
use super::stall_timeout::Socket;
use runcast_access::rate_limit::concurrency::Permit;
use runcast_fanout::body_stream::bytes;
use runcast_fanout::memory::MemoryGuard;
use runcast_fanout::viewer::Viewer;
use runcast_fanout::writer::WriterPool;

/// Longest wait for a handshake or the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// How long connections may take to finish after the streams were told to close.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// After the kernel could not give a connection, because there are too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Between two looks at the first bytes of a client that sends them one by one.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// Bytes that a socket takes although they cannot be sent yet: enough for the fastest client, far less than the
/// megabytes that the kernel would let a slow one pile up.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Longest head of a request that is read at all: what [`request`](super::request) refuses in words must fit in.
const MOST_HEAD: u32 = 64 * 1024;

/// How long an HTTP/2 connection stays open on which nothing is asked for.
const IDLE: Duration = Duration::from_secs(60);

/// Streams that one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 256;

/// What HTTP/2 begins with where both sides know it beforehand.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Protocols that are offered in a TLS handshake.
pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Marks an answer as a stream: its body is what this viewer is sent. Taken out once.
#[derive(Debug, Clone)]
pub struct StreamHandoff(Arc<Mutex<Option<Viewer>>>);

impl StreamHandoff {
    /// The mark for this viewer.
    #[must_use]
    pub fn new(viewer: Viewer) -> Self {
        Self(Arc::new(Mutex::new(Some(viewer))))
    }

    /// The viewer keeps this place as long as it is there.
    pub fn hold(&self, place: Permit) {
        let mut viewer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(viewer) = &mut *viewer {
            viewer.held().place = Some(place);
        }
    }

    fn take(&self) -> Option<Viewer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves connections.
pub struct Server {
    router: TowerToHyperService<Router>,
    delivery: Arc<WriterPool>,
    clients: ConnectionLimiter,
    tls: Option<TlsAcceptor>,
    patience: Duration,
    memory: Arc<MemoryGuard>,
    stop: CancellationToken,
}

/// What a connection leaves behind when a stream takes its socket.
type Handover = Arc<Mutex<Option<(Bytes, Viewer)>>>;

impl Server {
    /// A server of these routes until `stop`. Who takes nothing for as long as `patience` is cut off, or sooner while
    /// there is too little `memory`.
    #[must_use]
    pub fn new(
        router: Router,
        delivery: Arc<WriterPool>,
        clients: ConnectionLimiter,
        tls: Option<TlsAcceptor>,
        patience: Duration,
        memory: Arc<MemoryGuard>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            router: TowerToHyperService::new(router),
            delivery,
            clients,
            tls,
            patience,
            memory,
            stop,
        })
    }

    /// Lets clients in until told to stop, then waits for what is under way.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = TaskTracker::new();
        let stop = self.stop.clone();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((socket, peer)) => {
                    if let Some(connection) = self.clients.admit() {
                        connections.spawn(Arc::clone(&self).serve(socket, peer, connection));
                    }
                }
                Err(error) if is_of_client(&error) => {
                    debug!(%error, "a client went before it was let in");
                }
                Err(error) => {
                    error!(%error, "no connection can be taken; trying again");
                    stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
            warn!("connections are still open after {DRAIN_DEADLINE:?}; they are cut");
        }
    }

    async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        connection: ConnectionPermit,
    ) {
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES));
        if let Err(error) = prepared {
            debug!(%error, "a connection is not as quick as it could be");
        }
        let socket = Socket::new(socket, self.patience, Arc::clone(&self.memory));
        let served = match &self.tls {
            Some(tls) => match timeout(HEAD_DEADLINE, tls.accept(socket)).await {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    self.http2(stream, peer).await
                }
                Ok(Ok(stream)) => self.http1(stream, peer).await,
                Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
                Err(_elapsed) => return debug!("a TLS handshake took too long"),
            },
            None => match timeout(HEAD_DEADLINE, begins_with_preface(&socket.stream)).await {
                Ok(Ok(true)) => self.http2(socket, peer).await,
                Ok(Ok(false)) => return self.plain(socket, peer, connection).await,
                Ok(Err(error)) => return debug!(%error, "a connection broke"),
                Err(_elapsed) => return debug!("a client said nothing for too long"),
            },
        };
        if let Err(error) = served {
            debug!(%error, "a connection broke");
        }
    }

    /// HTTP/1.1 on a socket that a stream can have.
    async fn plain(&self, socket: Socket, peer: SocketAddr, place: ConnectionPermit) {
        let handover = Handover::default();
        let filled = Arc::clone(&handover);
        let service =
            service_fn(move |request| self.answer(request, peer, Some(Arc::clone(&filled))));
        let is_blocked = socket.is_blocked();
        let mut connection = http1().serve_connection(TokioIo::new(socket), service);
        let mut stopped = std::pin::pin!(self.stop.cancelled());
        let mut is_told = false;
        let served = poll_fn(|context| {
            if !is_told && stopped.as_mut().poll(context).is_ready() {
                is_told = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(context) {
                return Poll::Ready(done.map(|()| None));
            }
            // What the library still has to write is of an answer before this one.
            match is_blocked.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => match lock(&handover).take() {
                    Some(taken) => Poll::Ready(Ok(Some(taken))),
                    None => Poll::Pending,
                },
            }
        })
        .await;
        match served {
            Ok(None) => {}
            Err(error) => debug!(%error, "a connection broke"),
            Ok(Some((head, mut viewer))) => {
                viewer.held().connection = Some(Box::new(place));
                match connection.into_parts().io.into_inner().stream.into_std() {
                    Ok(socket) => self.delivery.seat(socket, head, viewer),
                    Err(error) => error!(%error, "a socket cannot be taken over"),
                }
            }
        }
    }

    /// HTTP/1.1 by TLS.
    async fn http1(&self, io: impl Io, peer: SocketAddr) -> hyper::Result<()> {
        let service = service_fn(|request| self.answer(request, peer, None));
        let mut connection = std::pin::pin!(http1().serve_connection(TokioIo::new(io), service));
        tokio::select! {
            served = connection.as_mut() => return served,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    async fn http2(&self, io: impl Io, peer: SocketAddr) -> hyper::Result<()> {
        let activity = Activity::default();
        let service = service_fn(|request| {
            let busy = activity.begin();
            let answering = self.answer(request, peer, None);
            async move {
                let response = answering.await?;
                Ok::<_, Infallible>(response.map(|body| holding(body, busy)))
            }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(MOST_HEAD)
            .keep_alive_interval(HEAD_DEADLINE)
            .keep_alive_timeout(HEAD_DEADLINE);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            served = connection.as_mut() => return served,
            () = activity.idle(IDLE) => connection.as_mut().graceful_shutdown(),
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// Answers a request. One that is answered by a stream, on a connection that can be handed over, is never
    /// answered here.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        handover: Option<Handover>,
    ) -> Answering {
        let address = self.clients.address(peer, request.headers());
        request.extensions_mut().insert(address);
        let has_body = request.method() != Method::HEAD;
        let answering = self.router.call(request);
        Box::pin(async move {
            let mut response = match answering.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let streamed = response.extensions_mut().remove::<StreamHandoff>();
            if let Some(viewer) = streamed
                .and_then(|streamed| streamed.take())
                .filter(|_| has_body)
            {
                match handover {
                    Some(handover) => {
                        *lock(&handover) = Some((head(&response), viewer));
                        return pending().await;
                    }
                    None => {
                        // That of the empty body that it had until now.
                        response.headers_mut().remove(header::CONTENT_LENGTH);
                        *response.body_mut() =
                            Body::from_stream(bytes(viewer).map(Ok::<_, Infallible>));
                    }
                }
            }
            Ok(response)
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What a connection can be served on.
trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_header_size(MOST_HEAD as usize)
        .header_read_timeout(HEAD_DEADLINE);
    builder
}

/// The head of an answer whose body ends with the connection.
fn head(response: &Response<Body>) -> Bytes {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    let mut head = format!(
        "HTTP/1.1 {} {reason}\r\ndate: {date}\r\nconnection: close\r\n",
        status.as_u16()
    )
    .into_bytes();
    for (name, value) in response.headers() {
        // Those say how the body is framed, and this one is not.
        if matches!(
            *name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION
        ) {
            continue;
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Looks at the first bytes without taking them.
async fn begins_with_preface(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = socket.peek(&mut first).await?;
        if length == 0 || first[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // The kernel tells of each byte once, but shows those that are there again.
        sleep(PEEK_PAUSE).await;
    }
}

/// True if an error of `accept` is only of the connection that came.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
