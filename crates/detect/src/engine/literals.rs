//! One pass over the text for the few literals behind which stands what is no run of sixteen characters: passwords that
//! people choose, addresses with a password, blocks of private keys.
//!
//! The pass uses vector instructions where the machine has them (`aho_corasick::packed`).

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind, packed};

use super::{Candidate, Engine, passwords, pem, urls};

/// Finds the literals.
#[derive(Debug)]
pub(super) enum Literals {
    Vector(packed::Searcher),
    Scalar(Box<AhoCorasick>),
}

impl Literals {
    pub(super) fn new() -> Self {
        let literals = LITERALS.iter().map(|(literal, _)| literal);
        let vector = packed::Config::new()
            .match_kind(packed::MatchKind::LeftmostFirst)
            .builder()
            .extend(literals.clone())
            .build();
        vector.map(Self::Vector).unwrap_or_else(|| {
            let scalar = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(literals);
            Self::Scalar(Box::new(scalar.expect("a handful of short literals is far below the limits")))
        })
    }

    /// Calls `each` with every literal in `text[span]`.
    fn each(&self, text: &[u8], span: Range<usize>, mut each: impl FnMut(What, Range<usize>)) {
        match self {
            // The searcher has no span that ends early, so the end is cut off.
            Self::Vector(searcher) => {
                let mut at = span.start;
                while let Some(hit) = searcher.find_in(&text[..span.end], (at..span.end).into()) {
                    each(LITERALS[hit.pattern().as_usize()].1, hit.start()..hit.end());
                    at = hit.end();
                }
            }
            Self::Scalar(searcher) => {
                for hit in searcher.find_iter(&text[..span.end][span.start..]) {
                    each(
                        LITERALS[hit.pattern().as_usize()].1,
                        span.start + hit.start()..span.start + hit.end(),
                    );
                }
            }
        }
    }
}

/// Finds what stands behind the literals in `wide`.
pub(super) fn find(engine: &Engine, text: &[u8], wide: &Range<usize>, found: &mut Vec<Candidate>) {
    // A name may begin before the region and its value in it.
    let span = wide.start.saturating_sub(MAX_DISTANCE)..(wide.end + MAX_LITERAL).min(text.len());
    engine.literals.each(text, span, |what, place| {
        let hit = match what {
            What::Name => passwords::by_name(engine, text, place),
            What::Url => return found.extend(urls::find(engine, text, place)),
            What::Pem => pem::find(engine, text, place),
            What::Hash => passwords::hash(engine, text, place),
            What::User => passwords::on_a_command_line(engine, text, place),
            What::Credential => passwords::in_a_constructor(engine, text, place),
        };
        found.extend(hit.map(Candidate::Key));
    });
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Part of a name that says "password" or "secret".
    Name,
    /// The middle of an address.
    Url,
    /// A block in PEM form.
    Pem,
    /// The hash of a password.
    Hash,
    /// A user and password on a command line.
    User,
    /// `NetworkCredential("user", "password")`.
    Credential,
}

/// Of three and more bytes, rare, and few: with more than 32 the vector form takes half as many bytes at a time.
const LITERALS: &[(&str, What)] = &[
    ("assw", What::Name),
    ("ASSW", What::Name),
    ("ssphra", What::Name),
    ("SSPHRA", What::Name),
    ("_pass", What::Name),
    ("_PASS", What::Name),
    ("Pass=", What::Name),
    ("pass=", What::Name),
    ("pass:", What::Name),
    ("pass\"", What::Name),
    ("pwd", What::Name),
    ("PWD", What::Name),
    ("Pwd", What::Name),
    ("ecret", What::Name),
    ("ECRET", What::Name),
    ("oken", What::Name),
    ("OKEN", What::Name),
    ("pi_key", What::Name),
    ("piKey", What::Name),
    ("pikey", What::Name),
    ("PI_KEY", What::Name),
    ("://", What::Url),
    ("-----BEGIN ", What::Pem),
    ("$2a$", What::Hash),
    ("$2b$", What::Hash),
    ("$2y$", What::Hash),
    ("$1$", What::Hash),
    ("$5$", What::Hash),
    ("$6$", What::Hash),
    ("$apr1$", What::Hash),
    ("curl ", What::User),
    ("workCredential(", What::Credential),
];

/// From the literal to the beginning of its value there is the rest of a name, a type and an operator.
const MAX_DISTANCE: usize = 160;

const MAX_LITERAL: usize = 16;
