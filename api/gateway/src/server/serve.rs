//! Serves one connection: finds out its protocol, and passes its requests to the router.
//!
//! - Plain HTTP/1.1: a stream can take the socket over ([`super::handover`]).
//! - TLS, with HTTP/1.1 or HTTP/2 as negotiated: the HTTP library sends streams.
//! - Plain HTTP/2, where the client knows beforehand and opens with its preface: likewise.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::accept::Server;
use super::connections::ConnectionPermit;
use super::guarded_body::guarded;
use super::handover::{Handover, set_body, take_viewer};
use super::idle_timeout::Activity;
use super::stall_timeout::Socket;

/// Longest wait for a TLS handshake or the head of a request.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(20);

/// Pause before the first bytes of a connection are read again, where they come one by one.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// Bytes that a socket accepts although they cannot be sent yet: enough for the fastest client, far
/// less than the megabytes that the kernel would queue for a slow one.
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// Longest head of a request that the library reads. It is longer than
/// [`request_limits`](crate::middleware::request_limits) allows, which answers in words.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// How long an HTTP/2 connection without a request stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Streams that one HTTP/2 connection may have open.
const MAX_HTTP2_STREAMS: u32 = 256;

/// The first bytes of HTTP/2 where the client knows beforehand that the server speaks it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Protocols that a TLS handshake offers.
pub const ALPN_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The answer to one request.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What a connection can be served on.
trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

impl Server {
    /// Serves a connection to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) {
        // 1. Small writes leave at once, and the kernel queues little.
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES));
        if let Err(error) = prepared {
            debug!(%error, "cannot set the options of a socket; serving it without them");
        }
        let socket = Socket::new(socket, self.stall_timeout, Arc::clone(&self.memory));
        // 2. The protocol decides who serves it.
        let served = match &self.tls {
            Some(tls) => match timeout(HEAD_DEADLINE, tls.accept(socket)).await {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    self.serve_http2(stream, peer).await
                }
                Ok(Ok(stream)) => self.serve_http1(stream, peer).await,
                Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
                Err(_elapsed) => return debug!("a TLS handshake took too long"),
            },
            None => match timeout(HEAD_DEADLINE, begins_with_preface(&socket.stream)).await {
                Ok(Ok(true)) => self.serve_http2(socket, peer).await,
                Ok(Ok(false)) => return self.serve_plain_http1(socket, peer, permit).await,
                Ok(Err(error)) => return debug!(%error, "a connection broke"),
                Err(_elapsed) => return debug!("a client sent no request in time"),
            },
        };
        if let Err(error) = served {
            debug!(%error, "a connection broke");
        }
    }

    /// HTTP/1.1 on a socket that a stream can take over.
    async fn serve_plain_http1(&self, socket: Socket, peer: SocketAddr, permit: ConnectionPermit) {
        let handover = Handover::default();
        let service = {
            let handover = handover.clone();
            service_fn(move |request| self.answer(request, peer, Some(handover.clone())))
        };
        let is_blocked = socket.is_blocked();
        let mut connection = http1().serve_connection(TokioIo::new(socket), service);
        let mut stopped = std::pin::pin!(self.stop.cancelled());
        let mut is_stopping = false;
        let served = poll_fn(|context| {
            if !is_stopping && stopped.as_mut().poll(context).is_ready() {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(done) = Pin::new(&mut connection).poll(context) {
                return Poll::Ready(done.map(|()| None));
            }
            // What the library still has to write belongs to an earlier answer.
            match is_blocked.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => match handover.take() {
                    Some(stream) => Poll::Ready(Ok(Some(stream))),
                    None => Poll::Pending,
                },
            }
        })
        .await;
        match served {
            Ok(None) => {}
            Err(error) => debug!(%error, "a connection broke"),
            Ok(Some((head, mut viewer))) => {
                viewer.permits().connection = Some(Box::new(permit));
                match connection.into_parts().io.into_inner().stream.into_std() {
                    Ok(socket) => self.writers.add_viewer(socket, head, viewer),
                    Err(error) => {
                        error!(%error, "cannot hand a socket over to the writer threads; closing it");
                    }
                }
            }
        }
    }

    /// HTTP/1.1 with TLS.
    async fn serve_http1(&self, io: impl Io, peer: SocketAddr) -> hyper::Result<()> {
        let service = service_fn(|request| self.answer(request, peer, None));
        let mut connection = std::pin::pin!(http1().serve_connection(TokioIo::new(io), service));
        tokio::select! {
            served = connection.as_mut() => return served,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    async fn serve_http2(&self, io: impl Io, peer: SocketAddr) -> hyper::Result<()> {
        let activity = Activity::default();
        let service = service_fn(|request| {
            let in_progress = activity.begin();
            let answer = self.answer(request, peer, None);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(response.map(|body| guarded(body, in_progress)))
            }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_HTTP2_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .keep_alive_interval(HEAD_DEADLINE)
            .keep_alive_timeout(HEAD_DEADLINE);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            served = connection.as_mut() => return served,
            () = activity.idle_for(IDLE_TIMEOUT) => connection.as_mut().graceful_shutdown(),
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// Answers a request. If the answer is a stream that takes the socket over, this never
    /// completes.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        handover: Option<Handover>,
    ) -> Answer {
        let address = self.clients.address(peer, request.headers());
        request.extensions_mut().insert(address);
        let has_body = request.method() != Method::HEAD;
        let routed = self.router.call(request);
        Box::pin(async move {
            let mut response = match routed.await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let viewer = take_viewer(&mut response).filter(|_| has_body);
            match (viewer, handover) {
                (None, _) => {}
                (Some(viewer), None) => set_body(&mut response, viewer),
                (Some(viewer), Some(handover)) => {
                    handover.put(&response, viewer);
                    return pending().await;
                }
            }
            Ok(response)
        })
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_header_size(MAX_HEAD_BYTES as usize)
        .header_read_timeout(HEAD_DEADLINE);
    builder
}

/// Whether the first bytes are those of HTTP/2. They stay in the socket.
async fn begins_with_preface(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let length = socket.peek(&mut first).await?;
        if length == 0 || first[..length] != HTTP2_PREFACE[..length] {
            return Ok(false);
        }
        if length == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // Peeking returns at once while bytes are there, so wait before the next look.
        sleep(PEEK_PAUSE).await;
    }
}
