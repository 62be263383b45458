//! The tree's stored shape: full tiles of 256 hashes, as in C2SP tlog-tiles (c2sp.org/tlog-tiles).
//!
//! Only full tiles are stored; the partial one on each level is kept in memory and can always be made again from
//! the events and the tiles below it.

use keymoat_core::tree::{Hash, root_of};

/// Hashes in a full tile.
pub(crate) const TILE_WIDTH: usize = 256;

/// The partial tile of every level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tiles {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// Full tiles written so far.
    full: u64,
    partial: Vec<Hash>,
}

/// A tile that has just become full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FullTile {
    pub(crate) level: u32,
    pub(crate) number: u64,
    pub(crate) hashes: Vec<u8>,
}

impl Tiles {
    /// Adds a leaf hash and returns the tiles that it filled, lowest level first.
    pub(crate) fn push(&mut self, leaf: Hash) -> Vec<FullTile> {
        let mut filled = Vec::new();
        let mut carry = Some(leaf);
        let mut number = 0;
        while let Some(hash) = carry.take() {
            let index = number as usize;
            if self.levels.len() == index {
                self.levels.push(Level::default());
            }
            let level = &mut self.levels[index];
            level.partial.push(hash);
            if level.partial.len() == TILE_WIDTH {
                let hashes = std::mem::take(&mut level.partial);
                filled.push(FullTile { level: number, number: level.full, hashes: hashes.concat() });
                level.full += 1;
                carry = Some(perfect_root(&hashes));
            }
            number += 1;
        }
        filled
    }

    /// Makes the partial tiles again for a log of `size` events from its leaf hashes and full tiles.
    pub(crate) fn restore<E>(
        size: u64,
        mut leaf: impl FnMut(u64) -> Result<Hash, E>,
        mut tile: impl FnMut(u32, u64) -> Result<Vec<Hash>, E>,
    ) -> Result<Self, E> {
        let mut levels = Vec::new();
        let mut count = size;
        let mut number = 0u32;
        while count > 0 {
            let full = count / TILE_WIDTH as u64;
            let first = full * TILE_WIDTH as u64;
            let partial = (first..count)
                .map(|index| match number {
                    0 => leaf(index),
                    _ => tile(number - 1, index).map(|hashes| perfect_root(&hashes)),
                })
                .collect::<Result<Vec<Hash>, E>>()?;
            levels.push(Level { full, partial });
            count = full;
            number += 1;
        }
        Ok(Self { levels })
    }
}

/// Whether a log of `size` events fills this tile; one that it does not fill is not the tree's, whatever stands there.
pub(crate) fn is_full(level: u32, number: u64, size: u64) -> bool {
    let leaves = 8u32.checked_mul(level + 1).and_then(|bits| 1u64.checked_shl(bits));
    leaves.and_then(|leaves| number.checked_add(1)?.checked_mul(leaves)).is_some_and(|end| end <= size)
}

/// How many full tiles a log of `size` events has.
pub(crate) fn full_tiles(size: u64) -> u64 {
    (1..8).map(|level| size >> (8 * level)).sum()
}

/// The root of a full subtree whose leaves are these hashes.
pub(crate) fn perfect_root(hashes: &[Hash]) -> Hash {
    root_of(hashes.iter().copied()).expect("a tile is smaller than a tree may be")
}

/// Splits a stored tile into its hashes; `None` when its length is wrong.
pub(crate) fn parse_tile(bytes: &[u8]) -> Option<Vec<Hash>> {
    if bytes.len() != TILE_WIDTH * 32 {
        return None;
    }
    Some(bytes.chunks_exact(32).filter_map(|chunk| chunk.try_into().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn leaf(n: u64) -> Hash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        hash
    }

    #[test]
    fn partial_tiles_are_the_same_when_made_again() {
        let mut tiles = Tiles::default();
        let mut stored = BTreeMap::new();
        for n in 0..70_000u64 {
            for full in tiles.push(leaf(n)) {
                stored.insert((full.level, full.number), parse_tile(&full.hashes).unwrap());
            }
            if n % 9_973 == 0 || n == 65_535 || n == 65_536 {
                let again = Tiles::restore(
                    n + 1,
                    |index| Ok::<_, ()>(leaf(index)),
                    |level, number| stored.get(&(level, number)).cloned().ok_or(()),
                )
                .unwrap();
                let shape = |t: &Tiles| {
                    let mut v: Vec<_> = t.levels.iter().map(|l| (l.full, l.partial.clone())).collect();
                    while v.last().is_some_and(|(full, partial)| *full == 0 && partial.is_empty()) {
                        v.pop();
                    }
                    v
                };
                assert_eq!(shape(&tiles), shape(&again), "at {n}");
            }
        }
        assert_eq!(stored.keys().filter(|(level, _)| *level == 1).count(), 1);
    }
}
