//! Which addresses are not public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is refused unless private ones are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// The machine itself.
    Loopback,
    /// A private network, or a unique local address.
    Private,
    /// One link only.
    LinkLocal,
    /// The service of a cloud that hands out credentials.
    Metadata,
    /// No address.
    Unspecified,
    /// Several receivers.
    Multicast,
    /// Between a provider and its customers, `100.64.0.0/10`.
    Shared,
    /// Benchmarks, documentation, and what is not in use.
    Reserved,
}

impl AddressKind {
    /// Returns the kind as messages say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a metadata address",
            Self::Unspecified => "the unspecified address",
            Self::Multicast => "a multicast address",
            Self::Shared => "a shared address of a provider",
            Self::Reserved => "a reserved address",
        }
    }
}

/// Returns why an address is not public, or None where it is.
pub fn classify(address: IpAddr) -> Option<AddressKind> {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Option<AddressKind> {
    let [a, b, c, d] = address.octets();
    Some(match (a, b, c, d) {
        // AWS, Azure and others; AWS ECS; Alibaba; Oracle; Azure's agent.
        (169, 254, 169, 254) | (169, 254, 170, 2) | (100, 100, 100, 200) | (192, 0, 0, 192) | (168, 63, 129, 16) => {
            AddressKind::Metadata
        }
        (0, 0, 0, 0) => AddressKind::Unspecified,
        // "This network": Linux connects to itself for some of it.
        (0, ..) => AddressKind::Reserved,
        (127, ..) => AddressKind::Loopback,
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => AddressKind::Private,
        (169, 254, ..) => AddressKind::LinkLocal,
        (100, 64..=127, ..) => AddressKind::Shared,
        // IETF protocols, documentation (three times), the old 6to4 relays, benchmarks.
        (192, 0, 0 | 2, _) | (198, 51, 100, _) | (203, 0, 113, _) | (192, 88, 99, _) | (198, 18..=19, ..) => {
            AddressKind::Reserved
        }
        (224..=239, ..) => AddressKind::Multicast,
        (240..=255, ..) => AddressKind::Reserved,
        _ => return None,
    })
}

fn classify_v6(address: Ipv6Addr) -> Option<AddressKind> {
    let s = address.segments();
    if address.is_unspecified() {
        return Some(AddressKind::Unspecified);
    }
    if address.is_loopback() {
        return Some(AddressKind::Loopback);
    }
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // AWS, and Google.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254] => Some(AddressKind::Metadata),
        // IPv4-mapped, -translated and -compatible, and NAT64: what they lead to counts.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => classify_v4(embedded(high, low)),
        // NAT64 of a network of its own: where the address is in it depends on the network.
        [0x64, 0xff9b, 1, ..] => Some(AddressKind::Private),
        // 6to4.
        [0x2002, high, low, ..] => classify_v4(embedded(high, low)),
        // Teredo: the server, and the client with its bits inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            classify_v4(embedded(!high, !low)).or_else(|| classify_v4(embedded(server_high, server_low)))
        }
        // ISATAP in any prefix.
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] if classify_v4(embedded(high, low)).is_some() => {
            classify_v4(embedded(high, low))
        }
        [0xfc00..=0xfdff, ..] => Some(AddressKind::Private),
        [0xfe80..=0xfebf, ..] => Some(AddressKind::LinkLocal),
        // Site-local, deprecated and still routed inside.
        [0xfec0..=0xfeff, ..] => Some(AddressKind::Private),
        [0xff00..=0xffff, ..] => Some(AddressKind::Multicast),
        // Documentation (twice), benchmarks and ORCHID, discard.
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 2 | 0x10..=0x3f, ..] | [0x0100, 0, 0, 0, ..] => {
            Some(AddressKind::Reserved)
        }
        // Global unicast is 2000::/3. Nothing else is handed out.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(AddressKind::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_that_is_not_public_is_refused_in_every_embedding() {
        use AddressKind::*;
        let table: &[(&str, Option<AddressKind>)] = &[
            ("8.8.8.8", None),
            ("1.1.1.1", None),
            ("172.15.0.1", None),
            ("172.32.0.1", None),
            ("100.63.0.1", None),
            ("100.128.0.1", None),
            ("192.0.1.1", None),
            ("198.17.0.1", None),
            ("198.20.0.1", None),
            ("223.255.255.255", None),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("10.0.0.1", Some(Private)),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("192.168.1.1", Some(Private)),
            ("169.254.1.1", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("169.254.170.2", Some(Metadata)),
            ("100.100.100.200", Some(Metadata)),
            ("168.63.129.16", Some(Metadata)),
            ("100.64.0.1", Some(Shared)),
            ("100.127.255.255", Some(Shared)),
            ("0.0.0.0", Some(Unspecified)),
            ("0.0.0.1", Some(Reserved)),
            ("192.0.0.1", Some(Reserved)),
            ("192.0.2.1", Some(Reserved)),
            ("198.51.100.1", Some(Reserved)),
            ("203.0.113.1", Some(Reserved)),
            ("192.88.99.1", Some(Reserved)),
            ("198.18.0.1", Some(Reserved)),
            ("198.19.255.255", Some(Reserved)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("240.0.0.1", Some(Reserved)),
            ("255.255.255.255", Some(Reserved)),
            ("2606:4700:4700::1111", None),
            ("2001:4860:4860::8888", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("fc00::1", Some(Private)),
            ("fdff::1", Some(Private)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("ff02::1", Some(Multicast)),
            ("2001:db8::1", Some(Reserved)),
            ("3fff::1", Some(Reserved)),
            ("2001:2::1", Some(Reserved)),
            ("2001:10::1", Some(Reserved)),
            ("100::1", Some(Reserved)),
            ("4000::1", Some(Reserved)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:169.254.169.254", Some(Metadata)),
            ("::ffff:8.8.8.8", None),
            ("::ffff:0:10.0.0.1", Some(Private)),
            ("::10.0.0.1", Some(Private)),
            ("64:ff9b::127.0.0.1", Some(Loopback)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some(Private)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:a9fe:a9fe::1", Some(Metadata)),
            ("2002:808:808::1", None),
            // Teredo: 192.168.1.1 inverted, then a private server.
            ("2001:0:4136:e378:8000:63bf:3f57:fefe", Some(Private)),
            ("2001:0:a00:1:8000:63bf:f7f7:f7f7", Some(Private)),
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", None),
            ("2606:4700::5efe:10.0.0.1", Some(Private)),
            ("2606:4700::5efe:8.8.8.8", None),
        ];
        for (address, expected) in table {
            assert_eq!(classify(address.parse().unwrap()), *expected, "{address}");
        }
    }
}
