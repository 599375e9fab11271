//! For whom a trusted proxy calls: limits count its callers, and not all of them as one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;

use super::connection::Peer;
use crate::scrape::Network;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Notes the caller of a trusted proxy in the request's [`Peer`].
pub(super) async fn note_caller(
    State(trusted): State<Arc<Vec<Network>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    if let Some((mut peer, address)) = peer.and_then(|peer| Some((peer, peer.address?.ip())))
        && is_trusted(&trusted, address)
    {
        peer.forwarded_for = caller(request.headers(), &trusted);
        request.extensions_mut().insert(peer);
    }
    next.run(request).await
}

fn is_trusted(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Each proxy adds whom it was called by on the right, and what is further left is worth what the one who said it is:
/// the last that is no trusted proxy itself. None where there is no such header or it cannot be read.
fn caller(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let mut last = None;
    for value in headers.get_all(FORWARDED_FOR).into_iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            let address = parsed(std::str::from_utf8(entry).ok()?.trim())?;
            last = Some(address);
            if !is_trusted(trusted, address) {
                return last;
            }
        }
    }
    last
}

/// An address; some proxies write the port too.
fn parsed(entry: &str) -> Option<IpAddr> {
    let with_port = || entry.parse().map(|address: SocketAddr| address.ip());
    let address: Result<IpAddr, _> = entry.parse().or_else(|_| with_port());
    // IPv4 as a socket of both kinds writes it
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(values: &[&'static str]) -> Option<String> {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                FORWARDED_FOR,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        caller(&headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_caller_is_the_last_that_is_no_proxy() {
        for (values, expected) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            // what a caller claims itself does not count
            (&["198.51.100.9, 192.0.2.1"], Some("192.0.2.1")),
            (&["198.51.100.9", "192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1, 10.0.0.7", "10.0.0.8"], Some("192.0.2.1")),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db8::1]:4711,10.0.0.7"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            // called from where only proxies are
            (&["10.0.0.1, 10.0.0.7"], Some("10.0.0.1")),
            (&["nonsense, 192.0.2.1"], Some("192.0.2.1")),
            (&["\u{ff}, 192.0.2.1"], Some("192.0.2.1")),
            (&["192.0.2.1, ::ffff:10.0.0.7"], Some("192.0.2.1")),
            (&["192.0.2.1, nonsense"], None),
            (&["192.0.2.1, nonsense, 10.0.0.7"], None),
            (&["unknown"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(found(values).as_deref(), expected, "{values:?}");
        }
    }
}
