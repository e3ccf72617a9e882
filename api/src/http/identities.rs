//! `/v1/users/{user}/identities`: whom an OpenID Connect issuer knows as a user, and to end that; for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Gateway;
use super::problem::Problem;
use super::users::find;
use crate::access::Scope;
use crate::access::principal::Principal;
use crate::store::identities::Linked;

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(list, unlink))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identities)]
struct List {
    identities: Vec<Linked>,
}

/// Lists whom issuers know as a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/identities",
    responses(
        (status = 200, description = "One of each issuer at most", body = List),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<List>, Problem> {
    let user = find(&gateway, &user).await?;
    let identities = gateway.store().identities_of(user.id).await?;
    Ok(Json(List { identities }))
}

/// Lets no issuer know a user any more, and ends their sessions.
///
/// Whoever comes next with their address, and the issuer has verified that, becomes them.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/identities",
    responses(
        (status = 204, description = "None does"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn unlink(
    principal: Principal,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = find(&gateway, &user).await?;
    let (store, actor) = (gateway.store(), principal.actor());
    store.unlink(&actor, user.id).await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
