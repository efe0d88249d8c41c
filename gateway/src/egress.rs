//! Which addresses a tool may be connected to. Pure: addresses in, yes or no out; nothing here connects or resolves.
//!
//! Two lists: `everywhere` holds what nobody may reach (the machine itself, link-local metadata services, multicast); `outside` holds the cluster's
//! and nodes' own ranges, which only a Tool that names a Service of its own namespace may reach. An IPv6 address that carries an IPv4 one is
//! judged by both. There is no switch that opens a range: lists come from code and only grow by configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that no tool reaches, whatever it names.
const NEVER: &[&str] = &[
    "0.0.0.0/8",          // "this host"; Linux connects 0.0.0.0 to itself
    "127.0.0.0/8",        // loopback
    "169.254.0.0/16",     // link-local, metadata services
    "192.0.0.0/24",       // protocol assignments
    "192.88.99.0/24",     // 6to4 relays
    "224.0.0.0/4",        // multicast
    "240.0.0.0/4",        // reserved, broadcast
    "::/128",             // unspecified
    "::1/128",            // loopback
    "fe80::/10",          // link-local
    "fec0::/10",          // site-local of old
    "ff00::/8",           // multicast
    "fd00:ec2::254/128",  // metadata service on IPv6
    "100.100.100.200/32", // metadata service in shared address space
];

/// What may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    everywhere: Vec<IpNet>,
    outside: Vec<IpNet>,
}

/// Refused, with the range that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in {range}, which tools may not reach")]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// The range.
    pub range: IpNet,
}

impl Egress {
    /// Exactly these lists.
    #[must_use]
    pub fn new(everywhere: Vec<IpNet>, outside: Vec<IpNet>) -> Self {
        Self { everywhere, outside }
    }

    /// What a running edge uses: `NEVER`, and the cluster's ranges for hosts outside of it.
    #[must_use]
    pub fn production(cluster: Vec<IpNet>) -> Self {
        Self::new(never(), cluster)
    }

    /// May a tool's own URL lead there?
    ///
    /// # Errors
    /// The address is in one of the ranges.
    pub fn outside(&self, address: IpAddr) -> Result<(), Refused> {
        refuse(&[&self.everywhere, &self.outside], address)
    }

    /// May a Service of the Tool's own namespace lead there?
    ///
    /// # Errors
    /// The address is in a range that nobody reaches.
    pub fn service(&self, address: IpAddr) -> Result<(), Refused> {
        refuse(&[&self.everywhere], address)
    }
}

/// Ranges that no tool reaches.
#[must_use]
pub fn never() -> Vec<IpNet> {
    NEVER.iter().filter_map(|text| text.parse().ok()).collect()
}

fn refuse(lists: &[&Vec<IpNet>], address: IpAddr) -> Result<(), Refused> {
    for face in faces(address) {
        if let Some(range) = lists.iter().flat_map(|list| list.iter()).find(|range| range.contains(&face)) {
            return Err(Refused { address, range: *range });
        }
    }
    Ok(())
}

/// The address and, when it is an IPv6 one that carries an IPv4 one, that one too.
fn faces(address: IpAddr) -> Vec<IpAddr> {
    let mut faces = vec![address];
    if let IpAddr::V6(v6) = address {
        faces.extend(carried(v6).map(IpAddr::V4));
    }
    faces
}

/// IPv4 addresses inside: mapped, compatible, translated (NAT64), 6to4, Teredo.
fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => Some(v4(g, h)),
        [0x64, 0xff9b, 1, ..] => Some(v4(g, h)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, ..] => Some(v4(!g, !h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn egress() -> Egress {
        Egress::production(vec!["10.96.0.0/12".parse().unwrap(), "10.244.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_range_is_one() {
        assert_eq!(never().len(), NEVER.len());
    }

    #[test]
    fn table() {
        let refused = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.96.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1:7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "::ffff:0:7f00:1",
            "2001:0:1:2:3:4:80ff:fffe",
            "10.96.0.1",
            "10.111.255.255",
            "10.244.3.4",
            "fd00:1::5",
            "fd00:ec2::254",
            "100.100.100.200",
        ];
        for address in refused {
            assert!(egress().outside(ip(address)).is_err(), "{address}");
        }
        for address in [
            "203.0.113.7",
            "8.8.8.8",
            "192.168.1.1",
            "10.0.0.1",
            "172.16.0.1",
            "2606:4700::1111",
            "::ffff:203.0.113.7",
            "64:ff9b::cb00:7107",
        ] {
            assert!(egress().outside(ip(address)).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_service_may_be_in_the_cluster_and_never_on_the_machine() {
        assert!(egress().service(ip("10.96.0.10")).is_ok());
        for address in ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            assert!(egress().service(ip(address)).is_err(), "{address}");
        }
    }

    /// Addresses near the interesting ones as well as any.
    fn any_address() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<u32>().prop_map(Ipv4Addr::from);
        let odd = (prop::sample::select(vec![0x7f00_0000_u32, 0xa9fe_0000, 0x0a60_0000, 0xe000_0000, 0]), any::<u16>())
            .prop_map(|(high, low)| Ipv4Addr::from(high | u32::from(low)));
        let v4 = prop_oneof![v4, odd].boxed();
        prop_oneof![
            v4.clone().prop_map(IpAddr::V4),
            v4.clone().prop_map(|a| IpAddr::V6(a.to_ipv6_mapped())),
            v4.prop_map(|a| IpAddr::V6(a.to_ipv6_compatible())),
            any::<u128>().prop_map(|n| IpAddr::V6(n.into())),
            any::<u16>().prop_map(|n| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n))),
        ]
    }

    proptest! {
        #[test]
        fn nothing_special_is_ever_allowed(address in any_address()) {
            let plain = address.to_canonical();
            let special = plain.is_loopback() || plain.is_unspecified() || plain.is_multicast() || match plain {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            let cluster = ["10.96.0.0/12", "10.244.0.0/16"].iter().any(|n| n.parse::<IpNet>().unwrap().contains(&plain));
            if special {
                prop_assert!(egress().service(address).is_err());
            }
            if special || cluster {
                prop_assert!(egress().outside(address).is_err());
            }
        }
    }
}
