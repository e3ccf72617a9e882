//! A browser without a window. It keeps cookies as browsers do, by host and regardless of the port,
//! and follows redirects one step at a time, so that a story may act in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use crate::api::send;

/// Values by host and name.
type CookieJar = BTreeMap<(String, String), String>;

/// A browser.
#[derive(Debug)]
pub struct OidcBrowser {
    client: Client,
    jar: Mutex<CookieJar>,
}

impl Default for OidcBrowser {
    fn default() -> Self {
        runcast_common::connect::install_tls_provider();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .build();
        Self {
            client: client.expect("an HTTP client"),
            jar: Mutex::default(),
        }
    }
}

impl OidcBrowser {
    /// Requests a URL as a program does, with the cookies of its host, and stores new cookies.
    pub async fn get(&self, url: &str) -> Response {
        self.request(url, "*/*").await
    }

    /// The same as a person does who opens a page.
    pub async fn get_page(&self, url: &str) -> Response {
        self.request(url, "text/html,application/xhtml+xml,*/*;q=0.8")
            .await
    }

    async fn request(&self, url: &str, accept: &str) -> Response {
        let url: Url = url.parse().expect("a URL");
        let host = url.host_str().expect("a host").to_owned();
        let cookies: Vec<String> = self
            .lock()
            .iter()
            .filter(|((of, _), _)| *of == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let mut request = self.client.get(url).header(ACCEPT, accept);
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let answer = send(request).await;
        for set in answer.headers().get_all(SET_COOKIE) {
            let set = set.to_str().expect("a cookie is text");
            let pair = set.split(';').next().expect("a pair");
            let (name, value) = pair.split_once('=').expect("a name and a value");
            let key = (host.clone(), name.to_owned());
            match set.contains("Max-Age=0") {
                true => self.lock().remove(&key),
                false => self.lock().insert(key, value.to_owned()),
            };
        }
        answer
    }

    /// The cookie of this name for a host.
    pub fn cookie(&self, host: &str, name: &str) -> Option<String> {
        let key = (host.to_owned(), name.to_owned());
        self.lock().get(&key).cloned()
    }

    /// Sets a cookie, as a host or an attacker does.
    pub fn set_cookie(&self, host: &str, name: &str, value: &str) {
        let key = (host.to_owned(), name.to_owned());
        self.lock().insert(key, value.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, CookieJar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target of a redirect; panics with the response if it is none.
pub async fn redirect_target(answer: Response) -> String {
    let status = answer.status();
    let to = answer.headers().get(LOCATION).cloned();
    let text = answer.text().await.expect("a body");
    let redirects = [StatusCode::SEE_OTHER, StatusCode::FOUND];
    assert!(redirects.contains(&status), "{status}: {text}");
    let to = to.expect("a location");
    to.to_str().expect("a URL is text").to_owned()
}
