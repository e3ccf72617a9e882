//! The sides of the benchmark: each a server with its channels, started for one part and ended with
//! it.
//!
//! Each server gets an address of the loopback device, the limit of open files of this process, and
//! no setting that makes it slower than its own documentation does.

use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use runcast_common::scripts::load_append;
use runcast_tests::crowd::RequestBuilder;
use runcast_tests::eventually::eventually_within;
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::programs::{free_port, loopback};
use runcast_tests::redis_server::RedisServer;
use runcast_tests::stack::{Service, Stack};
use tempfile::TempDir;
use uuid::Uuid;

use crate::measure;
use crate::naive;
use crate::publish::Publisher;

/// Longest wait for a server to start, or to stop on a signal.
const SERVER_DEADLINE: Duration = Duration::from_secs(20);

/// The measured servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Runcast,
    NchanMemory,
    NchanRedis,
    DurableStreams,
    Naive,
}

impl Name {
    pub(crate) const ALL: [Self; 5] = [
        Self::Runcast,
        Self::NchanMemory,
        Self::NchanRedis,
        Self::DurableStreams,
        Self::Naive,
    ];
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runcast => "Runcast",
            Self::NchanMemory => "nchan, memory",
            Self::NchanRedis => "nchan, Redis",
            Self::DurableStreams => "durable-streams",
            Self::Naive => "axum Sse, broadcast",
        })
    }
}

/// A running server.
pub(crate) struct Side {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    pub(crate) publisher: Publisher,
    pub(crate) runs: Vec<Uuid>,
    /// Declared before the servers that it depends on, which must outlive it.
    server: Server,
    _redis: Option<RedisServer>,
    _folder: TempDir,
}

enum Server {
    Stack(Box<Stack>),
    Process(Process),
}

impl Side {
    /// Starts a server with this many channels.
    pub(crate) async fn start(name: Name, channels: usize) -> Self {
        if name == Name::Runcast {
            return Self::runcast(channels, &[Service::Gateway, Service::Persister]).await;
        }
        let folder = TempDir::with_prefix("runcast-bench-").expect("a temporary folder");
        let port = free_port();
        let address = loopback(port);
        let redis = if name == Name::NchanRedis {
            Some(RedisServer::start(folder.path()).await)
        } else {
            None
        };
        let spec = match name {
            Name::Naive => naive_recipe(port, folder.path()),
            Name::DurableStreams => durable_streams_recipe(port, folder.path()),
            _ => nchan_recipe(port, redis.as_ref(), folder.path()),
        };
        let mut process = spec.start(folder.path());
        eventually_within(SERVER_DEADLINE, &format!("{name} listens"), async || {
            if let Some(status) = process.try_wait() {
                panic!("{name} exited unexpectedly ({status})\n{}", process.logs());
            }
            answers(name, address).map_err(|error| format!("{error}\n{}", process.logs()))
        })
        .await;
        let publisher = Publisher::to_http(address, publishing(name, address, channels).await);
        Self {
            name,
            address,
            publisher,
            runs: Vec::new(),
            server: Server::Process(process),
            _redis: redis,
            _folder: folder,
        }
    }

    /// Starts Runcast with these services and this many runs.
    pub(crate) async fn runcast(channels: usize, services: &[Service]) -> Self {
        let mut stack = Stack::without_services().await;
        for &service in services {
            stack.start_service(service).await;
        }
        let mut runs = Vec::with_capacity(channels);
        for number in 0..channels {
            runs.push(stack.api().create_run(&format!("bench {number}")).await.id);
        }
        let mut redis = stack.redis.connection().await;
        load_append(&mut redis).await.expect("the append script");
        let url = stack.redis.url(stack.redis.port());
        Self {
            name: Name::Runcast,
            address: gateway(&stack),
            publisher: Publisher::to_redis(&url, stack.keys(), &runs),
            runs,
            server: Server::Stack(Box::new(stack)),
            _redis: None,
            _folder: TempDir::with_prefix("runcast-bench-").expect("a temporary folder"),
        }
    }

    /// The requests of viewers, each for the channel that its number maps to.
    pub(crate) fn request(&self) -> RequestBuilder {
        let (name, address) = (self.name, self.address);
        let token = match &self.server {
            Server::Stack(stack) => stack.token().to_owned(),
            Server::Process(_) => String::new(),
        };
        let runs = self.runs.clone();
        let channels = self.publisher.channels();
        Box::new(move |viewer, cursor| {
            let channel = viewer % channels;
            let path = match name {
                Name::Runcast => format!("/v1/runs/{}/stream", runs[channel]),
                Name::NchanMemory | Name::NchanRedis => format!("/sub?c={channel}"),
                Name::DurableStreams => format!("/c{channel}?offset=now&live=sse"),
                Name::Naive => format!("/{channel}"),
            };
            let mut request =
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n");
            if !token.is_empty() {
                request += &format!("Authorization: Bearer {token}\r\n");
            }
            if let Some(cursor) = cursor {
                request += &format!("Last-Event-ID: {cursor}\r\n");
            }
            request + "\r\n"
        })
    }

    /// The installation of Runcast.
    pub(crate) fn stack(&mut self) -> &mut Stack {
        match &mut self.server {
            Server::Stack(stack) => stack,
            Server::Process(process) => panic!("{} is no Runcast", process.name()),
        }
    }

    /// Updates the address of its gateway.
    pub(crate) fn look_up(&mut self) {
        self.address = gateway(self.stack());
    }

    /// Proportional set size of the server's processes together, in KiB. Redis is not counted.
    pub(crate) fn pss_kib(&self) -> f64 {
        self.processes()
            .iter()
            .map(|&id| measure::pss_kib(id))
            .sum()
    }

    /// CPU time of the same processes.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes().iter().map(|&id| measure::cpu(id)).sum()
    }

    /// All processes of the server.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let first = match &self.server {
            Server::Stack(stack) => stack.process_id(Service::Gateway),
            Server::Process(process) => process.id(),
        };
        measure::with_children(first)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Server::Process(process) = &mut self.server {
            // nginx ends its workers on SIGTERM, but not when it is killed.
            process.signal(Signal::SIGTERM);
            let requested = std::time::Instant::now();
            while process.try_wait().is_none() && requested.elapsed() < SERVER_DEADLINE {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn gateway(stack: &Stack) -> SocketAddr {
    let api = stack.api();
    let address = api.base().strip_prefix("http://").expect("a URL");
    address.parse().expect("an address with its port")
}

/// Whether a server is ready for viewers: nchan refuses them until it has connected to its Redis.
fn answers(name: Name, address: SocketAddr) -> Result<(), String> {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        if !matches!(name, Name::NchanMemory | Name::NchanRedis) {
            return Ok(String::new());
        }
        stream.set_read_timeout(Some(SERVER_DEADLINE))?;
        write!(
            stream,
            "GET /sub?c=ready HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n"
        )?;
        let mut head = [0; 32];
        let length = stream.read(&mut head)?;
        Ok(String::from_utf8_lossy(&head[..length]).into_owned())
    };
    match ask() {
        Ok(head) if head.is_empty() || head.contains(" 200 ") => Ok(()),
        Ok(head) => Err(head),
        Err(error) => Err(std::io::Error::to_string(&error)),
    }
}

fn naive_recipe(port: u16, folder: &Path) -> ProcessSpec {
    let program = std::env::current_exe().expect("the path of this program");
    ProcessSpec::new(
        "naive",
        program,
        &[naive::NAIVE_ARGUMENT, &port.to_string()],
        folder,
    )
}

fn durable_streams_recipe(port: u16, folder: &Path) -> ProcessSpec {
    let root = std::env::var_os("RUNCAST_BENCH_DURABLE_STREAMS")
        .expect("RUNCAST_BENCH_DURABLE_STREAMS is not set: call tests/bench/run fanout");
    let program = Path::new(&root).join("bin/durable-streams-server");
    let data = folder.join("data");
    fs::create_dir(&data).expect("a folder for its data");
    let arguments = [
        "--port",
        &port.to_string(),
        "--data-dir",
        data.to_str().expect("a path in UTF-8"),
        "--durability",
        "memory",
    ];
    ProcessSpec::new("durable-streams", program, &arguments, folder)
}

fn nchan_recipe(port: u16, redis: Option<&RedisServer>, folder: &Path) -> ProcessSpec {
    let (upstream, pass) = match redis {
        Some(redis) => {
            // It supports no Redis user but the default one.
            let url = redis.url(redis.port()).replace("default:", ":");
            let url = url.trim_end_matches("/0");
            (
                format!("upstream store {{ nchan_redis_server {url}; }}"),
                "nchan_redis_pass store;",
            )
        }
        None => (String::new(), ""),
    };
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes auto;
events {{ worker_connections 19000; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 512M;
    {upstream}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{ nchan_subscriber eventsource; nchan_channel_id $arg_c; nchan_subscriber_first_message newest; {pass} }}
        location = /pub {{ nchan_publisher http; nchan_channel_id $arg_c; nchan_message_buffer_length 1000; {pass} }}
    }}
}}
",
        user = whoami(),
        folder = folder.display(),
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config).expect("the configuration of nginx is written");
    let path = path.to_str().expect("a path in UTF-8");
    let mut spec = ProcessSpec::new("nchan", "/usr/sbin/nginx", &["-c", path], folder);
    // On SIGKILL it would leave its workers behind.
    spec.parent_death_signal = "TERM";
    spec
}

/// Workers run as our user: another could not write to our folder.
fn whoami() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    user.ok()
        .flatten()
        .map_or("root".to_owned(), |user| user.name)
}

/// Creates the channels, and returns a publisher for them.
async fn publishing(name: Name, address: SocketAddr, channels: usize) -> Vec<String> {
    let mut heads = Vec::with_capacity(channels);
    for channel in 0..channels {
        let path = match name {
            Name::NchanMemory | Name::NchanRedis => format!("/pub?c={channel}"),
            Name::DurableStreams => format!("/c{channel}"),
            _ => format!("/{channel}"),
        };
        if name == Name::DurableStreams {
            let url = format!("http://{address}{path}");
            let request = reqwest::Client::builder().no_proxy().build();
            let request = request.expect("an HTTP client").put(&url);
            let created = request.header("content-type", "text/plain").send().await;
            let created = created.expect("a response to creating a stream");
            assert!(created.status().is_success(), "{url}: {}", created.status());
        }
        heads.push(format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\n"
        ));
    }
    heads
}
