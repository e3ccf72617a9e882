//! `/v1/users/{user}/identities`: links between users and identities of an OpenID Connect issuer;
//! for administrators.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::oidc::issuer;
use super::users::find_user;
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
struct Identities {
    identities: Vec<Linked>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewIdentity {
    /// The subject (`sub`) by which the issuer knows the user. The audit log names the subject of a
    /// refused sign-in.
    subject: String,
}

/// Lists the identities that are linked to a user.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/identities",
    responses(
        (status = 200, description = "The identities, at most one of each issuer", body = Identities),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("read")))
)]
async fn list(
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<Json<Identities>, Problem> {
    let user = find_user(&gateway, &user).await?;
    let identities = gateway.store().identities_of(user.id).await?;
    Ok(Json(Identities { identities }))
}

/// Links an identity of the issuer to a user, where the issuer verifies no address to find the user
/// by.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/identities",
    request_body = NewIdentity,
    responses(
        (status = 201, description = "The identities of the user", body = Identities),
        (status = 409, description = "The user has another identity, or the identity another user"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn link(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
    StrictJson(body): StrictJson<NewIdentity>,
) -> Result<(StatusCode, Json<Identities>), Problem> {
    let issuer = issuer(&gateway)?.issuer();
    let user = find_user(&gateway, &user).await?;
    if !is_subject(&body.subject) {
        let expected = "subject: expected 1 to 255 bytes without control characters";
        return Err(Problem::bad_request(expected));
    }
    let identity = Identity {
        issuer,
        subject: &body.subject,
        email: &user.email,
    };
    let store = gateway.store();
    if !store
        .link_identity(&principal.actor(), &identity, user.id)
        .await?
    {
        let taken = "the user has another identity of this issuer, or the identity another user: unlink \
             it first";
        return Err(Problem::new(StatusCode::CONFLICT, taken));
    }
    let identities = store.identities_of(user.id).await?;
    Ok((StatusCode::CREATED, Json(Identities { identities })))
}

/// Unlinks all identities from a user, and ends the user's sessions.
///
/// The next person that signs in with a verified address of the user is linked to the user again.
#[utoipa::path(
    delete,
    path = "/v1/users/{user}/identities",
    responses(
        (status = 204, description = "The user has no identities"),
    ),
    security(("bearer" = [Scope::Admin])),
    extensions(("x-rate-class" = json!("write")))
)]
async fn unlink(
    Caller(principal): Caller,
    State(gateway): State<Gateway>,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    let user = find_user(&gateway, &user).await?;
    let (store, actor) = (gateway.store(), principal.actor());
    store.unlink_identities(&actor, user.id).await?;
    gateway.access().settle().await;
    Ok(StatusCode::NO_CONTENT)
}
