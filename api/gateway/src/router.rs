//! All routes behind their middleware, in one list, and the server of them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use utoipa_axum::router::OpenApiRouter;

use crate::Gateway;
use crate::middleware::authorize::{Guard, guard};
use crate::middleware::rate_limit;
use crate::middleware::request_limits;
use crate::middleware::route_policy::RoutePolicies;
use crate::middleware::security_headers;
use crate::problem::Problem;
use crate::routes::{self, openapi};
use crate::server::accept::Server;
use crate::server::connections::ConnectionLimiter;

/// Largest request body where no route says otherwise: a few names and labels.
const MAX_BODY_BYTES: usize = 64 * 1024;

impl Gateway {
    /// All routes, behind [the guard](crate::middleware::authorize), and within [rate limits](rate_limit).
    ///
    /// # Errors
    /// If their document cannot be written, which its tests rule out.
    fn router(&self) -> serde_json::Result<Router> {
        let (routes, document) = documented_routes().split_for_parts();
        let mut document = serde_json::to_value(document)?;
        openapi::complete(&mut document);
        let rules = RoutePolicies::of(&document);
        let routes = routes
            .layer(Extension(openapi::Document::new(&document)))
            // From the inside out: the guard stands between the two layers of limits, and what knows who asks within it.
            .route_layer(from_fn_with_state(self.clone(), rate_limit::rates))
            .route_layer(from_fn_with_state(Guard::new(self.clone(), rules), guard))
            .route_layer(from_fn_with_state(self.clone(), rate_limit::guesses))
            .fallback(Problem::no_such_route)
            .layer(from_fn(request_limits::bounded))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
        let router = security_headers::secured(routes, self.is_secure())
            .layer(self.0.parts.cors.layer())
            .with_state(self.clone());
        Ok(router)
    }

    /// Serves until the gateway stops; see [`Server`].
    ///
    /// # Errors
    /// If the document of its routes cannot be written.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        clients: ConnectionLimiter,
    ) -> serde_json::Result<()> {
        let parts = &self.0.parts;
        let delivery = Arc::clone(&parts.delivery);
        let stop = parts.hub.stop().clone();
        let memory = Arc::clone(parts.hub.memory());
        let router = self.router()?;
        let server = Server::new(router, delivery, clients, tls, parts.patience, memory, stop);
        server.run(listener).await;
        Ok(())
    }
}

/// All routes, each with its documentation: what is registered otherwise is refused by the guard.
pub(crate) fn documented_routes() -> OpenApiRouter<Gateway> {
    files()
        .into_iter()
        .fold(openapi::head(), OpenApiRouter::merge)
}

/// The routes of each file.
pub(crate) fn files() -> Vec<OpenApiRouter<Gateway>> {
    vec![
        routes::runs::router(),
        routes::events::router(),
        routes::text::router(),
        routes::search::router(),
        routes::ingest::handler::router(),
        routes::control::router(),
        routes::agents::router(),
        routes::jobs::router(),
        routes::webhooks::router(),
        routes::stream::router(),
        routes::watch::router(),
        routes::feed::router(),
        routes::session::router(),
        routes::oidc::router(),
        routes::sessions::router(),
        routes::stream_tickets::router(),
        routes::tokens::router(),
        routes::users::router(),
        routes::identities::router(),
        routes::roles::router(),
        routes::audit::router(),
        routes::health::router(),
        openapi::router(),
        routes::assets::router(),
    ]
}
