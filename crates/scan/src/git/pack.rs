//! One pack: its entries, and the forest that their deltas make.
//!
//! Only what leads to a wanted blob is in the forest: the kind of a delta is that of the root of its chain, so trees,
//! commits and tags are left out by their headers alone. Nothing is inflated here but on request.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::path::Path;

use gix_hash::oid;
use gix_pack::data::entry::Header;
use gix_zlib::{Inflate, Status};

use super::object::Kind;
use crate::trouble::Troubles;

/// A pack that is mapped into memory, with its index.
pub struct Pack {
    index: gix_pack::index::File,
    data: gix_pack::data::File,
}

/// What an entry holds, before anything of it is inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A whole object.
    Whole(Kind),
    /// A delta on what begins at this offset.
    Delta(u64),
}

/// One entry of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it holds.
    pub content: Content,
    /// The length of what it inflates to.
    pub len: u64,
    /// Where its compressed bytes begin.
    data: u64,
}

/// Why an entry cannot be read. Each completes "`object` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The header makes no sense.
    #[error("has a broken header in its pack; `git fsck` says more")]
    Header,
    /// The compressed bytes make no sense, or something else than the header says.
    #[error("cannot be inflated; `git fsck` says more")]
    Inflate,
    /// The base is not in this pack.
    #[error("is a delta whose base is not in its pack; `git fsck` says more")]
    NoBase,
    /// The delta makes no sense.
    #[error("is a broken delta; `git fsck` says more")]
    Delta,
    /// It is longer than what is taken into memory.
    #[error("is longer than what is taken into memory at once, and a delta")]
    TooLarge,
}

impl Pack {
    /// Maps the pack that belongs to an index.
    pub fn open(index: &Path, hash: gix_hash::Kind) -> Result<Self, String> {
        let path = index.with_extension("pack");
        let index = gix_pack::index::File::at(index, hash)
            .map_err(|_| "has a broken index; `git index-pack` makes it anew".to_owned())?;
        let data = gix_pack::data::File::at(&path, hash)
            .map_err(|_| "is not a pack that can be read; `git fsck` says more".to_owned())?;
        Ok(Self { index, data })
    }

    /// How many objects the index names.
    pub fn len(&self) -> u32 {
        self.index.num_objects()
    }

    /// Finds an object by its id: its place in the index.
    pub fn find(&self, id: &oid) -> Option<u32> {
        self.index.lookup(id)
    }

    /// The id of the object at a place in the index.
    pub fn id(&self, place: u32) -> &oid {
        self.index.oid_at_index(place)
    }

    /// Where the object at a place in the index begins.
    pub fn offset(&self, place: u32) -> u64 {
        self.index.pack_offset_at_index(place)
    }

    /// Reads the header of the entry that begins at `offset`.
    pub fn entry(&self, offset: u64) -> Result<Entry, EntryError> {
        if offset < HEADER_OF_PACK || offset >= self.data.pack_end() as u64 {
            return Err(EntryError::Header);
        }
        let entry = self.data.entry(offset).map_err(|_| EntryError::Header)?;
        let content = match entry.header {
            Header::Commit => Content::Whole(Kind::Commit),
            Header::Tree => Content::Whole(Kind::Tree),
            Header::Blob => Content::Whole(Kind::Blob),
            Header::Tag => Content::Whole(Kind::Tag),
            Header::OfsDelta { base_distance } => {
                let base = offset.checked_sub(base_distance).filter(|_| base_distance != 0);
                Content::Delta(base.ok_or(EntryError::NoBase)?)
            }
            Header::RefDelta { base_id } => {
                let place = self.find(&base_id).ok_or(EntryError::NoBase)?;
                Content::Delta(self.offset(place))
            }
        };
        Ok(Entry { content, len: entry.decompressed_size, data: entry.data_offset })
    }

    /// The bytes from where the content of an entry begins to the end of the pack.
    pub fn compressed(&self, entry: &Entry) -> &[u8] {
        self.data.entry_slice(entry.data..self.data.pack_end() as u64).unwrap_or_default()
    }

    /// Inflates an entry; `out` is overwritten.
    pub fn inflate(&self, entry: &Entry, inflate: &mut Inflate, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let compressed = self.compressed(entry);
        let len = usize::try_from(entry.len).map_err(|_| EntryError::Header)?;
        // What nothing can inflate to is not allocated.
        if len / LARGEST_RATIO > compressed.len() {
            return Err(EntryError::Inflate);
        }
        // Only what is new is set to zero, so buffers that are used again cost nothing.
        out.resize(len, 0);
        if len == 0 {
            return Ok(());
        }
        inflate.reset();
        match inflate.once(compressed, out) {
            Ok((Status::StreamEnd, _, written)) if written == len => Ok(()),
            _ => Err(EntryError::Inflate),
        }
    }
}

/// The wanted blobs of a pack and their bases, as trees of deltas. Nodes are numbered by where they stand in the pack.
pub struct Forest {
    offsets: Vec<u64>,
    /// The place in the index.
    places: Vec<u32>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    /// How many wanted blobs hang on a node, itself included.
    weights: Vec<u32>,
    wanted: Bits,
    /// Nodes that are whole, and lead to something wanted.
    pub roots: Vec<u32>,
    /// How many blobs the pack has.
    pub blobs: u64,
    /// How many of them are wanted.
    pub wanted_blobs: u64,
    /// The places of all commits, in the order of the file.
    pub commits: Vec<u32>,
    /// The same of all trees.
    pub trees: Vec<u32>,
}

impl Forest {
    /// Looks at the headers of the objects at `listed` places in the index, and of what these are deltas on. `is_wanted`
    /// says of a place whether that object matters, should it be a blob.
    pub fn of(pack: &Pack, listed: Vec<u32>, troubles: &Troubles, is_wanted: impl Fn(u32) -> bool) -> Self {
        let (offsets, places) = in_order_of_offset(pack, listed);
        let count = places.len();
        let mut kinds = vec![UNKNOWN; count];
        let mut parents = vec![NONE; count];
        let mut later = Vec::new();
        for (node, &offset) in offsets.iter().enumerate() {
            let told = |error: EntryError| troubles.add(name(pack, places[node]), error.to_string());
            match pack.entry(offset).map(|entry| entry.content) {
                Ok(Content::Whole(kind)) => kinds[node] = kind as u8,
                Ok(Content::Delta(base)) => match offsets.binary_search(&base) {
                    Ok(parent) => {
                        parents[node] = parent as u32;
                        kinds[node] = kinds[parent];
                        if kinds[node] == UNKNOWN {
                            later.push(node);
                        }
                    }
                    Err(_) => told(EntryError::NoBase),
                },
                Err(error) => told(error),
            }
        }
        settle(&mut later, &mut kinds, &parents);
        for node in later {
            troubles.add(name(pack, places[node]), EntryError::NoBase.to_string());
        }
        let mut forest = Self {
            first_child: vec![NONE; count],
            next_sibling: vec![NONE; count],
            weights: vec![0; count],
            wanted: Bits::new(count),
            roots: Vec::new(),
            blobs: 0,
            wanted_blobs: 0,
            commits: Vec::new(),
            trees: Vec::new(),
            offsets,
            places,
        };
        let of_kind = |kind: Kind| {
            let nodes = kinds.iter().zip(&forest.places).filter(|(found, _)| **found == kind as u8);
            nodes.map(|(_, place)| *place).filter(|place| *place != NONE).collect()
        };
        (forest.commits, forest.trees) = (of_kind(Kind::Commit), of_kind(Kind::Tree));
        for node in (0..count).rev().filter(|node| kinds[*node] == Kind::Blob as u8) {
            forest.blobs += 1;
            if forest.places[node] != NONE && is_wanted(forest.places[node]) {
                forest.wanted.set(node);
                forest.wanted_blobs += 1;
                forest.weigh(node, &parents);
            }
        }
        forest.link(&parents);
        forest
    }

    /// Where an entry begins.
    pub fn offset(&self, node: u32) -> u64 {
        self.offsets[node as usize]
    }

    /// The place of a wanted node's object in the index.
    pub fn place(&self, node: u32) -> u32 {
        self.places[node as usize]
    }

    /// Whether the node itself is wanted, and not only something that hangs on it.
    pub fn is_wanted(&self, node: u32) -> bool {
        self.wanted.get(node as usize)
    }

    /// Lists what hangs on a node, the heaviest first.
    pub fn children(&self, node: u32, found: &mut Vec<u32>) {
        found.clear();
        let mut child = self.first_child[node as usize];
        while child != NONE {
            found.push(child);
            child = self.next_sibling[child as usize];
        }
        found.sort_unstable_by_key(|child| std::cmp::Reverse(self.weights[*child as usize]));
    }

    /// Lists the nodes from the root down to `node`.
    pub fn chain(&self, pack: &Pack, node: u32) -> Result<Vec<u32>, EntryError> {
        let mut chain = vec![node];
        let mut last = node;
        while let Content::Delta(base) = pack.entry(self.offset(last))?.content {
            last = self.offsets.binary_search(&base).map_err(|_| EntryError::NoBase)? as u32;
            chain.push(last);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Adds a wanted node to the weight of all that it stands on. A first visit climbs to the root; chains that go in
    /// circles have no kind and do not come here.
    fn weigh(&mut self, node: usize, parents: &[u32]) {
        let mut at = node;
        loop {
            let is_new = self.weights[at] == 0;
            self.weights[at] = self.weights[at].saturating_add(1);
            let parent = parents[at];
            // Beyond what was seen before only the presence counts, so all climbs together touch each node few times.
            if parent == NONE || (!is_new && self.weights[at] > WEIGHED_EXACTLY) {
                return;
            }
            at = parent as usize;
        }
    }

    fn link(&mut self, parents: &[u32]) {
        for node in (0..parents.len()).rev().filter(|node| self.weights[*node] > 0).collect::<Vec<_>>() {
            match parents[node] {
                NONE => self.roots.push(node as u32),
                parent => {
                    self.next_sibling[node] = self.first_child[parent as usize];
                    self.first_child[parent as usize] = node as u32;
                }
            }
        }
        // In the order of the file, which disks like.
        self.roots.reverse();
    }
}

/// Gives deltas whose base stands behind them the kind of that base, and keeps the ones that have none.
fn settle(later: &mut Vec<usize>, kinds: &mut [u8], parents: &[u32]) {
    loop {
        let before = later.len();
        later.retain(|&node| {
            kinds[node] = kinds[parents[node] as usize];
            kinds[node] == UNKNOWN
        });
        if later.len() == before {
            return;
        }
    }
}

/// The offsets of the listed objects and of what they are deltas on in ascending order, and the place in the index of
/// each that was listed.
fn in_order_of_offset(pack: &Pack, mut listed: Vec<u32>) -> (Vec<u64>, Vec<u32>) {
    if listed.len() == pack.len() as usize {
        listed.sort_by_cached_key(|place| pack.offset(*place));
        // An index that names an offset twice is broken; the second would make a node that is its own sibling.
        listed.dedup_by_key(|place| pack.offset(*place));
        return (listed.iter().map(|place| pack.offset(*place)).collect(), listed);
    }
    let mut found: BTreeMap<u64, u32> = listed.iter().map(|place| (pack.offset(*place), *place)).collect();
    let mut waiting: Vec<u64> = found.keys().copied().collect();
    while let Some(offset) = waiting.pop() {
        // What cannot be read is told when its own turn comes.
        if let Ok(Content::Delta(base)) = pack.entry(offset).map(|entry| entry.content)
            && let btree_map::Entry::Vacant(vacant) = found.entry(base)
        {
            vacant.insert(NONE);
            waiting.push(base);
        }
    }
    found.into_iter().unzip()
}

fn name(pack: &Pack, place: u32) -> String {
    if place == NONE { "the base of a delta".to_owned() } else { format!("object {}", pack.id(place)) }
}

/// A bit for each of many things.
pub struct Bits(Vec<u64>);

impl Bits {
    /// All off.
    pub fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Turns one on.
    pub fn set(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Whether one is on.
    pub fn get(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }
}

/// No node.
const NONE: u32 = u32::MAX;
/// No kind; as `Kind` but none of its.
const UNKNOWN: u8 = u8::MAX;
/// `PACK`, the version and the number of entries.
const HEADER_OF_PACK: u64 = 12;
/// Deflate makes of one byte 1032 at most (zlib's technical notes).
const LARGEST_RATIO: usize = 1032;
/// Which of two children is the heavier matters up to here.
const WEIGHED_EXACTLY: u32 = 64;
