//! Addresses and hosts that no Tool may name, whatever anybody approves: loopback, link-local, this-host, multicast.
//!
//! It sees only what is written. Where a name leads to, and the ranges of cluster and nodes, are checked when a call connects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Networks that are always refused, with their name.
fn refused() -> [(IpNet, &'static str); 8] {
    let v4 = |a, b, c, d, len| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len));
    let v6 = |first: u16, last: u16, len| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), len));
    [
        (v4(127, 0, 0, 0, 8), "loopback"),
        (v4(169, 254, 0, 0, 16), "link-local"),
        (v4(0, 0, 0, 0, 8), "this host"),
        (v4(224, 0, 0, 0, 3), "multicast or reserved"),
        (v6(0, 1, 128), "loopback"),
        (v6(0xfe80, 0, 10), "link-local"),
        (v6(0, 0, 128), "this host"),
        (v6(0xff00, 0, 8), "multicast"),
    ]
}

/// Checks a range of addresses that a container may connect to.
///
/// # Errors
/// It is not a CIDR, has host bits, or overlaps what is always refused.
pub fn check_cidr(text: &str) -> Result<(), String> {
    let net: IpNet = text.parse().map_err(|_| format!("{text:?} is not a CIDR such as 203.0.113.0/24"))?;
    if net.trunc() != net {
        return Err(format!("{text:?} has bits set beyond its prefix; did you mean {}?", net.trunc()));
    }
    if let IpNet::V6(v6) = net
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?} is IPv4 in IPv6; write it as IPv4"));
    }
    match refused().into_iter().find(|(bad, _)| bad.contains(&net) || net.contains(bad)) {
        Some((bad, what)) => Err(format!("{text:?} overlaps {bad} ({what}), which is always refused; name narrower ranges")),
        None => Ok(()),
    }
}

/// Checks the URL of a host outside the cluster.
///
/// # Errors
/// It is no URL with a host, or the host is obviously one that is always refused.
pub fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user or password is refused; use secretHeaders".to_owned());
    }
    match url.host() {
        Some(Host::Ipv4(ip)) => check_ip(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => check_ip(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        Some(Host::Domain(name)) => check_name(name),
        None => Err(format!("{text:?} names no host")),
    }
}

fn check_ip(ip: IpAddr) -> Result<(), String> {
    match refused().into_iter().find(|(net, _)| net.contains(&ip)) {
        Some((net, what)) => Err(format!("{ip} is in {net} ({what}), which is always refused")),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Err(format!("{name:?} is this host, which is always refused"));
    }
    let inside = !name.contains('.') || name.ends_with(".svc") || name.ends_with(".cluster.local") || name.ends_with(".internal");
    if inside {
        return Err(format!(
            "{name:?} is a name inside the cluster or its network; name a Service of the own namespace under `service` instead"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for good in ["203.0.113.0/24", "10.1.2.3/32", "2001:db8::/32"] {
            assert_eq!(check_cidr(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("203.0.113.0", "not a CIDR"),
            ("203.0.113.1/24", "203.0.113.0/24?"),
            ("0.0.0.0/0", "narrower"),
            ("127.0.0.1/32", "loopback"),
            ("169.254.169.254/32", "link-local"),
            ("::/0", "narrower"),
            ("fe80::/64", "link-local"),
            ("::ffff:127.0.0.1/128", "IPv4"),
            ("240.0.0.0/4", "reserved"),
        ] {
            let error = check_cidr(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["https://api.example.com/v1", "http://203.0.113.7:8080/", "https://example.com."] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "https://localhost/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://169.254.169.254/latest",
            "https://kubernetes.default.svc/",
            "https://other.ns.svc.cluster.local/",
            "https://kubernetes/",
            "http://metadata.google.internal/",
            "http://0.0.0.0/",
            "https://user:pw@example.com/",
            "ftp://example.com/",
            "https://",
            "http://a.localhost./",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
