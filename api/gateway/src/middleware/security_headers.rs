//! Headers that tell browsers what answers of this server may do.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::routes::assets;

/// What the page needs of a browser's devices: nothing.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), \
     microphone=(), midi=(), payment=(), usb=()";

/// For a year no browser asks by http once it was answered by https.
const ONLY_HTTPS: &str = "max-age=31536000";

/// These routes with the headers, on every answer that does not say otherwise; `secure` if browsers come by https.
pub(crate) fn secured<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    secure: bool,
) -> Router<S> {
    let name = HeaderName::from_static;
    let always = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, assets::POLICY),
        (name("permissions-policy"), PERMISSIONS),
        // No other site shares a window with the page, or loads what is here without being allowed to (CORS).
        (name("cross-origin-opener-policy"), "same-origin"),
        (name("cross-origin-resource-policy"), "same-origin"),
    ];
    let https = secure.then_some((header::STRICT_TRANSPORT_SECURITY, ONLY_HTTPS));
    always
        .into_iter()
        .chain(https)
        .fold(router, |router, (name, value)| {
            let value = HeaderValue::from_static(value);
            router.layer(SetResponseHeaderLayer::if_not_present(name, value))
        })
}
