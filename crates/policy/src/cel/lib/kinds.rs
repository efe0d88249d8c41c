//! Values of the kinds that Kubernetes adds: quantities, addresses, networks, URLs. Each is read once and is small, but for a URL, which is its text.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
    sync::Arc,
};

use ipnet::IpNet;

use super::{Fun, With, quantity, quantity::Quantity, url::Url};
use crate::cel::code::{Fail, val::Val};

/// What kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Kubernetes quantity.
    Quantity,
    /// An address of IPv4 or IPv6.
    Ip,
    /// A network.
    Cidr,
    /// A URL.
    Url,
}

impl Kind {
    /// One of the kind, for messages.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Quantity => "a quantity such as 500m, 1.5 or 8Gi",
            Self::Ip => "an IP address such as 10.0.0.1 or 2001:db8::1",
            Self::Cidr => "a CIDR such as 10.0.0.0/8 or 2001:db8::/32",
            Self::Url => "a URL such as https://example.com/path, or a path such as /path",
        }
    }
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::Ip => "IP address",
            Self::Cidr => "CIDR",
            Self::Url => "URL",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A value of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ext {
    /// A quantity.
    Quantity(Quantity),
    /// An address.
    Ip(IpAddr),
    /// A network, with the address that it was written with.
    Cidr(IpNet),
    /// A URL.
    Url(Url),
}

impl Ext {
    /// Reads a text; None: it is none of the kind.
    #[must_use]
    pub fn read(kind: Kind, text: &str) -> Option<Self> {
        match kind {
            Kind::Quantity => Quantity::read(text).map(Self::Quantity),
            Kind::Ip => address(text).map(Self::Ip),
            Kind::Cidr => network(text).map(Self::Cidr),
            Kind::Url => Url::read(text).map(Self::Url),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Quantity(_) => Kind::Quantity,
            Self::Ip(_) => Kind::Ip,
            Self::Cidr(_) => Kind::Cidr,
            Self::Url(_) => Kind::Url,
        }
    }

    /// As `string()` writes it; None: it does not.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Ip(ip) => Some(ip.to_string()),
            Self::Cidr(net) => Some(net.to_string()),
            Self::Quantity(_) | Self::Url(_) => None,
        }
    }
}

impl cel::objects::Opaque for Ext {
    fn runtime_type_name(&self) -> &str {
        match self {
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
        }
    }
}

/// Reads an address. One of IPv4 within IPv6 is that of IPv4, whatever it is asked; written with dots it is refused, as CEL does. No zones.
fn address(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(_) if text.contains('.') => None,
            Some(mapped) => Some(mapped.into()),
            None => Some(ip.into()),
        },
        ip @ IpAddr::V4(_) => Some(ip),
    }
}

/// Reads a network. The length has no sign and no leading zero.
fn network(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return None;
    }
    if !length.bytes().all(|b| b.is_ascii_digit()) || (length.len() > 1 && length.starts_with('0')) {
        return None;
    }
    IpNet::new(ip, length.parse().ok()?).ok()
}

fn made<'a>(ext: Ext) -> Val<'a> {
    Val::Ext(Arc::new(ext))
}

/// Functions of the kinds.
pub fn call<'a>(fun: Fun, kind: Kind, args: &[Val<'a>], with: &With<'_>) -> Result<Val<'a>, Fail<'a>> {
    let wrong = Err(Fail::Type(fun.name()));
    let Some((first, rest)) = args.split_first() else { return wrong };
    if let Some(text) = first.str() {
        if !matches!(fun.on(), super::On::Nothing | super::On::Space(_)) {
            return wrong;
        }
        with.bytes(text.len())?;
        let ext = Ext::read(kind, text);
        return match fun {
            Fun::IsQuantity | Fun::IsIp | Fun::IsCidr | Fun::IsUrl => Ok(Val::Bool(ext.is_some())),
            Fun::IsCanonical => match ext.and_then(|ext| ext.text()) {
                Some(canonical) => Ok(Val::Bool(canonical == text)),
                None => Err(Fail::Function(fun.name())),
            },
            _ => ext.map(made).ok_or(Fail::Function(fun.name())),
        };
    }
    let Val::Ext(first) = first else { return wrong };
    match &**first {
        Ext::Quantity(q) => quantity::call(fun, q, rest),
        Ext::Ip(ip) => of_address(fun, *ip),
        Ext::Cidr(net) => of_network(fun, net, rest, with),
        Ext::Url(url) => of_url(fun, url, with),
    }
}

fn of_address<'a>(fun: Fun, ip: IpAddr) -> Result<Val<'a>, Fail<'a>> {
    Ok(match fun {
        Fun::Family => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        Fun::IsUnspecified => Val::Bool(ip.is_unspecified()),
        Fun::IsLoopback => Val::Bool(ip.is_loopback()),
        Fun::IsLinkLocalMulticast => Val::Bool(link_local_multicast(ip)),
        Fun::IsLinkLocalUnicast => Val::Bool(link_local_unicast(ip)),
        Fun::IsGlobalUnicast => {
            let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast(ip) || ip == Ipv4Addr::BROADCAST;
            Val::Bool(!other)
        }
        _ => return Err(Fail::Type(fun.name())),
    })
}

/// RFC 5771: 224.0.0.0/24. RFC 4291: ff02::/16, with any flags.
fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(ip) => ip.segments().first().is_some_and(|s| s & 0xff0f == 0xff02),
    }
}

/// RFC 3927: 169.254.0.0/16. RFC 4291: fe80::/10.
fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(&ip),
    }
}

fn of_network<'a>(fun: Fun, net: &IpNet, rest: &[Val<'a>], with: &With<'_>) -> Result<Val<'a>, Fail<'a>> {
    let wrong = Err(Fail::Type(fun.name()));
    // a text stands for what it says
    let read: Option<Arc<Ext>> = match rest.first() {
        Some(Val::Ext(ext)) => Some(Arc::clone(ext)),
        Some(text) => match (text.str(), fun.reads(1)) {
            (Some(text), Some(kind)) => {
                with.bytes(text.len())?;
                Some(Arc::new(Ext::read(kind, text).ok_or(Fail::Function(fun.name()))?))
            }
            _ => return wrong,
        },
        None => None,
    };
    Ok(match (fun, read.as_deref()) {
        (Fun::ContainsIp, Some(Ext::Ip(ip))) => Val::Bool(net.contains(ip)),
        (Fun::ContainsCidr, Some(Ext::Cidr(other))) => Val::Bool(net.contains(other)),
        (Fun::OfCidr, None) => made(Ext::Ip(net.addr())),
        (Fun::Masked, None) => made(Ext::Cidr(net.trunc())),
        (Fun::PrefixLength, None) => Val::Int(net.prefix_len().into()),
        _ => return wrong,
    })
}

fn of_url<'a>(fun: Fun, url: &Url, with: &With<'_>) -> Result<Val<'a>, Fail<'a>> {
    with.bytes(url.len())?;
    let text = |s: &str| Ok(Val::Text(s.into()));
    match fun {
        Fun::GetScheme => text(url.scheme()),
        Fun::GetHost => text(url.host()),
        Fun::GetHostname => text(url.hostname()),
        Fun::GetPort => text(url.port()),
        Fun::GetEscapedPath => text(url.path()),
        Fun::GetQuery => {
            with.elements(url.pairs())?;
            let query = url.query().ok_or(Fail::Function(fun.name()))?;
            let entries = query.into_iter().map(|(name, values)| {
                let values: Rc<[Val<'a>]> = values.into_iter().map(|v| Val::Text(v.into())).collect();
                (Val::Text(name.into()), Val::List(values))
            });
            Ok(Val::Map(entries.collect()))
        }
        _ => Err(Fail::Type(fun.name())),
    }
}
