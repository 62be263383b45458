//! What earlier scans of a repository found out, kept in a file: which objects need no look again, and below which trees
//! something stands.
//!
//! It is a cache and nothing else: a file that is torn, changed, of other rules or of another version counts as none. It
//! names objects and paths, never values; a blob with a hit is searched again each time.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use gix_hash::oid;
use sha2::{Digest as _, Sha256};

use super::object::Commit;

/// What an earlier scan found out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Objects that need no look: clean blobs, commits, tags, and trees of which is known what stands below. Sorted.
    pub settled: Ids,
    /// All commits. Sorted.
    pub commits: Ids,
    /// What stands in those that were read.
    pub parsed: Parsed,
    /// Blobs with hits. Sorted.
    pub blobs: Ids,
    /// Trees with something below, and its number in `nodes`. Sorted.
    pub trees: Ids,
    pub tree_nodes: Vec<u32>,
    pub nodes: Vec<Node>,
    pub names: Vec<Vec<u8>>,
}

/// What stands in commits.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// The commits. Sorted.
    ids: Ids,
    trees: Ids,
    committed: Vec<i64>,
    /// Where the parents of each end in `parents`.
    ends: Vec<u32>,
    parents: Ids,
}

impl Parsed {
    fn new(id_len: usize) -> Self {
        let ids = || Ids::new(id_len);
        Self { ids: ids(), trees: ids(), parents: ids(), ..Self::default() }
    }

    /// Adds a commit; they come in the order of their ids.
    pub fn push(&mut self, id: &oid, commit: &Commit) {
        self.ids.push(id);
        self.trees.push(&commit.tree);
        self.committed.push(commit.committed);
        commit.parents.iter().for_each(|parent| self.parents.push(parent));
        self.ends.push(self.parents.len() as u32);
    }

    /// What stands in a commit, if it was read.
    pub fn get(&self, id: &oid) -> Option<Commit> {
        let index = self.ids.find(id)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let parents = (start..self.ends[index]).map(|parent| self.parents.get(parent as usize).to_owned());
        Some(Commit {
            tree: self.trees.get(index).to_owned(),
            parents: parents.collect(),
            committed: self.committed[index],
        })
    }

    fn is_sound(&self) -> bool {
        let ends_well = self.ends.last().is_none_or(|end| *end as usize == self.parents.len());
        self.ids.is_sorted() && self.ends.is_sorted() && ends_well && self.trees.len() == self.ids.len()
    }
}

/// What stands below a tree: names, with the numbers of blobs and of other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub blobs: Vec<(u32, u32)>,
    pub trees: Vec<(u32, u32)>,
}

/// A list of ids, packed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    bytes: Vec<u8>,
    id_len: usize,
}

impl Ids {
    /// None yet, of this many bytes each.
    pub fn new(id_len: usize) -> Self {
        Self { bytes: Vec::new(), id_len }
    }

    pub fn of<'a>(id_len: usize, ids: impl IntoIterator<Item = &'a oid>) -> Self {
        let mut list = Self::new(id_len);
        ids.into_iter().for_each(|id| list.push(id));
        list
    }

    pub fn push(&mut self, id: &oid) {
        self.bytes.extend_from_slice(id.as_bytes());
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / self.id_len.max(1)
    }

    pub fn get(&self, index: usize) -> &oid {
        oid::from_bytes_unchecked(&self.bytes[index * self.id_len..][..self.id_len])
    }

    pub fn iter(&self) -> impl Iterator<Item = &oid> {
        self.bytes.chunks_exact(self.id_len.max(1)).map(oid::from_bytes_unchecked)
    }

    /// Finds an id in a sorted list.
    pub fn find(&self, id: &oid) -> Option<usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = usize::midpoint(from, to);
            match self.get(middle).cmp(id) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// Sorts the ids and removes what is there twice.
    pub fn sorted(self) -> Self {
        // One pack's ids are, and there is mostly one.
        if self.is_sorted() {
            return self;
        }
        let mut ids: Vec<&[u8]> = self.bytes.chunks_exact(self.id_len.max(1)).collect();
        ids.sort_unstable();
        ids.dedup();
        Self { bytes: ids.concat(), id_len: self.id_len }
    }

    fn is_sorted(&self) -> bool {
        let mut ids = self.bytes.chunks_exact(self.id_len.max(1));
        let Some(mut last) = ids.next() else { return true };
        ids.all(|id| std::mem::replace(&mut last, id) < id)
    }
}

impl Known {
    /// Nothing known yet.
    pub fn nothing(hash: gix_hash::Kind) -> Self {
        let ids = || Ids::new(hash.len_in_bytes());
        let parsed = Parsed::new(hash.len_in_bytes());
        Self { settled: ids(), commits: ids(), parsed, blobs: ids(), trees: ids(), ..Self::default() }
    }

    /// Reads what was kept; nothing where that is not whole, or was found out under other rules.
    pub fn load(path: &Path, hash: gix_hash::Kind, rules: &[u8; 32]) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
        let content = content.strip_prefix(&header(hash, rules)[..])?;
        (checksum == Sha256::digest(&bytes[..bytes.len() - CHECKSUM]).as_slice()).then_some(())?;
        let known = Input { rest: content, id_len: hash.len_in_bytes() }.known()?;
        known.is_sound().then_some(known)
    }

    /// Keeps it. A reader sees the file before or the one after, never a half of one.
    pub fn save(&self, path: &Path, hash: gix_hash::Kind, rules: &[u8; 32]) -> std::io::Result<()> {
        let mut bytes = header(hash, rules);
        for ids in [&self.settled, &self.commits, &self.blobs, &self.trees] {
            number(&mut bytes, ids.len());
            bytes.extend_from_slice(&ids.bytes);
        }
        self.tree_nodes.iter().for_each(|node| bytes.extend(node.to_le_bytes()));
        number(&mut bytes, self.nodes.len());
        for node in &self.nodes {
            for pairs in [&node.blobs, &node.trees] {
                number(&mut bytes, pairs.len());
                pairs.iter().for_each(|(name, what)| {
                    bytes.extend(name.to_le_bytes());
                    bytes.extend(what.to_le_bytes());
                });
            }
        }
        number(&mut bytes, self.names.len());
        for name in &self.names {
            number(&mut bytes, name.len());
            bytes.extend_from_slice(name);
        }
        for ids in [&self.parsed.ids, &self.parsed.trees, &self.parsed.parents] {
            number(&mut bytes, ids.len());
            bytes.extend_from_slice(&ids.bytes);
        }
        self.parsed.committed.iter().for_each(|time| bytes.extend(time.to_le_bytes()));
        self.parsed.ends.iter().for_each(|end| bytes.extend(end.to_le_bytes()));
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let beside = path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// Whether all numbers lead somewhere, and each node to earlier ones only.
    fn is_sound(&self) -> bool {
        let lists = [&self.settled, &self.commits, &self.blobs, &self.trees];
        let names = self.names.len() as u32;
        let is_node_sound = |(number, node): (usize, &Node)| {
            node.blobs.iter().all(|(name, blob)| *name < names && *blob < self.blobs.len() as u32)
                && node.trees.iter().all(|(name, below)| *name < names && *below < number as u32)
        };
        lists.into_iter().all(Ids::is_sorted)
            && self.parsed.is_sound()
            && self.nodes.first().is_none_or(|node| *node == Node::default())
            && self.tree_nodes.iter().all(|node| (*node as usize) < self.nodes.len())
            && self.nodes.iter().enumerate().all(is_node_sound)
    }
}

/// What the file begins with: which rules found it out, and how this crate searched.
fn header(hash: gix_hash::Kind, rules: &[u8; 32]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.push(hash.len_in_bytes() as u8);
    header.extend_from_slice(rules);
    header
}

fn number(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend((number as u32).to_le_bytes());
}

struct Input<'a> {
    rest: &'a [u8],
    id_len: usize,
}

impl Input<'_> {
    fn known(&mut self) -> Option<Known> {
        let (settled, commits, blobs, trees) = (self.ids()?, self.ids()?, self.ids()?, self.ids()?);
        let tree_nodes = (0..trees.len()).map(|_| self.number()).collect::<Option<_>>()?;
        let nodes = (0..self.number()?)
            .map(|_| Some(Node { blobs: self.pairs()?, trees: self.pairs()? }))
            .collect::<Option<_>>()?;
        let names = (0..self.number()?)
            .map(|_| {
                let len = self.number()? as usize;
                self.take(len).map(<[u8]>::to_vec)
            })
            .collect::<Option<_>>()?;
        let parsed = self.parsed()?;
        Some(Known { settled, commits, parsed, blobs, trees, tree_nodes, nodes, names })
    }

    fn parsed(&mut self) -> Option<Parsed> {
        let (ids, trees, parents) = (self.ids()?, self.ids()?, self.ids()?);
        let times = self.take(ids.len().checked_mul(8)?)?.as_chunks::<8>().0;
        let committed = times.iter().map(|time| i64::from_le_bytes(*time)).collect();
        let ends = (0..ids.len()).map(|_| self.number()).collect::<Option<_>>()?;
        Some(Parsed { ids, trees, committed, ends, parents })
    }

    fn ids(&mut self) -> Option<Ids> {
        let (count, id_len) = (self.number()? as usize, self.id_len);
        Some(Ids { bytes: self.take(count.checked_mul(id_len)?)?.to_vec(), id_len })
    }

    fn pairs(&mut self) -> Option<Vec<(u32, u32)>> {
        (0..self.number()?).map(|_| Some((self.number()?, self.number()?))).collect()
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

/// The number at the end changes with how blobs are read and searched here; the rules have their own id.
const MAGIC: &[u8] = b"keymoat settled objects 2\n";
const CHECKSUM: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use gix_hash::ObjectId;

    const SHA1: gix_hash::Kind = gix_hash::Kind::Sha1;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[byte; 20])
    }

    fn sample() -> Known {
        let ids = |bytes: &[u8]| {
            let ids: Vec<ObjectId> = bytes.iter().map(|byte| id(*byte)).collect();
            Ids::of(20, ids.iter().map(AsRef::as_ref))
        };
        let mut parsed = Parsed::new(20);
        parsed.push(&id(2), &Commit { tree: id(5), parents: vec![id(3), id(1)], committed: -7 });
        parsed.push(&id(3), &Commit { tree: id(6), parents: vec![], committed: 1 << 40 });
        Known {
            settled: ids(&[1, 2, 3]),
            commits: ids(&[2]),
            parsed,
            blobs: ids(&[8, 9]),
            trees: ids(&[5]),
            tree_nodes: vec![1],
            nodes: vec![Node::default(), Node { blobs: vec![(0, 1)], trees: vec![(0, 0)] }],
            names: vec![b".env".to_vec()],
        }
    }

    #[test]
    fn what_was_kept_comes_back_under_the_same_rules_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/known");
        let known = sample();
        known.save(&path, SHA1, &[7; 32]).unwrap();
        assert_eq!(Known::load(&path, SHA1, &[7; 32]), Some(known));
        assert_eq!(Known::load(&path, SHA1, &[8; 32]), None);
        assert_eq!(Known::load(&path, gix_hash::Kind::Sha256, &[7; 32]), None);
        assert_eq!(Known::load(&dir.path().join("none"), SHA1, &[7; 32]), None);
    }

    #[test]
    fn a_file_that_is_not_whole_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        sample().save(&path, SHA1, &[7; 32]).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(Known::load(&path, SHA1, &[7; 32]), None, "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert_eq!(Known::load(&path, SHA1, &[7; 32]), None, "changed at {at}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_none_whatever_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        let broken: [fn(&mut Known); 7] = [
            |known| known.parsed.ends[1] = 3,
            |known| known.parsed.ends[0] = 3,
            |known| known.nodes[1].trees = vec![(0, 1)],
            |known| known.nodes[1].blobs = vec![(1, 0)],
            |known| known.nodes[1].blobs = vec![(0, 2)],
            |known| known.tree_nodes = vec![2],
            |known| known.settled.push(&id(1)),
        ];
        for change in broken {
            let mut known = sample();
            change(&mut known);
            known.save(&path, SHA1, &[7; 32]).unwrap();
            assert_eq!(Known::load(&path, SHA1, &[7; 32]), None, "{known:?}");
        }
    }

    #[test]
    fn commits_come_back() {
        let parsed = sample().parsed;
        assert_eq!(parsed.get(&id(2)).unwrap().parents, [id(3), id(1)]);
        let commit = parsed.get(&id(3)).unwrap();
        assert_eq!((commit.tree, commit.parents.len(), commit.committed), (id(6), 0, 1 << 40));
        assert_eq!(parsed.get(&id(4)), None);
    }

    #[test]
    fn ids_are_found() {
        let ids = Ids::of(20, [&*id(3), &*id(1), &*id(3)]).sorted();
        assert_eq!((ids.len(), ids.find(&id(3)), ids.find(&id(2))), (2, Some(1), None));
    }
}
