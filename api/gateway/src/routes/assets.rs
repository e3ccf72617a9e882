//! The page, embedded into the program: `/` and its assets.
//!
//! Assets carry a hash of their content in their names and never change; `/` is asked for anew each
//! time. The policy allows nothing but this server's own files, so text from a run can never run.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use rust_embed::RustEmbed;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::problem::Problem;

/// What a browser may load and run, for every answer of this server.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Files;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(page))
        .routes(routes!(asset))
}

/// The page.
#[utoipa::path(
    get,
    path = "/",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html")),
    security(())
)]
async fn page() -> Result<Response, Problem> {
    file("index.html", "no-cache")
}

/// A file that the page needs.
#[utoipa::path(
    get,
    path = "/assets/{file}",
    responses((status = 200, description = "It never changes", content(
        ("text/javascript"), ("text/css"), ("image/svg+xml"), ("application/octet-stream"),
    ))),
    security(())
)]
async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    file(
        &format!("assets/{name}"),
        "public, max-age=31536000, immutable",
    )
}

fn file(path: &str, cache: &'static str) -> Result<Response, Problem> {
    let Some(file) = Files::get(path) else {
        let status = axum::http::StatusCode::NOT_FOUND;
        return Err(Problem::new(status, format!("there is no file {path}")));
    };
    let mut response = Body::from(file.data.into_owned()).into_response();
    let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}
