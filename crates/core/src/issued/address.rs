//! From where a key may be used: lists of networks, and whose address a request has behind proxies.
//!
//! What `X-Forwarded-For` says is read from the right: each proxy writes at the end who spoke to it, so the right-most
//! address that is not one of one's own proxies is the nearest that nobody outside could make up. What stands left of
//! it the caller may have written himself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::TextVisitor;
use crate::pattern::Network;

/// The networks that a key may be used from; an empty list allows every address. Written `10.0.0.0/8,2001:db8::/32`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressList(Box<[Network]>);

/// Whose request it is, as far as that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// From this address.
    Known(IpAddr),
    /// One's own proxy says something that is no address.
    Unreadable,
}

impl AddressList {
    /// Takes networks.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(networks: Vec<Network>) -> Result<Self, AddressError> {
        match networks.len() <= MAX_NETWORKS {
            true => Ok(Self(networks.into())),
            false => Err(AddressError::TooMany),
        }
    }

    /// Whether every address is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks, in their order.
    pub fn as_slice(&self) -> &[Network] {
        &self.0
    }

    /// Whether a request from this address may use the key; one from an unknown address may only where all may.
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        self.is_empty()
            || address.is_some_and(|address| self.0.iter().any(|network| network.matches(address)))
    }

    /// The networks that are so wide that somebody should look at them again: more than 2^24 addresses of version 4
    /// (a whole `/8`), or more than a provider gets of version 6 (a `/32`).
    pub fn too_wide(&self) -> impl Iterator<Item = &Network> {
        self.0.iter().filter(|network| match network.address() {
            IpAddr::V4(_) => network.prefix_len() < LEAST_PREFIX_V4,
            IpAddr::V6(_) => network.prefix_len() < LEAST_PREFIX_V6,
        })
    }
}

/// Finds out who asks: `peer` is the other end of the connection, `forwarded` the lines of `X-Forwarded-For` in their
/// order, `trusted` one's own proxies.
///
/// A peer that is not trusted is the caller, whatever it says of others. Where all addresses are trusted, the left-most
/// is the caller: a request of one's own.
pub fn client_of<'h>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'h str>,
    trusted: &[Network],
) -> Hop {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.matches(address));
    let mut client = peer.to_canonical();
    let mut hops = forwarded.rev().flat_map(|line| line.rsplit(',')).map(str::trim);
    for _ in 0..MAX_HOPS {
        if !is_trusted(client) {
            return Hop::Known(client);
        }
        match hops.next().map(address_of) {
            None => return Hop::Known(client),
            Some(None) => return Hop::Unreadable,
            Some(Some(address)) => client = address,
        }
    }
    Hop::Unreadable
}

/// An address as proxies write it: alone, with a port, or of version 6 in square brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?,
    };
    Some(address.to_canonical())
}

impl FromStr for AddressList {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_NETWORKS_BYTES {
            return Err(AddressError::TooMany);
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let networks = text.split(',').map(|part| part.parse().map_err(|_| AddressError::Network));
        Self::new(networks.collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, network) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl Serialize for AddressList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("a list of networks"))
    }
}

/// A list that was refused. Says what is allowed, never what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// One that is no network.
    #[error(
        "list of networks is malformed; allowed: addresses, and `address/bits` with no bits set after the prefix, joined by `,`"
    )]
    Network,
    /// Too many.
    #[error("list has more than {MAX_NETWORKS} networks or {MAX_NETWORKS_BYTES} bytes")]
    TooMany,
}

/// Most networks of a key: each is looked at with every call.
pub const MAX_NETWORKS: usize = 64;
/// Longest text of a list in bytes: that many of the longest networks.
pub const MAX_NETWORKS_BYTES: usize = MAX_NETWORKS * 48;
/// Most proxies of one's own in a row.
const MAX_HOPS: usize = 16;
const LEAST_PREFIX_V4: u8 = 8;
const LEAST_PREFIX_V6: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> AddressList {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn lists() {
        let check = |text: &str, address: &str, expected: bool| {
            let address = (!address.is_empty()).then(|| address.parse().unwrap());
            assert_eq!(list(text).allows(address), expected, "{text} {address:?}");
            assert_eq!(list(&list(text).to_string()), list(text));
        };
        check("", "192.0.2.1", true);
        check("", "", true);
        check("10.0.0.0/8", "", false);
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("192.0.2.7,2001:db8::/32", "2001:db8:ffff::1", true);
        check("192.0.2.7,2001:db8::/32", "2001:db9::1", false);
        check("192.0.2.7,2001:db8::/32", "192.0.2.7", true);
        check("192.0.2.7,2001:db8::/32", "192.0.2.8", false);
        check("0.0.0.0/0", "::1", false);
        for bad in
            [",", "10.0.0.0/8,", "10.0.0.1/8", "10.0.0.0/8, ::1", "*", "localhost", "10.0.0.0-10.0.0.9"]
        {
            assert_eq!(bad.parse::<AddressList>(), Err(AddressError::Network), "{bad:?}");
        }
        assert_eq!(["::1"; 65].join(",").parse::<AddressList>(), Err(AddressError::TooMany));
        assert_eq!(" ".repeat(4000).parse::<AddressList>(), Err(AddressError::TooMany));
    }

    #[test]
    fn networks_that_are_too_wide() {
        let check = |text: &str, expected: &[&str]| {
            let wide: Vec<String> = list(text).too_wide().map(ToString::to_string).collect();
            assert_eq!(wide, expected, "{text}");
        };
        check("", &[]);
        check("10.0.0.0/8,::1,2001:db8::/32", &[]);
        check(
            "10.0.0.0/7,0.0.0.0/0,::/0,2001:db8::/31",
            &["10.0.0.0/7", "0.0.0.0/0", "::/0", "2001:db8::/31"],
        );
    }

    const PROXIES: &str = "127.0.0.1,10.0.0.0/8,2001:db8::/32";

    #[test]
    fn the_right_most_hop_that_is_not_trusted() {
        let check = |peer: &str, lines: &[&str], expected: &str| {
            let hop = client_of(peer.parse().unwrap(), lines.iter().copied(), list(PROXIES).as_slice());
            let expected = match expected {
                "?" => Hop::Unreadable,
                address => Hop::Known(address.parse().unwrap()),
            };
            assert_eq!(hop, expected, "{peer} {lines:?}");
        };
        check("127.0.0.1", &[], "127.0.0.1");
        check("192.0.2.1", &["198.51.100.1"], "192.0.2.1");
        check("127.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("127.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1");
        check("127.0.0.1", &["10.9.9.9, 198.51.100.1, 10.1.1.1"], "198.51.100.1");
        check("127.0.0.1", &["203.0.113.9", "198.51.100.1"], "198.51.100.1");
        check("127.0.0.1", &["198.51.100.1", "10.0.0.1, 10.0.0.2"], "198.51.100.1");
        check("127.0.0.1", &["10.0.0.1,10.0.0.2"], "10.0.0.1");
        check("::ffff:127.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1");
        check("127.0.0.1", &["198.51.100.1:4711"], "198.51.100.1");
        check("127.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1");
        check("127.0.0.1", &["[2001:db9::1]"], "2001:db9::1");
        check("127.0.0.1", &["2001:db9::1"], "2001:db9::1");
        check("127.0.0.1", &["unknown"], "?");
        check("127.0.0.1", &[""], "?");
        check("127.0.0.1", &["198.51.100.1,"], "?");
        check("127.0.0.1", &["nonsense, 198.51.100.1"], "198.51.100.1");
        check("127.0.0.1", &["198.51.100.1, _hidden"], "?");
        check("127.0.0.1", &["[10.0.0.1]"], "?");
        check("127.0.0.1", &[&["10.0.0.1"; 40].join(",")], "?");
    }

    proptest! {
        #[test]
        fn what_a_caller_writes_changes_nothing(
            written in ".{0,60}|([0-9.,: \\[\\]]{0,60})", client in 0u32.., proxies in prop::collection::vec(1u8..255, 0..5),
        ) {
            let client = IpAddr::V4(client.into());
            prop_assume!(!list(PROXIES).as_slice().iter().any(|network| network.matches(client)));
            let own: Vec<String> = proxies.iter().map(|last| format!(", 10.0.0.{last}")).collect();
            let line = format!("{written}, {client}{}", own.concat());
            let hop = client_of("127.0.0.1".parse().unwrap(), [line.as_str()].into_iter(), list(PROXIES).as_slice());
            prop_assert_eq!(hop, Hop::Known(client));
        }

        #[test]
        fn parsers_take_anything(text in ".{0,60}|[0-9a-f.:/,]{0,60}") {
            if let Ok(addresses) = text.parse::<AddressList>() {
                prop_assert_eq!(addresses.to_string().parse::<AddressList>().unwrap(), addresses);
            }
            let _ = client_of("10.0.0.1".parse().unwrap(), [text.as_str()].into_iter(), list(PROXIES).as_slice());
        }
    }
}
