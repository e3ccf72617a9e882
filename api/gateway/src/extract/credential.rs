//! The credential that a request presents. Of several, one counts: [`presented`] says which.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Uri, header};
use runcast_access::credential::PresentedCredential;
use runcast_access::secret::Secret;
use runcast_access::session::cookie;

use super::query::Query;
use crate::Gateway;
use crate::problem::Problem;

/// The query parameter that carries a stream ticket.
pub(crate) const TICKET_PARAMETER: &str = "ticket";

/// The stream ticket in an address, if it has one. The last one counts, as for all parameters.
pub fn ticket(uri: &Uri) -> Option<Secret> {
    Query::of(uri).get(TICKET_PARAMETER).map(Secret::from_text)
}

/// The credential of a request: its ticket if the route `accepts_tickets`, else its `Authorization`
/// header, else its session cookie. `is_secure` says whether browsers reach the page by https,
/// which decides the name of that cookie.
pub fn presented<B>(
    request: &Request<B>,
    is_secure: bool,
    accepts_tickets: bool,
) -> PresentedCredential {
    if let Some(ticket) = ticket(request.uri()).filter(|_| accepts_tickets) {
        return PresentedCredential::Ticket(ticket);
    }
    in_headers(request.headers(), is_secure)
}

/// The credential in these headers: that in `Authorization`, else the session cookie.
fn in_headers(headers: &HeaderMap, is_secure: bool) -> PresentedCredential {
    if let Some(header) = headers.get(header::AUTHORIZATION) {
        let token = header
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| Secret::from_text(token.trim()));
        return token.map_or(PresentedCredential::Malformed, PresentedCredential::Bearer);
    }
    cookie::from_headers(headers, is_secure)
        .map_or(PresentedCredential::Absent, PresentedCredential::Session)
}

/// The secret by which a request was authenticated, for a route that accepts no tickets.
pub struct PresentedSecret(pub Secret);

impl FromRequestParts<Gateway> for PresentedSecret {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Problem> {
        match in_headers(&parts.headers, gateway.is_secure()) {
            PresentedCredential::Bearer(secret) | PresentedCredential::Session(secret) => {
                Ok(Self(secret))
            }
            _ => Err(Problem::unauthorized(
                "this needs a token or a session, not a ticket",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_carries_one_ticket_or_none() {
        let ticket = |uri: &str| ticket(&uri.parse().expect("an address"));
        assert_eq!(ticket("/v1/feed?ticket=a").expect("one").expose(), "a");
        assert!(ticket("/v1/feed?ticket=").is_none() && ticket("/v1/feed").is_none());
    }
}
