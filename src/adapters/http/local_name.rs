//! Checks that a request names this machine as its server.

use std::net::IpAddr;

use http::{Request, header, uri::Authority};

/// Returns whether `request` names this machine, or names no server at all.
///
/// Protects against DNS rebinding. A browser on this machine may show a page of another site whose
/// name resolves to a loopback address. Requests of that page reach a port of this machine, but
/// they carry the name of the site.
pub(super) fn is_for_this_machine<B>(request: &Request<B>) -> bool {
    let mut named = request.headers().get_all(header::HOST).iter();
    let in_header = named.next();
    if named.next().is_some() {
        return false;
    }
    let in_uri = request.uri().authority().map(Authority::as_str);
    let in_header = match in_header.map(|value| value.to_str()) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_not_text)) => return false,
    };
    [in_uri, in_header].into_iter().flatten().all(is_local)
}

/// Returns whether `authority` (`name`, `name:port` or an address) names this machine.
fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = rustix::system::uname();
    host.eq_ignore_ascii_case("localhost")
        || name.nodename().to_str().is_ok_and(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_answered(uri: &str, hosts: &[&str]) -> bool {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        is_for_this_machine(&request.body(()).unwrap())
    }

    #[test]
    fn accepts_names_and_addresses_of_this_machine() {
        let own = rustix::system::uname().nodename().to_str().unwrap().to_ascii_uppercase();
        let names =
            ["localhost", "LocalHost:9090", "127.0.0.1:9090", "127.9.9.9", "[::1]:9090", &own];
        for name in names {
            assert!(is_answered("/metrics", &[name]), "{name}");
        }
        assert!(is_answered("/metrics", &[]));
        assert!(is_answered("http://localhost:9090/metrics", &["localhost:9090"]));
    }

    #[test]
    fn rejects_the_names_of_other_servers() {
        let names = [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
            "a@localhost@evil.example",
            "",
            " ",
        ];
        for name in names {
            assert!(!is_answered("/metrics", &[name]), "{name}");
        }
        assert!(!is_answered("/metrics", &["localhost", "evil.example"]));
        assert!(!is_answered("http://evil.example/metrics", &["localhost"]));
    }
}
