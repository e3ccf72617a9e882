//! Finds the one credential of a request that counts.

use axum::http::header;
use axum::http::request::Parts;
use runcast_access::credential::PresentedCredential;
use runcast_access::secret::Secret;
use runcast_access::session::cookie;

use super::query::Query;

/// The query parameter that carries a stream ticket.
pub(crate) const TICKET_PARAMETER: &str = "ticket";

/// The stream ticket in an address, if it has one. The last one counts, as for all parameters.
#[must_use]
pub fn ticket(uri: &axum::http::Uri) -> Option<Secret> {
    Query::of(uri).get(TICKET_PARAMETER).map(Secret::claimed)
}

/// The credential of a request: its ticket if the route `takes_ticket`, else its `Authorization` header, else its session
/// cookie. `is_secure` says whether the page is served by https, which decides the name of that cookie.
#[must_use]
pub fn presented(parts: &Parts, is_secure: bool, takes_ticket: bool) -> PresentedCredential {
    if let Some(ticket) = ticket(&parts.uri).filter(|_| takes_ticket) {
        return PresentedCredential::Ticket(ticket);
    }
    if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
        let token = header
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| Secret::claimed(token.trim()));
        return token.map_or(PresentedCredential::Malformed, PresentedCredential::Bearer);
    }
    cookie::from_headers(&parts.headers, is_secure)
        .map_or(PresentedCredential::Absent, PresentedCredential::Session)
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
