//! What is staged: the files of the index that differ from `HEAD`, and of the values in them those that are new.
//!
//! It is for a hook before a commit, so it reads no more than what changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};

use gix_hash::oid;

use super::index::{IndexEntry, entries};
use super::object::{Kind, Mode, commit, tree_entries};
use super::objects::{Objects, Reader};
use super::repository::Repository;
use crate::finding::Values;
use crate::inside;
use crate::look::{Looker, Seen};
use crate::place::Source;
use crate::scan::Scan;
use crate::text::{Lines, Searcher, is_binary};
use crate::trouble::Troubles;

/// What was read of what is staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagedFiles {
    /// Files that differ from `HEAD`.
    pub changed: u64,
    /// Of them, text.
    pub texts: u64,
    /// Of them, no text; what is in them was searched all the same.
    pub binaries: u64,
}

/// Searches the staged files, and adds to `values` what the file of the same name in `HEAD` does not have.
pub(crate) fn search(repository: &Repository, scan: &Scan<'_>, values: &Values<'_>) -> StagedFiles {
    let mut staged = StagedFiles::default();
    let path = &repository.index;
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // Before the first `git add` there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return staged,
        Err(error) => {
            scan.troubles.add(path.display().to_string(), format!("cannot be read: {}", error.kind()));
            return staged;
        }
    };
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
        let Some(now) = look(&path, &entry.id, &mut reader, &mut searcher, scan) else {
            scan.troubles.add(path, "is staged and cannot be read; `git add` it again");
            continue;
        };
        match now.is_binary {
            true => staged.binaries += 1,
            false => staged.texts += 1,
        }
        if now.seen.is_empty() {
            continue;
        }
        // What is wrong with the version before is nobody's trouble now.
        let unheard = Troubles::default();
        let quiet = Scan { troubles: &unheard, ..*scan };
        let before = before.and_then(|id| look(&path, id, &mut reader, &mut searcher, &quiet));
        let before = before.map(|before| before.seen).unwrap_or_default();
        let source = Source::Staged(path);
        let is_new = |seen: &&Seen| before.iter().all(|old| old.value != seen.value);
        now.seen.iter().filter(is_new).for_each(|seen| values.add_place(seen.value, seen.place_in(&source)));
    }
    staged
}

/// What stands in a version of a file.
struct Version {
    is_binary: bool,
    seen: Vec<Seen>,
}

/// Searches a version of a file, with everything that is in it. Nothing where it cannot be read.
fn look(
    path: &str,
    id: &[u8],
    reader: &mut Reader<'_>,
    searcher: &mut Searcher<'_>,
    scan: &Scan<'_>,
) -> Option<Version> {
    let id = oid::from_bytes_unchecked(id);
    let Some((kind, bytes)) = reader.read(id) else {
        let mut stream = reader.stream(id)?;
        let mut begin = Vec::new();
        (&mut stream).take(BEGINNING).read_to_end(&mut begin).ok()?;
        let is_binary = is_binary(&begin);
        return Some(Version {
            is_binary,
            seen: Looker::keep(scan, searcher, path, begin.as_slice().chain(stream)).seen,
        });
    };
    if kind != Kind::Blob {
        return None;
    }
    let is_binary = is_binary(&bytes);
    if is_binary || !inside::is_plain_text(path, &bytes) {
        return Some(Version { is_binary, seen: Looker::keep(scan, searcher, path, bytes.as_slice()).seen });
    }
    let mut lines = Lines::default();
    let seen = searcher.search(&bytes, None).into_iter().map(|known| {
        let (line, column) = lines.at(&bytes, known.start);
        Seen { value: known.value, encoding: known.encoding, line, column, within: None }
    });
    Some(Version { is_binary, seen: seen.collect() })
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

/// As far as a NUL is looked for.
const BEGINNING: u64 = 8000;
