//! Why nothing is published: `runcast wrap` says it in one line, without secrets, and runs the
//! command. On a machine without certificate authorities plain HTTP needs none, and HTTPS trusts
//! those that are part of the program.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use runcast_tests::certificate_authority::CertificateAuthority;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use support::gateway::{Gateway, json};

/// Runs `runcast wrap` as on a machine without certificate authorities, with these variables. Needs
/// root, or a kernel that allows user namespaces for everybody, as most do.
fn on_a_bare_machine(settings: &[(&str, &str)]) -> Output {
    let hide = "for folder in /etc/ssl /etc/pki /usr/share/ca-certificates /usr/local/share; do \
                  test ! -d $folder || mount -t tmpfs none $folder || exit 99; \
                done; exec \"$0\" wrap -- echo ran";
    let mut command = Command::new("unshare");
    for (name, _) in std::env::vars().filter(|(name, _)| {
        name.starts_with("RUNCAST_") || name.starts_with("SSL_CERT_") || name == "REDIS_URL"
    }) {
        command.env_remove(name);
    }
    command
        .args(["-r", "-m", "sh", "-c", hide, env!("CARGO_BIN_EXE_runcast")])
        .env("RUNCAST_DATA_DIR", "/nowhere")
        .env("RUNCAST_TOKEN", "very-secret")
        .env("NO_PROXY", "*")
        .envs(settings.iter().copied())
        .output()
        .expect("unshare is installed")
}

/// The only line of `runcast`; the command ran.
fn the_line(output: &Output) -> String {
    assert_eq!(output.stdout, b"ran\n", "{output:?}");
    let stderr = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!stderr.contains("very-secret"), "{stderr}");
    assert!(
        stderr.starts_with("runcast: nothing is published"),
        "{stderr}"
    );
    stderr
}

/// A TLS server with a certificate that no known authority has signed. It answers nothing.
fn strange_server(folder: &Path) -> String {
    let authority = CertificateAuthority::new(folder);
    let certificate = CertificateDer::from_pem_file(authority.certificate()).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(authority.key()).expect("PEM");
    runcast_common::connect::install_tls_provider();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a server");
            while tls.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
        }
    });
    format!("https://{address}")
}

#[test]
fn plain_http_needs_no_certificate_authorities() {
    let refusal = r#"{"title": "Forbidden", "detail": "the token\nlacks runs:publish"}"#;
    for broken in [&[][..], &[("SSL_CERT_FILE", "/none")]] {
        let gateway = Gateway::answering(vec![json("403 Forbidden", refusal)]);
        let settings = [&[("RUNCAST_URL", gateway.url.as_str())], broken].concat();
        let line = the_line(&on_a_bare_machine(&settings));
        assert!(line.contains("the token lacks runs:publish"), "{line}");
        assert_eq!(gateway.asked().len(), 1);
    }
}

#[test]
fn https_trusts_bundled_authorities_and_names_a_broken_bundle() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = strange_server(folder.path());
    let line = the_line(&on_a_bare_machine(&[("RUNCAST_URL", &url)]));
    assert!(
        line.contains("UnknownIssuer") && line.contains("SSL_CERT_FILE"),
        "{line}"
    );
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let empty = empty.to_str().expect("text");
    for (name, value) in [("SSL_CERT_FILE", "/none"), ("SSL_CERT_DIR", empty)] {
        let line = the_line(&on_a_bare_machine(&[("RUNCAST_URL", &url), (name, value)]));
        assert!(line.contains(&format!("{name} is not valid")), "{line}");
    }
}

#[test]
fn each_cause_is_one_line() {
    let page = "<html><body>Sign in</body></html>".to_owned();
    let not_tls = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tls_to_plain = format!("https://{}", not_tls.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in not_tls.incoming() {
            let mut stream = stream.expect("a connection");
            let mut some = [0; 16];
            drop(stream.read(&mut some));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    let answering = |status: &str, body: &str| Gateway::answering(vec![json(status, body); 3]);
    let sign_in = answering("200 OK", &page);
    let bad_gateway = answering("502 Bad Gateway", &page);
    let unauthorized = answering("401 Unauthorized", "{}");
    for (url, expected) in [
        ("gopher://host", "RUNCAST_URL"),
        ("http://", "RUNCAST_URL"),
        ("http://127.0.0.1:1", "refused"),
        ("http://no-such-host.invalid", "no-such-host.invalid"),
        (tls_to_plain.as_str(), "is it http://?"),
        (sign_in.url.as_str(), "a page for people"),
        (bad_gateway.url.as_str(), "502 Bad Gateway: with a page"),
        (unauthorized.url.as_str(), "RUNCAST_TOKEN is refused"),
    ] {
        let line = the_line(&on_a_bare_machine(&[("RUNCAST_URL", url)]));
        assert!(line.contains(expected), "{url}: {line}");
    }
}
