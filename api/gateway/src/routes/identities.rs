//! `/v1/users/{user}/identities`: whom an OpenID Connect issuer knows as a user, to say so, and to end it; for
//! administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::oidc::issuer;
use super::users::find;
use crate::Gateway;
use crate::extract::caller::Caller;
use crate::extract::json::StrictJson;
use crate::problem::Problem;
use runcast_access::Scope;
use runcast_access::oidc::is_subject;
use runcast_store::identities::{Identity, Linked};

/// The routes of this file.
pub fn router() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new().routes(routes!(list, link, unlink))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identities)]
struct Identities {
    identities: Vec<Linked>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewIdentity)]
struct Link {
    /// The issuer's name for them; who was refused stands in the log of access with theirs.
    subject: String,
}

/// Lists whom issuers know as a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/identities",
    responses(
        (status = 200, description = "One of each issuer at most", body = Identities),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn list(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<Identities>, Problem> {
    let user = find(&gateway, &user).await?;
    let identities = gateway.store().identities_of(user.id).await?;
    Ok(Json(Identities { identities }))
}

/// Says whom the issuer knows as a user, where it vouches for no address by which that could be found out.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/identities",
    request_body = Link,
    responses(
        (status = 201, description = "Whom issuers know as them now", body = Identities),
        (status = 409, description = "The issuer knows somebody else as them, or this one as somebody else"),
    ),
    security(("bearer" = [Scope::Admin]))
)]
async fn link(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
    StrictJson(link): StrictJson<Link>,
) -> Result<(StatusCode, Json<Identities>), Problem> {
    let issuer = issuer(&gateway)?.issuer();
    let user = find(&gateway, &user).await?;
    if !is_subject(&link.subject) {
        let expected = "subject: expected 1 to 255 bytes without control characters";
        return Err(Problem::bad_request(expected));
    }
    let identity = Identity {
        issuer,
        subject: &link.subject,
        email: &user.email,
    };
    let store = gateway.store();
    if !store.link(&principal.actor(), &identity, user.id).await? {
        let taken = "the issuer knows somebody else as this user, or this one as somebody else: unlink them first";
        return Err(Problem::new(StatusCode::CONFLICT, taken));
    }
    let identities = store.identities_of(user.id).await?;
    Ok((StatusCode::CREATED, Json(Identities { identities })))
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
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = find(&gateway, &user).await?;
    let (store, actor) = (gateway.store(), principal.actor());
    store.unlink(&actor, user.id).await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
