//! The page, embedded into the program: `/` and its assets.
//!
//! The names of assets contain a hash of their content, so they never change and are cached; `/` is
//! requested anew each time. [`crate::middleware::security_headers`] restricts what the page may
//! load.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use rust_embed::RustEmbed;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Gateway;
use crate::problem::Problem;

/// The built page.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct PageFiles;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(page))
        .routes(routes!(asset))
}

/// Returns the page.
#[utoipa::path(
    get,
    path = "/",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html")),
    security(()),
    extensions(("x-rate-class" = json!("uncounted")))
)]
async fn page() -> Result<Response, Problem> {
    file("index.html", "no-cache")
}

/// Returns a file of the page.
#[utoipa::path(
    get,
    path = "/assets/{file}",
    responses((status = 200, description = "The file; it never changes", content(
        ("text/javascript"), ("text/css"), ("image/svg+xml"), ("application/octet-stream"),
    ))),
    security(()),
    extensions(("x-rate-class" = json!("uncounted")))
)]
async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    file(
        &format!("assets/{name}"),
        "public, max-age=31536000, immutable",
    )
}

fn file(path: &str, cache: &'static str) -> Result<Response, Problem> {
    let Some(file) = PageFiles::get(path) else {
        return Err(Problem::not_found("file", path));
    };
    let mut response = Body::from(file.data.into_owned()).into_response();
    let content_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}
