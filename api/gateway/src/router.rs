//! The middleware stack: all routes behind one list of layers, and the server of them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response_with_state};
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::Gateway;
use crate::middleware::audit_reads::audit_reads;
use crate::middleware::authorize::authorize;
use crate::middleware::cors::cors;
use crate::middleware::failed_attempts::throttle_failed_attempts;
use crate::middleware::rate_limit::rate_limit;
use crate::middleware::request_limits::limit_request;
use crate::middleware::route_policy::{RoutePolicies, find_policy, remove_rate_classes};
use crate::middleware::security_headers::add_security_headers;
use crate::problem::Problem;
use crate::routes::catalogue::documented_routes;
use crate::routes::openapi::complete::complete;
use crate::routes::openapi::handler::Document;
use crate::server::accept::Server;
use crate::server::connections::ConnectionLimiter;

/// Largest request body where a route sets no limit of its own: a few names and labels.
const MAX_BODY_BYTES: usize = 64 * 1024;

impl Gateway {
    /// All routes behind the middleware stack. Fails if the document cannot be serialized, which
    /// the tests of [`crate::routes::catalogue`] rule out.
    fn router(&self) -> serde_json::Result<Router> {
        let (routes, document) = documented_routes().split_for_parts();
        let mut document = serde_json::to_value(document)?;
        complete(&mut document);
        let policies = Arc::new(RoutePolicies::of(&document));
        remove_rate_classes(&mut document);
        let routes = routes.layer(Extension(Document::new(&document)));

        // A request passes both lists from top to bottom, its answer from bottom to top.
        let for_all_requests = (
            cors(&self.0.parts.cors),
            map_response_with_state(self.clone(), add_security_headers),
            DefaultBodyLimit::max(MAX_BODY_BYTES),
            from_fn_with_state(policies, find_policy),
            from_fn(limit_request),
        );
        let for_matched_routes = (
            from_fn_with_state(self.clone(), throttle_failed_attempts),
            from_fn_with_state(self.clone(), authorize),
            from_fn_with_state(self.clone(), rate_limit),
            from_fn_with_state(self.clone(), audit_reads),
        );
        Ok(routes
            .route_layer(for_matched_routes)
            .fallback(Problem::no_such_route)
            .layer(for_all_requests)
            .with_state(self.clone()))
    }

    /// Serves until the gateway stops; see [`crate::server`].
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        clients: ConnectionLimiter,
    ) -> serde_json::Result<()> {
        let parts = &self.0.parts;
        let writers = Arc::clone(&parts.writers);
        let stop = parts.hub.stop().clone();
        let memory = Arc::clone(parts.hub.memory());
        let router = self.router()?;
        let server = Server::new(
            router,
            writers,
            clients,
            tls,
            parts.stall_timeout,
            memory,
            stop,
        );
        server.run(listener).await;
        Ok(())
    }
}
