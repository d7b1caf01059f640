//! Who a request comes from, behind balancers that are trusted to say so.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// Resolves client addresses.
pub struct Resolver {
    trusted: Vec<IpNet>,
}

impl Resolver {
    /// Believes `X-Forwarded-For` only where these networks have written it.
    pub fn new(trusted: Vec<IpNet>) -> Self {
        Self { trusted }
    }

    /// Whether an address is a balancer of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the last one in the chain that no trusted proxy has. Whatever stands
    /// before it was written by the client itself.
    pub fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        for value in values.into_iter().rev() {
            let Ok(value) = value.to_str() else { return client };
            for hop in value.rsplit(',') {
                let Some(address) = parse_hop(hop.trim()) else { return client };
                client = address;
                if !self.trusts(address) {
                    return client;
                }
            }
        }
        client
    }

    /// Whether the client came over TLS. This node speaks none itself: a trusted proxy says so.
    pub fn is_secure(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        // The first of several is the client's.
        let first = forwarded.and_then(|protocols| protocols.split(',').next());
        first.is_some_and(|protocol| protocol.trim().eq_ignore_ascii_case("https"))
            && self.trusts(peer)
    }
}

/// An address as proxies write it: some add the port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(peer: &str, forwarded: &[&str]) -> String {
        let resolver = Resolver::new(vec!["10.0.0.0/8".parse().expect("network")]);
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().expect("header"));
        }
        resolver.resolve(peer.parse().expect("address"), &headers).to_string()
    }

    #[test]
    fn headers_of_strangers_are_not_believed() {
        assert_eq!(resolve("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn only_trusted_proxies_say_that_a_client_came_over_tls() {
        let resolver = Resolver::new(vec!["10.0.0.0/8".parse().expect("network")]);
        let is_secure = |peer: &str, protocol: &str| {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-proto", protocol.parse().expect("header"));
            resolver.is_secure(peer.parse().expect("address"), &headers)
        };
        assert!(is_secure("10.0.0.1", "HTTPS, http"));
        assert!(!is_secure("10.0.0.1", "http, https"));
        assert!(!is_secure("192.0.2.1", "https"));
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.2.2.2"]), "198.51.100.7");
        assert_eq!(resolve("10.0.0.1", &["203.0.113.9", "10.3.3.3"]), "203.0.113.9");
        assert_eq!(resolve("::ffff:10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(resolve("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(resolve("10.0.0.1", &[]), "10.0.0.1");
    }
}
