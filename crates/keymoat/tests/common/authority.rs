//! An authority that was made up for a test, and what it issues: as much of X.509 (RFC 5280) as a TLS client asks for,
//! with Ed25519 (RFC 8410).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// An authority.
pub struct Authority {
    key: Ed25519KeyPair,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let cert = certificate(&key, &key, AUTHORITY, AUTHORITY, now() + YEAR, &IS_AUTHORITY);
        Self { key, pem: pem("CERTIFICATE", &cert) }
    }

    /// A certificate for this machine that ends so long from now.
    pub fn issue(&self, ends_in: SignedDuration) -> Pair {
        self.issue_for(&[element(0x82, b"localhost"), element(0x87, &[127, 0, 0, 1])], ends_in)
    }

    /// A certificate for these names, for a year.
    #[allow(dead_code, reason = "each test file uses a part of it")]
    pub fn issue_to(&self, names: &[String]) -> Pair {
        let names: Vec<Vec<u8>> = names.iter().map(|name| element(0x82, name.as_bytes())).collect();
        self.issue_for(&names, YEAR)
    }

    fn issue_for(&self, names: &[Vec<u8>], ends_in: SignedDuration) -> Pair {
        let key = Ed25519KeyPair::generate().unwrap();
        let names = sequence(names);
        let names = sequence(&[element(OID, &[0x55, 0x1d, 0x11]), element(OCTETS, &names)]);
        let cert = certificate(&self.key, &key, AUTHORITY, "a made-up server", now() + ends_in, &names);
        let private = key.to_pkcs8v1().unwrap();
        Pair { cert: pem("CERTIFICATE", &cert), key: pem("PRIVATE KEY", private.as_ref()) }
    }
}

/// A certificate of `subject`, signed by `issuer`, with one extension.
fn certificate(
    issuer: &Ed25519KeyPair,
    subject: &Ed25519KeyPair,
    issuer_name: &str,
    name: &str,
    ends: Timestamp,
    extension: &[u8],
) -> Vec<u8> {
    let algorithm = sequence(&[element(OID, &ED25519)]);
    let public = [&[0], subject.public_key().as_ref()].concat();
    let fields = sequence(&[
        element(0xa0, &element(INTEGER, &[2])),
        element(INTEGER, &[&[1], &subject.public_key().as_ref()[..8]].concat()),
        algorithm.clone(),
        distinguished(issuer_name),
        sequence(&[time(Timestamp::UNIX_EPOCH), time(ends)]),
        distinguished(name),
        sequence(&[algorithm.clone(), element(BITS, &public)]),
        element(0xa3, &sequence(&[extension.to_vec()])),
    ]);
    let signature = [&[0], issuer.sign(&fields).as_ref()].concat();
    sequence(&[fields, algorithm, element(BITS, &signature)])
}

fn distinguished(name: &str) -> Vec<u8> {
    let common = sequence(&[element(OID, &[0x55, 0x04, 0x03]), element(0x0c, name.as_bytes())]);
    sequence(&[element(0x31, &common)])
}

fn time(time: Timestamp) -> Vec<u8> {
    element(0x17, time.to_zoned(TimeZone::UTC).strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// An element of DER (X.690 §8.1) of less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, ..0x80) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

#[expect(clippy::disallowed_methods, reason = "the program under test goes by the system's clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

pub const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);
const AUTHORITY: &str = "a made-up authority";
/// The extension that makes a certificate that of an authority.
const IS_AUTHORITY: [u8; 17] =
    [0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff];
const ED25519: [u8; 3] = [0x2b, 0x65, 0x70];
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
