//! Which addresses belong to the public Internet, which are private, and which no server has.
//!
//! After the IANA special-purpose address registries (RFC 6890 and its successors). An IPv6 address that carries an IPv4
//! one for a translator or a tunnel is reserved, whatever it carries; one that only spells an IPv4 address is that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gristmill_core::http::HttpReach;

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A host of the Internet.
    Public,
    /// This machine, or its neighbours: loopback, private, shared (CGNAT) and unique-local addresses.
    Private,
    /// Nothing that a name should stand for: link-local ones (where clouds hand out credentials), tunnels, multicast,
    /// documentation, benchmarks, and what is unspecified or set aside.
    Reserved,
}

/// Every range that is not public.
const IPV4: [(Ipv4Addr, u32, Kind); 16] = {
    use Kind::{Private, Reserved};
    const fn v4(a: u8, b: u8, c: u8) -> Ipv4Addr {
        Ipv4Addr::new(a, b, c, 0)
    }
    [
        (v4(0, 0, 0), 8, Reserved),
        (v4(10, 0, 0), 8, Private),
        (v4(100, 64, 0), 10, Private),
        (v4(127, 0, 0), 8, Private),
        (v4(169, 254, 0), 16, Reserved),
        (v4(172, 16, 0), 12, Private),
        (v4(192, 0, 0), 24, Reserved),
        (v4(192, 0, 2), 24, Reserved),
        (v4(192, 31, 196), 24, Reserved),
        (v4(192, 52, 193), 24, Reserved),
        (v4(192, 88, 99), 24, Reserved),
        (v4(192, 168, 0), 16, Private),
        (v4(198, 18, 0), 15, Reserved),
        (v4(198, 51, 100), 24, Reserved),
        (v4(203, 0, 113), 24, Reserved),
        // Multicast, what is set aside, and broadcast.
        (v4(224, 0, 0), 3, Reserved),
    ]
};

/// Every range that is not public; the first that fits counts.
const IPV6: [(Ipv6Addr, u32, Kind); 12] = {
    use Kind::{Private, Public, Reserved};
    const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
    }
    [
        (Ipv6Addr::LOCALHOST, 128, Private),
        (v6(0xfc00, 0, 0), 7, Private),
        // Special purposes: Teredo, benchmarks, ORCHID.
        (v6(0x2001, 0, 0), 23, Reserved),
        (v6(0x2001, 0xdb8, 0), 32, Reserved),
        // 6to4.
        (v6(0x2002, 0, 0), 16, Reserved),
        // Sinkholes.
        (v6(0x2620, 0x4f, 0x8000), 48, Reserved),
        // Documentation.
        (v6(0x3fff, 0, 0), 20, Reserved),
        // The Internet: all that has been given out. What follows is in here, or nowhere.
        (v6(0x2000, 0, 0), 3, Public),
        // NAT64, and for use in one network.
        (v6(0x64, 0xff9b, 0), 96, Reserved),
        (v6(0x64, 0xff9b, 1), 48, Reserved),
        (v6(0xfe80, 0, 0), 10, Reserved),
        // Everything else: unspecified, IPv4-compatible, discard, segment routing, multicast, and what is set aside.
        (Ipv6Addr::UNSPECIFIED, 0, Reserved),
    ]
};

/// What is at `address`.
pub(super) fn kind(address: IpAddr) -> Kind {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let within = |net: Ipv4Addr, bits: u32| (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits;
            IPV4.iter().find(|(net, bits, _)| within(*net, *bits)).map_or(Kind::Public, |(.., kind)| *kind)
        }
        IpAddr::V6(address) => {
            let within = |net: Ipv6Addr, bits: u32| (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits;
            IPV6.iter().find(|(net, bits, _)| within(*net, *bits)).map_or(Kind::Reserved, |(.., kind)| *kind)
        }
    }
}

/// Whether the name of a host may stand for `address`.
pub(super) fn is_permitted(address: IpAddr, reach: HttpReach) -> bool {
    match kind(address) {
        Kind::Public => true,
        Kind::Private => reach == HttpReach::Private,
        Kind::Reserved => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last address of a range, and what is before and after it.
    #[track_caller]
    fn check(first: &str, last: &str, inside: Kind, before: Option<Kind>, after: Option<Kind>) {
        let [first, last]: [IpAddr; 2] = [first, last].map(|text| text.parse().unwrap());
        let moved = |address: IpAddr, by: i8| -> Option<IpAddr> {
            match address {
                IpAddr::V4(a) => a.to_bits().checked_add_signed(by.into()).map(|a| Ipv4Addr::from_bits(a).into()),
                IpAddr::V6(a) => a.to_bits().checked_add_signed(by.into()).map(|a| Ipv6Addr::from_bits(a).into()),
            }
        };
        assert_eq!((kind(first), kind(last)), (inside, inside), "{first} to {last}");
        assert_eq!(moved(first, -1).map(kind), before, "before {first}");
        assert_eq!(moved(last, 1).map(kind), after, "after {last}");
    }

    #[test]
    fn ipv4_ranges_end_where_they_should() {
        use Kind::{Private, Public, Reserved};
        let public = Some(Public);
        for (first, last, inside) in [
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", Private),
            ("127.0.0.0", "127.255.255.255", Private),
            ("169.254.0.0", "169.254.255.255", Reserved),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Reserved),
            ("192.0.2.0", "192.0.2.255", Reserved),
            ("192.31.196.0", "192.31.196.255", Reserved),
            ("192.52.193.0", "192.52.193.255", Reserved),
            ("192.88.99.0", "192.88.99.255", Reserved),
            ("192.168.0.0", "192.168.255.255", Private),
            ("198.18.0.0", "198.19.255.255", Reserved),
            ("198.51.100.0", "198.51.100.255", Reserved),
            ("203.0.113.0", "203.0.113.255", Reserved),
        ] {
            check(first, last, inside, public, public);
        }
        check("0.0.0.0", "0.255.255.255", Reserved, None, public);
        check("224.0.0.0", "255.255.255.255", Reserved, public, None);
        for inside in ["239.255.255.255", "240.0.0.0", "255.255.255.254"] {
            assert_eq!(kind(inside.parse().unwrap()), Reserved, "{inside}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "93.184.215.14", "192.0.1.0", "198.17.255.255"] {
            assert_eq!(kind(public.parse().unwrap()), Public, "{public}");
        }
    }

    #[test]
    fn ipv6_ranges_end_where_they_should() {
        use Kind::{Private, Public, Reserved};
        let (public, reserved) = (Some(Public), Some(Reserved));
        check("::1", "::1", Private, reserved, reserved);
        check("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private, reserved, reserved);
        check("2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public, reserved, reserved);
        check("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, public, public);
        check("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, public, public);
        check("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, public, public);
        check("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", Reserved, public, public);
        check("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, public, public);
        check("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, public, Some(Private));
        // NAT64, and the rest below 2000::/3.
        check("64:ff9b::", "64:ff9b::ffff:ffff", Reserved, reserved, reserved);
        check("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Reserved, reserved, reserved);
        check("1:0:0:0::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, reserved, public);
        for inside in ["::", "::2", "::10.0.0.1", "::8.8.8.8", "100::1", "2001::1", "2001:2::1", "2001:20::1"] {
            assert_eq!(kind(inside.parse().unwrap()), Reserved, "{inside}");
        }
        for inside in ["fe80::1", "fec0::1", "febf::1", "ff02::1", "ffff::1", "5f00::1", "64:ff9b::8.8.8.8"] {
            assert_eq!(kind(inside.parse().unwrap()), Reserved, "{inside}");
        }
        for public in ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888"] {
            assert_eq!(kind(public.parse().unwrap()), Public, "{public}");
        }
    }

    #[test]
    fn another_spelling_is_the_same_address() {
        for (mapped, inside) in [
            ("::ffff:127.0.0.1", Kind::Private),
            ("::ffff:10.1.2.3", Kind::Private),
            ("::ffff:a9fe:a9fe", Kind::Reserved),
            ("::ffff:0.0.0.0", Kind::Reserved),
            ("::ffff:8.8.8.8", Kind::Public),
        ] {
            assert_eq!(kind(mapped.parse().unwrap()), inside, "{mapped}");
        }
        check("::ffff:0:0:0", "::ffff:0:ffff:ffff", Kind::Reserved, Some(Kind::Reserved), Some(Kind::Reserved));
    }

    #[test]
    fn a_reach_never_goes_further_than_private() {
        let permitted = |address: &str, reach| is_permitted(address.parse().unwrap(), reach);
        for (address, public, private) in [
            ("8.8.8.8", true, true),
            ("10.0.0.1", false, true),
            ("::1", false, true),
            ("169.254.169.254", false, false),
            ("0.0.0.0", false, false),
            ("::ffff:169.254.169.254", false, false),
        ] {
            let expected = (public, private);
            assert_eq!(
                (permitted(address, HttpReach::Public), permitted(address, HttpReach::Private)),
                expected,
                "{address}"
            );
        }
    }
}
