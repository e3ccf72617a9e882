//! An S3-compatible server for stories about the archive: moto, installed by
//! `deploy/local/install`.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode};

use crate::eventually::eventually_within;
use crate::process::{Process, ProcessSpec};
use crate::programs;

/// Longest wait for a new server to answer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How many ports are tried, in case another process takes one between choosing and binding it.
const MAX_PORT_ATTEMPTS: usize = 5;

/// The bucket that every server has.
pub const BUCKET_NAME: &str = "archive";

/// A running server. It ends when dropped, with all its objects.
#[derive(Debug)]
pub struct S3Server {
    _process: Process,
    port: u16,
    client: Client,
}

impl S3Server {
    /// Starts a server with an empty [`BUCKET_NAME`].
    pub async fn start(folder: &Path) -> Self {
        runcast_common::connect::install_tls_provider();
        let client = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build();
        let client = client.expect("an HTTP client");
        let python = programs::python_program("moto5", "python");
        let mut logs = String::new();
        for _ in 0..MAX_PORT_ATTEMPTS {
            let port = programs::free_port();
            let arguments = [
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ];
            let mut process = ProcessSpec::new("s3", &python, &arguments, folder).start(folder);
            let mut ended = false;
            eventually_within(START_DEADLINE, "the S3 server answers", async || {
                ended = process.try_wait().is_some();
                let made = client
                    .put(format!("http://127.0.0.1:{port}/{BUCKET_NAME}"))
                    .send()
                    .await;
                match made {
                    _ if ended => Ok(()),
                    Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            if !ended {
                return Self {
                    _process: process,
                    port,
                    client,
                };
            }
            logs = process.logs();
        }
        panic!("no S3 server started\n{logs}");
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The keys of its objects.
    pub async fn objects(&self) -> Vec<String> {
        self.names("?list-type=2").await
    }

    /// The keys of its unfinished multipart uploads.
    pub async fn uploads(&self) -> Vec<String> {
        self.names("?uploads").await
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let request = self.client.get(format!(
            "http://127.0.0.1:{}/{BUCKET_NAME}{query}",
            self.port
        ));
        let list = request
            .send()
            .await
            .expect("a list")
            .text()
            .await
            .expect("a list");
        let pieces = list.split("<Key>").skip(1);
        pieces
            .map(|piece| piece.split('<').next().unwrap_or_default().to_owned())
            .collect()
    }
}

/// The settings of a service that uses such a server at this port.
pub fn settings(port: u16) -> [(&'static str, String); 5] {
    [
        ("RUNCAST_ARCHIVE", format!("s3://{BUCKET_NAME}/runs")),
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "story".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-story".to_owned()),
    ]
}
