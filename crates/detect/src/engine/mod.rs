//! Finds keys in any text: the catalogue compiled for searching.
//!
//! Nearly every key is a run of sixteen and more characters out of a small alphabet, so the text is looked at in steps
//! of sixteen bytes and only such runs are read (`tokens`); what is shorter stands behind one of a few words, which one
//! pass over the text finds (`words`). Whatever is found so is a candidate; shape, checksum, entropy and what stands
//! before it decide. `docs/designs/finding-keys-in-text.md` says why, with figures.
//!
//! It has no IO and no state but the catalogue: the same text has the same hits, wherever a caller cuts it.

mod allow;
mod decode;
mod hit;
mod literals;
mod mentions;
mod named;
mod names;
mod pairs;
mod passwords;
mod pem;
mod prefixes;
mod random;
mod reach;
mod rule;
mod shapes;
mod tokens;
mod urls;

use std::ops::Range;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::catalogue::Catalogue;
use crate::identify::Certainty;
use decode::Decode;
pub use decode::utf16_to_utf8;
pub use hit::{Encoding, Hit};
use literals::Literals;
use mentions::Mentions;
use prefixes::Prefixes;
use rule::Rules;
pub use rule::{Generic, Rule, RuleId};
use shapes::Shapes;

/// The catalogue compiled for searching. Shared by all threads.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    prefixes: Prefixes,
    /// Made when a name is first looked up.
    mentions: OnceLock<Mentions>,
    literals: Literals,
    /// Keys without a prefix.
    shapes: Shapes,
    /// Keys that are addresses on hosts of several names.
    addresses: Shapes,
}

/// What a thread keeps from text to text, so that a search allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    found: Vec<Candidate>,
}

impl Engine {
    /// Bytes before and after a value that a decision may look at. A part of a text that is at least this far from any
    /// change has the same hits as before.
    pub const MARGIN: usize = reach::FAR;

    /// What [`Engine::margin_before`] and [`Engine::margin_behind`] give at least, and for most places.
    pub const NEAR_MARGIN: usize = reach::NEAR;

    /// Bytes before `at` in which hits may begin that depend on what stands from `at` on; at most [`Engine::MARGIN`].
    pub fn margin_before(text: &[u8], at: usize) -> usize {
        reach::margin_before(text, at)
    }

    /// Bytes from `at` on in which hits may begin that depend on what stands before `at`; at most [`Engine::MARGIN`].
    pub fn margin_behind(text: &[u8], at: usize) -> usize {
        reach::margin_behind(text, at)
    }

    /// Compiles a catalogue; patterns are compiled when they are first needed.
    pub fn new(catalogue: &Catalogue) -> Self {
        let rules = Rules::new(catalogue.clone());
        let prefixes = Prefixes::new(&rules);
        let (shapes, addresses) = (Shapes::bare(&rules), Shapes::addresses(&rules));
        Self { rules, prefixes, mentions: OnceLock::new(), literals: Literals::new(), shapes, addresses }
    }

    /// All hits whose value begins inside `region` of `text`, in order; what `hits` held before is forgotten. May look
    /// at [`Engine::MARGIN`] bytes around the region.
    pub fn find(&self, text: &[u8], region: Range<usize>, scratch: &mut Scratch, hits: &mut Vec<Hit>) {
        hits.clear();
        let end = region.end.min(text.len());
        let region = region.start.min(end)..end;
        // A hit outside may overlap one inside, and one of the two has to go.
        let back = reach::back(text, region.start);
        let wide = region.start.saturating_sub(back)..(region.end + MAX_GENERIC_VALUE).min(text.len());
        scratch.found.clear();
        tokens::find(self, text, &wide, Decode::Twice, &mut scratch.found);
        literals::find(self, text, &wide, &mut scratch.found);
        pairs::find(self, text, &mut scratch.found);
        settle(&self.rules, text, &mut scratch.found);
        let keys = scratch.found.drain(..).filter_map(|candidate| match candidate {
            Candidate::Key(hit)
                if region.contains(&hit.span.start) && !allow::is_allowed(text, &hit.span) =>
            {
                Some(hit)
            }
            _ => None,
        });
        hits.extend(keys);
    }

    /// Changes whenever the rules (catalogue or engine) would find something else: keys the set of texts known to be
    /// clean.
    pub fn rules_id(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        // The build script hashes the source of this crate.
        digest.update(env!("KEYMOAT_DETECT_SOURCE"));
        self.rules.digest(&mut digest);
        digest.finalize().into()
    }

    fn mentions(&self) -> &Mentions {
        self.mentions.get_or_init(|| Mentions::new(&self.rules))
    }

    /// The rule behind a hit.
    pub fn rule(&self, id: RuleId) -> Rule<'_> {
        self.rules.rule(id)
    }

    /// All rules, in the order of their ids.
    pub fn rules(&self) -> impl Iterator<Item = Rule<'_>> {
        self.rules.ids().map(|id| self.rules.rule(id))
    }
}

/// What was found at a place, before it is known what else is there.
#[derive(Debug, Clone)]
enum Candidate {
    Key(Hit),
    /// Something known to be no secret: a publishable key, a published example, a wrong checksum.
    Harmless(Hit),
    /// No secret because of the name before it; tells only what may stand beside it.
    Named(Hit),
}

impl Candidate {
    fn hit(&self) -> &Hit {
        match self {
            Self::Key(hit) | Self::Harmless(hit) | Self::Named(hit) => hit,
        }
    }

    fn span(&self) -> &Range<usize> {
        &self.hit().span
    }

    /// Where what it covers ends: of an address with a user and a password, its host; a key may stand in its query.
    fn covers_to(&self, text: &[u8]) -> usize {
        let Range { start, end } = *self.span();
        let login = text[start..end].windows(3).take(urls::MAX_SCHEME).position(|piece| piece == b"://");
        let Some(authority) = login.map(|at| &text[start + at + 3..end]) else { return end };
        let len =
            authority.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(authority.len());
        if authority[..len].contains(&b'@') { end - authority.len() + len } else { end }
    }

    fn end_at(&mut self, end: usize) {
        let (Self::Key(hit) | Self::Harmless(hit) | Self::Named(hit)) = self;
        hit.span.end = end;
    }

    /// What it wins by, where it overlaps others.
    fn strength(&self, rules: &Rules) -> (Standing, bool) {
        let Self::Key(hit) = self else { return (Standing::Shape, true) };
        let key = rules.key(hit.rule);
        let standing = match hit.certainty {
            _ if key.is_some_and(|(provider, _)| provider.form) => Standing::Form,
            Certainty::Checksum => Standing::Checksum,
            Certainty::Shape => Standing::Shape,
            Certainty::Context if key.is_some() => Standing::Context,
            Certainty::Context if rules.has_owner(hit.rule) => Standing::Owned,
            Certainty::Context => Standing::Guess,
        };
        (standing, matches!(hit.encoding, Encoding::Plain | Encoding::Split))
    }
}

/// How much what was found says of a value, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// A name says that it is secret.
    Guess,
    /// A name says that it is secret, and whose it is.
    Owned,
    /// A form that belongs to nobody: a JSON Web Token says less than whose it is.
    Form,
    /// A key of a provider, by its name and shape.
    Context,
    /// A key, or something harmless, by its shape alone.
    Shape,
    /// By its checksum.
    Checksum,
}

/// What a candidate claims of the text, and how surely.
struct Claim {
    start: usize,
    end: usize,
    covers_to: usize,
    strength: (Standing, bool),
}

impl Claim {
    fn of(candidate: &Candidate, rules: &Rules, text: &[u8]) -> Self {
        let Range { start, end } = *candidate.span();
        Self { start, end, covers_to: candidate.covers_to(text), strength: candidate.strength(rules) }
    }
}

/// Of what overlaps the strongest stays: the surer, then what begins first, then the longer. What begins far inside a
/// long value stays beside it, so that no decision looks farther than the margin. Of a value that a surer one cuts off
/// its beginning stays, if that is random by itself: `token=9f2c…postgres://…` holds two.
fn settle(rules: &Rules, text: &[u8], found: &mut Vec<Candidate>) {
    found.retain(|candidate| !matches!(candidate, Candidate::Named(_)));
    let place = |candidate: &Candidate| {
        (
            candidate.span().start,
            std::cmp::Reverse(candidate.strength(rules)),
            std::cmp::Reverse(candidate.span().end),
            matches!(candidate, Candidate::Key(_)),
            candidate.hit().rule,
        )
    };
    found.sort_by_cached_key(place);
    // Each is compared with hundreds where values stand close together, so what is compared is made once.
    let claims: Vec<Claim> = found.iter().map(|candidate| Claim::of(candidate, rules, text)).collect();
    // Where each ends then; nothing of what goes.
    let mut ends = Vec::with_capacity(found.len());
    for (at, own) in claims.iter().enumerate() {
        let beaten_before = claims[..at]
            .iter()
            .rev()
            .take_while(|other| other.start + MAX_VALUE >= own.start)
            .any(|other| other.covers_to > own.start && other.strength >= own.strength);
        let beaten_behind = claims[at + 1..]
            .iter()
            .take_while(|other| other.start < own.end.min(own.start + MAX_GENERIC_VALUE))
            .find(|other| other.strength > own.strength);
        ends.push(match (beaten_before, beaten_behind) {
            (true, _) => None,
            (false, None) => Some(own.end),
            (false, Some(other)) => {
                let rest = own.start..other.start;
                let own = &found[at];
                let is_one = matches!(own, Candidate::Key(hit) if hit.encoding == Encoding::Plain)
                    && random::is_random(&text[rest.clone()]);
                is_one.then_some(rest.end)
            }
        });
    }
    let mut ends = ends.into_iter();
    found.retain_mut(|candidate| {
        let end = ends.next().flatten();
        end.is_some_and(|end| {
            candidate.end_at(end);
            true
        })
    });
}

/// The longest value that is found whole: a private RSA key of 4,096 bits in PEM form has 3,300 bytes, a long JSON Web
/// Token 2,000.
const MAX_VALUE: usize = 4096;

/// The longest value of a rule that belongs to no provider.
const MAX_GENERIC_VALUE: usize = 512;

/// Bytes before a value in which names are looked for, and around it a comment that allows it; twice, for the value
/// that overlaps.
const LOOK_AROUND: usize = 1024;

/// Counts what costs time: patterns tried and values read to both ends.
#[cfg(test)]
pub(crate) fn count_work(units: usize) {
    tests::WORK.with(|work| work.set(work.get() + units));
}

#[cfg(test)]
mod tests;
