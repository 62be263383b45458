//! The Merkle tree of the audit log: RFC 6962 §2.1, with the proof algorithms of RFC 9162 §2.1.
//!
//! It keeps no leaves. [`Frontier`] is all that an append needs (at most 63 hashes); proofs ask their caller
//! for hashes of complete subtrees by level and index. Signing and storing are done elsewhere.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Hashes one leaf: SHA-256(0x00 ‖ record), RFC 6962 §2.1.
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF_PREFIX]).chain_update(record).finalize().into()
}

/// Hashes two subtrees into their parent: SHA-256(0x01 ‖ left ‖ right), RFC 6962 §2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([NODE_PREFIX]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The root over leaf hashes, in order.
///
/// # Errors
/// When there are more leaves than a tree may have.
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Result<Hash, TreeError> {
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append(leaf)?;
    }
    Ok(frontier.root())
}

/// The right edge of a tree: the roots of its complete subtrees, largest first (a compact range).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    // INVARIANT: one hash for each bit set in `size`, highest bit first.
    roots: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf hash.
    ///
    /// # Errors
    /// When the tree is full.
    pub fn append(&mut self, leaf: Hash) -> Result<(), TreeError> {
        self.append_with(leaf, |_, _, _| ())
    }

    /// Adds one leaf hash and tells of every subtree that became complete, the leaf (level 0) first:
    /// `(level, index, hash)`, as proofs look them up.
    ///
    /// # Errors
    /// When the tree is full.
    pub fn append_with(
        &mut self,
        leaf: Hash,
        mut completed: impl FnMut(u8, u64, &Hash),
    ) -> Result<(), TreeError> {
        if self.size >= MAX_SIZE {
            return Err(TreeError::TooLarge { size: self.size });
        }
        let mut hash = leaf;
        let mut index = self.size;
        let mut level = 0;
        completed(level, index, &hash);
        while index & 1 == 1 {
            let left = self.roots.pop().expect("every bit set in the size has its hash");
            hash = node_hash(&left, &hash);
            index >>= 1;
            level += 1;
            completed(level, index, &hash);
        }
        self.roots.push(hash);
        self.size += 1;
        Ok(())
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut from_right = self.roots.iter().rev();
        let Some(last) = from_right.next() else {
            return empty_root();
        };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }

    /// The right edge of a tree of `size` leaves whose complete subtrees are at hand; `lookup` is as for
    /// [`inclusion_proof`].
    ///
    /// # Errors
    /// When the size is out of range or a hash is missing.
    pub fn from_subtrees(
        size: u64,
        mut lookup: impl FnMut(u8, u64) -> Option<Hash>,
    ) -> Result<Self, TreeError> {
        check_size(size)?;
        let mut roots = Vec::new();
        let mut start = 0;
        for level in (0..64u8).rev().filter(|level| size >> level & 1 == 1) {
            roots.push(subtree(start, start + (1 << level), &mut lookup)?);
            start += 1 << level;
        }
        Ok(Self { size, roots })
    }

    /// The roots of its complete subtrees, largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// A frontier of `size` leaves from the roots of its complete subtrees, largest first.
    ///
    /// # Errors
    /// When the size is out of range or does not go with the number of roots.
    pub fn from_roots(size: u64, roots: Vec<Hash>) -> Result<Self, TreeError> {
        if size > MAX_SIZE || roots.len() != size.count_ones() as usize {
            return Err(TreeError::Malformed);
        }
        Ok(Self { size, roots })
    }

    /// The size as eight bytes, big-endian, then the hashes, largest subtree first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.roots.iter().flatten());
        bytes
    }

    /// Reads what [`Frontier::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the size is out of range or does not go with the number of hashes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TreeError> {
        let (size, hashes) = bytes.split_first_chunk::<8>().ok_or(TreeError::Malformed)?;
        let size = u64::from_be_bytes(*size);
        let (roots, rest) = hashes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(TreeError::Malformed);
        }
        Self::from_roots(size, roots.to_vec())
    }
}

/// The audit path of the leaf at `index` in the tree of `size` leaves, leaf's sibling first (RFC 9162 §2.1.3.1).
///
/// `lookup(level, index)` gives the hash of the complete subtree over the leaves
/// `index << level .. (index + 1) << level`; it is asked only for those below `size`.
///
/// # Errors
/// When there is no such leaf, the size is out of range, or a hash is missing.
pub fn inclusion_proof(
    index: u64,
    size: u64,
    mut lookup: impl FnMut(u8, u64) -> Option<Hash>,
) -> Result<Vec<Hash>, TreeError> {
    check_size(size)?;
    if index >= size {
        return Err(TreeError::NoSuchLeaf { index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(subtree(middle, end, &mut lookup)?);
            end = middle;
        } else {
            path.push(subtree(start, middle, &mut lookup)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Whether `proof` shows `leaf` at `index` in the tree of `size` leaves with that `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    root_of_path(leaf, index, size, proof).as_ref() == Some(root)
}

/// The root of the tree of `size` leaves in which `proof` is the audit path of `leaf` at `index`; none when the path
/// has another length than such a one.
pub fn root_of_path(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    if index >= size || size > MAX_SIZE {
        return None;
    }
    let mut climb = Climb { at: index, last: size - 1 };
    let mut hash = *leaf;
    for sibling in proof {
        hash = match climb.side()? {
            Side::Left => node_hash(sibling, &hash),
            Side::Right => node_hash(&hash, sibling),
        };
        climb.up();
    }
    (climb.last == 0).then_some(hash)
}

/// The proof that the tree of `new_size` leaves only adds to that of `old_size` (RFC 9162 §2.1.4.1).
///
/// It is empty when the sizes are equal or the old tree is empty. `lookup` is as for [`inclusion_proof`].
///
/// # Errors
/// When the old size exceeds the new one, the size is out of range, or a hash is missing.
pub fn consistency_proof(
    old_size: u64,
    new_size: u64,
    mut lookup: impl FnMut(u8, u64) -> Option<Hash>,
) -> Result<Vec<Hash>, TreeError> {
    check_size(new_size)?;
    if old_size > new_size {
        return Err(TreeError::Shrinks { old_size, new_size });
    }
    if old_size == 0 || old_size == new_size {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new_size);
    let mut proof = Vec::new();
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            proof.push(subtree(middle, end, &mut lookup)?);
            end = middle;
        } else {
            proof.push(subtree(start, middle, &mut lookup)?);
            start = middle;
        }
    }
    if start > 0 {
        proof.push(subtree(start, end, &mut lookup)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that the new tree begins with the old one (RFC 9162 §2.1.4.2).
///
/// The empty tree is the beginning of every tree; its proof is empty and its root is [`empty_root`].
#[must_use]
pub fn verify_consistency(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size > new_size || new_size > MAX_SIZE {
        return false;
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root && (old_size > 0 || *old_root == empty_root());
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (first, rest)
    };
    let mut climb = Climb { at: old_size - 1, last: new_size - 1 };
    climb.skip_right_edges();
    let (mut from_old, mut from_new) = (*first, *first);
    for sibling in rest {
        match climb.side() {
            None => return false,
            Some(Side::Left) => {
                from_old = node_hash(sibling, &from_old);
                from_new = node_hash(sibling, &from_new);
            }
            Some(Side::Right) => from_new = node_hash(&from_new, sibling),
        }
        climb.up();
    }
    climb.last == 0 && from_old == *old_root && from_new == *new_root
}

/// What is wrong with a tree or a question to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Bytes that are not a frontier.
    #[error("stored tree head is malformed")]
    Malformed,
    /// More leaves than a tree may have.
    #[error("tree of {size} leaves is too large")]
    TooLarge {
        /// The number of leaves.
        size: u64,
    },
    /// A leaf outside the tree.
    #[error("there is no leaf {index} in a tree of {size} leaves")]
    NoSuchLeaf {
        /// The leaf asked for.
        index: u64,
        /// The number of leaves.
        size: u64,
    },
    /// A new tree smaller than the old one.
    #[error("a tree of {new_size} leaves cannot follow one of {old_size}")]
    Shrinks {
        /// Leaves of the old tree.
        old_size: u64,
        /// Leaves of the new tree.
        new_size: u64,
    },
    /// A hash the proof needs could not be had.
    #[error("hash {index} at level {level} of the tree is missing")]
    MissingHash {
        /// Leaves are level 0.
        level: u8,
        /// Counted from the left.
        index: u64,
    },
}

/// The hash over the leaves `start..end`, where `start` is a multiple of a power of two not below `end - start`.
fn subtree(
    start: u64,
    end: u64,
    lookup: &mut impl FnMut(u8, u64) -> Option<Hash>,
) -> Result<Hash, TreeError> {
    let mut complete = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2() as u8;
        let index = at >> level;
        complete.push(lookup(level, index).ok_or(TreeError::MissingHash { level, index })?);
        at += 1 << level;
    }
    let last = complete.pop().expect("a subtree has at least one leaf");
    Ok(complete.iter().rev().fold(last, |right, left| node_hash(left, &right)))
}

/// The largest power of two below `size` (RFC 6962 §2.1), for sizes of at least two.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

fn check_size(size: u64) -> Result<(), TreeError> {
    if size > MAX_SIZE {
        return Err(TreeError::TooLarge { size });
    }
    Ok(())
}

/// The way from a node to the root: its index and that of the last node, level by level.
struct Climb {
    at: u64,
    last: u64,
}

enum Side {
    Left,
    Right,
}

impl Climb {
    /// On which side the next sibling stands; none when the root is reached.
    fn side(&self) -> Option<Side> {
        if self.last == 0 {
            return None;
        }
        Some(if self.at & 1 == 1 || self.at == self.last { Side::Left } else { Side::Right })
    }

    fn up(&mut self) {
        if self.at & 1 == 0 && self.at == self.last {
            while self.at & 1 == 0 && self.at != 0 {
                self.halve();
            }
        }
        self.halve();
    }

    fn skip_right_edges(&mut self) {
        while self.at & 1 == 1 {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.at >>= 1;
        self.last >>= 1;
    }
}

/// Most leaves a tree may have: far from any overflow, and a thousand events a second for longer than the Sun.
pub const MAX_SIZE: u64 = 1 << 62;
const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Test data of the Certificate Transparency reference implementation (merkle_tree_test.cc).
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn hex(hash: &Hash) -> String {
        hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn hexes(proof: &[Hash]) -> Vec<String> {
        proof.iter().map(hex).collect()
    }

    /// RFC 6962 §2.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// RFC 6962 §2.1.1.
    fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return vec![];
        }
        let middle = split(leaves.len() as u64) as usize;
        let (left, right) = leaves.split_at(middle);
        let (mut path, other) = if index < middle {
            (naive_path(index, left), naive_root(right))
        } else {
            (naive_path(index - middle, right), naive_root(left))
        };
        path.push(other);
        path
    }

    /// RFC 6962 §2.1.2.
    fn naive_consistency(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { vec![] } else { vec![naive_root(leaves)] };
        }
        let middle = split(leaves.len() as u64) as usize;
        let (left, right) = leaves.split_at(middle);
        let (mut proof, other) = if old <= middle {
            (naive_consistency(old, left, whole), naive_root(right))
        } else {
            (naive_consistency(old - middle, right, false), naive_root(left))
        };
        proof.push(other);
        proof
    }

    fn lookup(leaves: &[Hash]) -> impl FnMut(u8, u64) -> Option<Hash> {
        move |level, index| {
            let (start, end) = ((index << level) as usize, ((index + 1) << level) as usize);
            leaves.get(start..end).map(naive_root)
        }
    }

    fn made_up(count: usize) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn published_roots() {
        for (size, expected) in ROOTS.iter().enumerate() {
            let root = root_of(LEAVES[..size].iter().map(|leaf| leaf_hash(leaf))).unwrap();
            assert_eq!(hex(&root), *expected, "{size}");
        }
    }

    #[test]
    fn published_audit_paths() {
        let check = |index: u64, size: usize, expected: &[&str]| {
            let leaves: Vec<Hash> = LEAVES[..size].iter().map(|leaf| leaf_hash(leaf)).collect();
            let path = inclusion_proof(index, size as u64, lookup(&leaves)).unwrap();
            assert_eq!(hexes(&path), expected, "{index} of {size}");
        };
        check(0, 1, &[]);
        check(
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        );
        check(
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        );
        check(2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
        check(
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        );
    }

    #[test]
    fn every_small_tree_agrees_with_the_text_of_the_rfc() {
        let leaves = made_up(33);
        for size in 1..=leaves.len() {
            let (tree, root) = (&leaves[..size], naive_root(&leaves[..size]));
            assert_eq!(root_of(tree.iter().copied()).unwrap(), root);
            for index in 0..size {
                let path = inclusion_proof(index as u64, size as u64, lookup(tree)).unwrap();
                assert_eq!(path, naive_path(index, tree), "{index} of {size}");
                assert!(verify_inclusion(&tree[index], index as u64, size as u64, &path, &root));
            }
            for old in 1..=size {
                let proof = consistency_proof(old as u64, size as u64, lookup(tree)).unwrap();
                assert_eq!(proof, naive_consistency(old, tree, true), "{old} to {size}");
                let old_root = naive_root(&tree[..old]);
                assert!(verify_consistency((old as u64, &old_root), (size as u64, &root), &proof));
            }
        }
    }

    #[test]
    fn told_of_every_complete_subtree() {
        let leaves = made_up(100);
        let mut frontier = Frontier::new();
        let mut nodes = std::collections::HashMap::new();
        for leaf in &leaves {
            frontier
                .append_with(*leaf, |level, index, hash| {
                    assert!(nodes.insert((level, index), *hash).is_none());
                })
                .unwrap();
        }
        for index in 0..100 {
            let path = inclusion_proof(index, 100, |level, at| nodes.get(&(level, at)).copied()).unwrap();
            assert!(verify_inclusion(&leaves[index as usize], index, 100, &path, &frontier.root()));
        }
    }

    #[test]
    fn questions_without_an_answer() {
        let none = |_: u8, _: u64| None;
        assert_eq!(inclusion_proof(3, 3, none), Err(TreeError::NoSuchLeaf { index: 3, size: 3 }));
        assert_eq!(inclusion_proof(0, 2, none), Err(TreeError::MissingHash { level: 0, index: 1 }));
        assert_eq!(inclusion_proof(0, u64::MAX, none), Err(TreeError::TooLarge { size: u64::MAX }));
        assert_eq!(consistency_proof(3, 2, none), Err(TreeError::Shrinks { old_size: 3, new_size: 2 }));
        assert_eq!(consistency_proof(0, 9, none), Ok(vec![]));
        let (one, empty) = (leaf_hash(b"x"), empty_root());
        assert!(verify_consistency((0, &empty), (1, &one), &[]));
        assert!(verify_consistency((0, &empty), (0, &empty), &[]));
        assert!(!verify_consistency((0, &one), (0, &one), &[]));
        assert!(!verify_consistency((0, &one), (1, &one), &[]));
        assert!(!verify_consistency((0, &empty), (1, &one), &[one]));
        assert!(!verify_inclusion(&one, 0, 0, &[], &one));
        assert!(!verify_inclusion(&one, u64::MAX - 1, u64::MAX, &[], &one));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_changed_inclusion_proof_is_refused(
            (size, index) in (2usize..200).prop_flat_map(|size| (Just(size), 0..size)),
            bit in 0usize..256,
            which: prop::sample::Index,
            other in 0u64..400,
        ) {
            let leaves = made_up(size);
            let root = naive_root(&leaves);
            let (at, of) = (index as u64, size as u64);
            let path = inclusion_proof(at, of, lookup(&leaves)).unwrap();
            prop_assert!(verify_inclusion(&leaves[index], at, of, &path, &root));
            let mut flipped = path.clone();
            let i = which.index(path.len());
            flipped[i][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_inclusion(&leaves[index], at, of, &flipped, &root));
            prop_assert!(!verify_inclusion(&leaves[index], at, of, &path[1..], &root));
            let longer = [&path[..], &[root]].concat();
            prop_assert!(!verify_inclusion(&leaves[index], at, of, &longer, &root));
            prop_assert_eq!(verify_inclusion(&leaves[index], other, of, &path, &root), other == at);
        }

        #[test]
        fn a_changed_history_is_refused(
            (new, old) in (2usize..200).prop_flat_map(|new| (Just(new), 1..new)),
            changed: prop::sample::Index,
        ) {
            let leaves = made_up(new);
            let proof = consistency_proof(old as u64, new as u64, lookup(&leaves)).unwrap();
            prop_assert_eq!(&proof, &naive_consistency(old, &leaves, true));
            let (old_root, new_root) = (naive_root(&leaves[..old]), naive_root(&leaves));
            let verify = |old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
                verify_consistency((old as u64, old_root), (new as u64, new_root), proof)
            };
            prop_assert!(verify(&old_root, &new_root, &proof));
            let mut rewritten = leaves.clone();
            rewritten[changed.index(old)] = leaf_hash(b"rewritten");
            let forged = consistency_proof(old as u64, new as u64, lookup(&rewritten)).unwrap();
            prop_assert!(!verify(&old_root, &naive_root(&rewritten), &forged));
            prop_assert!(!verify(&old_root, &naive_root(&rewritten), &proof));
            prop_assert!(!verify(&old_root, &new_root, &proof[1..]));
            prop_assert!(!verify(&old_root, &new_root, &[&proof[..], &[old_root]].concat()));
        }

        #[test]
        fn frontiers_round_trip(size in 0usize..300) {
            let mut frontier = Frontier::new();
            for leaf in made_up(size) {
                frontier.append(leaf).unwrap();
            }
            let bytes = frontier.to_bytes();
            prop_assert_eq!(&Frontier::from_bytes(&bytes).unwrap(), &frontier);
            prop_assert!(Frontier::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn frontier_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 0u64..16) {
            let _ = Frontier::from_bytes(&bytes);
            let sized = [&size.to_be_bytes()[..], &bytes].concat();
            if let Ok(mut frontier) = Frontier::from_bytes(&sized) {
                prop_assert_eq!(frontier.to_bytes(), sized);
                frontier.append(frontier.root()).unwrap();
            }
        }

        #[test]
        fn verifiers_take_anything(
            index: u64, size: u64, proof in prop::collection::vec(any::<Hash>(), 0..70), hash: Hash,
        ) {
            let _ = verify_inclusion(&hash, index, size, &proof, &hash);
            let _ = verify_consistency((index, &hash), (size, &hash), &proof);
            let _ = verify_consistency((index >> 8, &hash), (size >> 2, &hash), &proof);
        }
    }
}
