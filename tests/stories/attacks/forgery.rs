//! Credentials that are almost valid: truncated, altered, inflated, guessed.

use rand::RngExt as _;
use reqwest::header::{COOKIE, HeaderValue};
use reqwest::{Method, StatusCode};
use runcast_tests::api::{Api, send};
use runcast_tests::stack::Stack;

use super::super::access::fixtures::{sign_in, user};
use super::fixtures::{assert_calm, raw};

/// Altered versions of a secret, none of which is the secret.
fn altered(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut all: Vec<Vec<u8>> = (0..bytes.len()).map(|end| bytes[..end].to_vec()).collect();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.to_vec();
            other[at] ^= 1 << bit;
            all.push(other);
        }
    }
    for (before, after) in [("", "="), ("", "A"), ("A", ""), ("", "\u{e9}")] {
        all.push([before.as_bytes(), bytes, after.as_bytes()].concat());
    }
    all.push(secret.to_uppercase().into_bytes());
    all.push(bytes.iter().rev().copied().collect());
    all.push(secret.repeat(2).into_bytes());
    all.push(secret.repeat(600).into_bytes());
    // The last letter of a 256-bit secret encodes fewer than six bits. A letter that differs only
    // in the unused bits decodes to the same bytes, and must still be refused.
    all.retain(|other| other != bytes && HeaderValue::from_bytes(other).is_ok());
    all
}

async fn status(api: &Api, name: &str, value: &[u8]) -> StatusCode {
    let value = HeaderValue::from_bytes(value).expect("a value");
    let request = api.anonymous(Method::GET, "/v1/runs?limit=1");
    send(request.header(name, value)).await.status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_secrets_are_refused() {
    let stack = Stack::start().await;
    let api = stack.api();
    user(&stack, "ada", &["admin"]).await;
    let ada = sign_in(&api, "ada").await;
    let (name, session) = ada.cookie.split_once('=').expect("a pair");
    for (header, prefix, secret) in [
        ("authorization", "Bearer ".to_owned(), stack.token()),
        ("cookie", format!("{name}="), session),
    ] {
        let right = [prefix.as_bytes(), secret.as_bytes()].concat();
        assert_eq!(status(&api, header, &right).await, StatusCode::OK);
        let forged = altered(secret);
        assert!(forged.len() > 150, "{}", forged.len());
        for forged in forged {
            let displayed = [prefix.as_bytes(), &forged].concat();
            let status = status(&api, header, &displayed).await;
            let text = String::from_utf8_lossy(&displayed);
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}: {text}");
        }
        assert_eq!(status(&api, header, &right).await, StatusCode::OK);
    }
    // Neither works as the other kind of credential.
    let as_token = format!("Bearer {session}");
    let as_cookie = format!("{name}={}", stack.token());
    for (header, value) in [("authorization", as_token), ("cookie", as_cookie)] {
        let status = status(&api, header, value.as_bytes()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}");
    }
    assert_calm(&stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_headers_are_refused_without_errors() {
    let stack = Stack::start().await;
    let mut random = rand::rng();
    for round in 0..300 {
        let mut noise = vec![0_u8; random.random_range(0..400)];
        random.fill(&mut noise[..]);
        // Bytes that end the line belong to another attack.
        noise.retain(|byte| !b"\r\n\0".contains(byte));
        let name = [
            "authorization: Bearer ",
            "authorization: ",
            "cookie: ",
            "cookie: runcast_session=",
        ];
        let head = format!(
            "GET /v1/runs HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}",
            name[round % 4]
        );
        let output = [head.as_bytes(), &noise, b"\r\n\r\n"].concat();
        let received = raw(&stack, &output).await;
        let is_refused = ["HTTP/1.1 401 ", "HTTP/1.1 400 "]
            .iter()
            .any(|status| received.starts_with(status));
        assert!(is_refused, "{noise:?}: {received}");
    }
    // Many at once, one of which is valid: the gateway uses that one, or none.
    let api = stack.api();
    user(&stack, "ada", &["viewer"]).await;
    let ada = sign_in(&api, "ada").await;
    let many = format!("{}; {}", vec!["a=b"; 500].join("; "), ada.cookie);
    let request = api
        .anonymous(Method::GET, "/v1/session")
        .header(COOKIE, many);
    assert_eq!(send(request).await.status(), StatusCode::OK);
    let twice = api.request(Method::GET, "/v1/session");
    let twice = send(twice.header("authorization", "Bearer x"))
        .await
        .status();
    assert!(
        twice == StatusCode::OK || twice.is_client_error(),
        "{twice}"
    );
    assert_calm(&stack);
}
