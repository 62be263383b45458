//! What is staged: the files of the index that differ from `HEAD`, and of the values in them those that are new.
//!
//! It is for a hook before a commit, so it reads no more than what changed.

use std::collections::BTreeMap;
use std::fs;

use gix_hash::oid;

use super::index::{IndexEntry, entries};
use super::object::{Kind, Mode, commit, tree_entries};
use super::objects::{Objects, Reader};
use super::repository::Repository;
use crate::finding::Values;
use crate::place::{Place, Source};
use crate::scan::Scan;
use crate::text::{Lines, Searcher, is_binary};

/// What was read of what is staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagedFiles {
    /// Files that differ from `HEAD`.
    pub changed: u64,
    /// Of them, searched.
    pub texts: u64,
    /// Of them, left out because they are no text.
    pub binaries: u64,
}

/// Searches the staged files, and adds to `values` what the file of the same name in `HEAD` does not have.
pub(crate) fn search(repository: &Repository, scan: &Scan<'_>, values: &Values<'_>) -> StagedFiles {
    let mut staged = StagedFiles::default();
    let path = &repository.index;
    // Before the first `git add` there is none.
    let Ok(bytes) = fs::read(path) else { return staged };
    let listed = match entries(&bytes, repository.hash.len_in_bytes()) {
        Ok(listed) => listed,
        Err(error) => {
            scan.troubles.add(path.display().to_string(), error.to_string());
            return staged;
        }
    };
    let objects = Objects::open(repository, scan.troubles);
    let mut reader = Reader::new(&objects);
    let committed = committed(repository, &mut reader, &listed, scan);
    let mut searcher = Searcher::new(scan.engine, values);
    for entry in listed.iter().filter(|entry| matches!(entry.mode, Mode::File | Mode::Link)) {
        let before = committed.get(entry.path.as_slice());
        if before.is_some_and(|id| *id == entry.id) {
            continue;
        }
        staged.changed += 1;
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let Some((Kind::Blob, text)) = reader.read(oid::from_bytes_unchecked(&entry.id)) else {
            scan.troubles.add(path, "is staged and cannot be read; `git add` it again");
            continue;
        };
        if is_binary(&text) {
            staged.binaries += 1;
            continue;
        }
        staged.texts += 1;
        let known = searcher.search(&text, None);
        if known.is_empty() {
            continue;
        }
        let before = before.and_then(|id| reader.read(oid::from_bytes_unchecked(id)));
        let before = before.map(|(_, text)| searcher.search(&text, None)).unwrap_or_default();
        let mut lines = Lines::default();
        for known in &known {
            let (line, column) = lines.at(&text, known.start);
            if before.iter().all(|old| old.value != known.value) {
                let source = Source::Staged(path.clone());
                values.add_place(known.value, Place { source, line, column, encoding: known.encoding });
            }
        }
    }
    staged
}

/// The blobs of `HEAD` at the paths of an index; of directories in which nothing is listed, nothing.
fn committed(
    repository: &Repository,
    reader: &mut Reader<'_>,
    listed: &[IndexEntry],
    scan: &Scan<'_>,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let head = repository.tips(scan.troubles).head;
    let root = head.and_then(|head| commit(&reader.read(&head)?.1)).map(|commit| commit.tree);
    let mut waiting: Vec<(Vec<u8>, Vec<u8>)> =
        root.map(|id| (Vec::new(), id.as_bytes().to_vec())).into_iter().collect();
    while let Some((dir, id)) = waiting.pop() {
        let first = listed.partition_point(|entry| entry.path < dir);
        if !listed.get(first).is_some_and(|entry| entry.path.starts_with(&dir)) {
            continue;
        }
        let Some((Kind::Tree, bytes)) = reader.read(oid::from_bytes_unchecked(&id)) else {
            let dir = String::from_utf8_lossy(&dir).into_owned();
            scan.troubles.add(dir, "cannot be read in HEAD; all that is staged in it counts as new");
            continue;
        };
        for entry in tree_entries(&bytes, id.len()) {
            let mut path = [&dir, entry.name].concat();
            match entry.mode {
                Mode::Tree => {
                    path.push(b'/');
                    waiting.push((path, entry.id.to_vec()));
                }
                _ => drop(found.insert(path, entry.id.to_vec())),
            }
        }
    }
    found
}
