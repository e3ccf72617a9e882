//! Headers that tell a browser what it may do with the answers of this server.
//!
//! Every answer gets them; a handler that sets one of them wins.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::Gateway;

/// What a browser may load and run. It allows nothing but this server's own files, so text from a
/// run can never run as a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

/// What the page needs of a browser's devices: nothing.
const PERMISSIONS_POLICY: &str = "accelerometer=(), camera=(), display-capture=(), \
     geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()";

/// Once reached by https, a browser uses no http for a year.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";

const SECURITY_HEADERS: [(HeaderName, &str); 8] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (
        HeaderName::from_static("permissions-policy"),
        PERMISSIONS_POLICY,
    ),
    // No other site shares a window with the page, or loads resources without permission (CORS).
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Middleware: adds the headers that the answer does not have yet.
pub(crate) async fn add_security_headers(
    State(gateway): State<Gateway>,
    mut response: Response,
) -> Response {
    let https = (header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    let https = gateway.is_secure().then_some(https);
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS.into_iter().chain(https) {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
