//! The whole history of a repository: all blobs searched, then the ones with hits traced.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gix_hash::{ObjectId, oid};

use super::known::{Ids, Known, Node};
use super::object::Kind;
use super::objects::{Loose, Objects, Reader};
use super::pack::{Forest, Pack};
use super::repository::Repository;
use super::sightings::{SeenBlob, Sightings};
use super::trace::{self, Learnt, NOTHING, Trace, UNKNOWN};
use super::walk::{Done, Walk};
use crate::finding::{Listed, Values};
use crate::inside;
use crate::look::Looker;
use crate::place::{Historic, Source, Standing};
use crate::progress::Phase;
use crate::scan::Scan;
use crate::text::{Searcher, is_binary};

/// The history of a repository as something to search.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Whether of a delta only what is new is searched. The outcome is the same; `false` is for measuring.
    pub delta_aware: bool,
    /// Where to keep which objects need no look the next time; [`Repository::known_file`] is a good place. Nothing is
    /// kept without.
    pub known_file: Option<&'a Path>,
}

/// What was read of a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Commits, reachable or not; 0 where nothing was found, for then nobody looked.
    pub commits: u64,
    /// Objects of all kinds that were left out because an earlier scan knew all about them.
    pub known: u64,
    /// Other blobs.
    pub blobs: u64,
    /// Of them, searched.
    pub texts: u64,
    /// Of them, no text.
    pub binaries: u64,
    /// Of both, looked into: archives, documents, databases. All other binaries were left out.
    pub opened: u64,
    /// Bytes of the texts and the binaries.
    pub bytes: u64,
    /// Bytes that had to be looked at.
    pub searched: u64,
    /// How often a text was made a second time to keep within the memory.
    pub remade: u64,
}

impl<'a> History<'a> {
    /// All of it, nothing kept.
    pub fn of(repository: &'a Repository) -> Self {
        Self { repository, delta_aware: true, known_file: None }
    }

    /// Searches all blobs, and adds what was found to `values`.
    pub(crate) fn search(&self, scan: &Scan<'_>, values: &Values<'_>) -> Scanned {
        let rules = scan.engine.rules_id();
        let hash = self.repository.hash;
        let known = self.known_file.and_then(|path| Known::load(path, hash, &rules));
        let known = known.unwrap_or_else(|| Known::nothing(hash));
        let objects = Objects::open(self.repository, scan.troubles);
        let mut pass = Pass {
            history: self,
            scan,
            values,
            objects: &objects,
            known: &known,
            sightings: Sightings::default(),
            scanned: Scanned::default(),
            packs: Vec::new(),
            loose: LooseSeen::default(),
        };
        scan.progress.begin(Phase::Listing, objects.packs.len() as u64);
        for number in 0..objects.packs.len() {
            pass.search_pack(number);
        }
        pass.search_loose();
        let traced = pass.trace();
        if let Some(path) = self.known_file
            && pass.has_news()
            && !scan.progress.is_cancelled()
        {
            pass.keep(path, &rules, traced);
        }
        pass.scanned
    }
}

/// One search of one history.
struct Pass<'p> {
    history: &'p History<'p>,
    scan: &'p Scan<'p>,
    values: &'p Values<'p>,
    objects: &'p Objects,
    known: &'p Known,
    sightings: Sightings,
    scanned: Scanned,
    packs: Vec<PackSeen>,
    loose: LooseSeen,
}

/// What was seen in one pack, by places in its index.
struct PackSeen {
    commits: Vec<u32>,
    trees: Vec<u32>,
}

/// What was seen of loose objects.
#[derive(Default)]
struct LooseSeen {
    all: Vec<ObjectId>,
    commits: Vec<ObjectId>,
    trees: Vec<ObjectId>,
}

impl Pass<'_> {
    /// Searches the blobs of one pack that no earlier pack has.
    fn search_pack(&mut self, number: usize) {
        let (scan, values, objects) = (self.scan, self.values, self.objects);
        let pack = &objects.packs[number];
        let earlier = &objects.packs[..number];
        let is_first = |place| !earlier.iter().any(|other| other.find(pack.id(place)).is_some());
        let listed = self.unknown_in(pack);
        self.scanned.known += u64::from(pack.len()) - listed.len() as u64;
        let forest = Forest::of(pack, listed, scan.troubles, is_first);
        scan.progress.begin(Phase::Searching, forest.wanted_blobs);
        let walk = Walk::new(pack, &forest, scan, self.history.delta_aware);
        let outcomes = on_all_threads(scan, || {
            let mut searcher = Searcher::new(scan.engine, values);
            let mut own = Sightings::default();
            let done = walk.work(&mut searcher, &mut own);
            (done, own, searcher.searched)
        });
        self.scanned.blobs += forest.wanted_blobs;
        outcomes.into_iter().for_each(|outcome| self.add(outcome));
        self.packs.push(PackSeen { commits: forest.commits, trees: forest.trees });
    }

    /// The places of objects that no earlier scan knew. Both lists are sorted by id.
    fn unknown_in(&self, pack: &Pack) -> Vec<u32> {
        let mut lists = [&self.known.settled, &self.known.trees].map(|ids| ids.iter().peekable());
        let mut is_known = |id: &oid| {
            lists.iter_mut().any(|list| {
                while list.next_if(|known| *known < id).is_some() {}
                list.peek() == Some(&id)
            })
        };
        (0..pack.len()).filter(|place| !is_known(pack.id(*place))).collect()
    }

    /// Searches the loose blobs.
    fn search_loose(&mut self) {
        let (scan, values) = (self.scan, self.values);
        let mut loose = self.objects.loose(scan.troubles);
        self.loose.all = loose.iter().map(|(id, _)| *id).collect();
        loose.retain(|(id, _)| self.known.settled.find(id).is_none() && self.known.trees.find(id).is_none());
        self.scanned.known += (self.loose.all.len() - loose.len()) as u64;
        scan.progress.begin(Phase::Searching, loose.len() as u64);
        let (next, opened) = (AtomicUsize::new(0), Mutex::new(()));
        let outcomes = on_all_threads(scan, || {
            let mut thread = LooseThread::new(scan, values, &opened);
            while let Some((id, path)) = loose.get(next.fetch_add(1, Ordering::Relaxed))
                && !scan.progress.is_cancelled()
            {
                scan.progress.advance(1);
                thread.object(*id, path);
            }
            (thread.done, thread.sightings, thread.searcher.searched, thread.seen)
        });
        for (done, own, searched, mut seen) in outcomes {
            self.loose.commits.append(&mut seen.commits);
            self.loose.trees.append(&mut seen.trees);
            self.scanned.blobs += done.texts + done.binaries + own.unread.len() as u64;
            self.add((done, own, searched));
        }
    }

    fn add(&mut self, (done, own, searched): (Done, Sightings, u64)) {
        self.scanned.texts += done.texts;
        self.scanned.binaries += done.binaries;
        self.scanned.opened += done.opened;
        self.scanned.bytes += done.bytes;
        self.scanned.remade += done.remade;
        self.scanned.searched += searched;
        self.sightings.append(own);
    }

    /// Turns blobs with hits into places; nothing is learnt where there are none.
    fn trace(&mut self) -> Option<(trace::History, Learnt)> {
        if self.sightings.blobs.is_empty() {
            return None;
        }
        let tips = self.history.repository.tips(self.scan.troubles);
        let mut packed: Vec<Vec<u32>> = self.packs.iter().map(|seen| seen.commits.clone()).collect();
        let mut loose = self.loose.commits.clone();
        for id in self.known.commits.iter() {
            match self.objects.in_pack(id) {
                Some((pack, place)) => packed[pack].push(place),
                None if self.loose.all.binary_search_by(|other| other.as_ref().cmp(id)).is_ok() => {
                    loose.push(id.to_owned());
                }
                None => {}
            }
        }
        let (objects, known, troubles) = (self.objects, self.known, self.scan.troubles);
        let history = trace::History::read(objects, known, &packed, &loose, &tips, troubles);
        self.scanned.commits = history.commits().len() as u64;
        let learnt = self.tell(&history);
        Some((history, learnt))
    }

    /// Turns blobs with hits into places: one for each path and value, of the newest version that has it there.
    fn tell(&mut self, history: &trace::History) -> Learnt {
        let blobs = &mut self.sightings.blobs;
        blobs.sort_by_key(|blob| blob.id);
        let ids: Vec<ObjectId> = blobs.iter().map(|blob| blob.id).collect();
        let (objects, scan) = (self.objects, self.scan);
        let (traces, learnt) = history.trace(objects, self.known, &ids, scan.progress, scan.troubles);
        let mut reader = Reader::new(objects);
        let mut traced = vec![false; blobs.len()];
        // Versions of one file stand together: they come in the order of their paths.
        for versions in traces.chunk_by(|a, b| a.path == b.path) {
            versions.iter().for_each(|trace| traced[trace.blob as usize] = true);
            tell_file(versions, blobs, history, &mut reader, self.values);
        }
        let lost = blobs.iter().zip(traced).filter(|(_, traced)| !traced);
        lost.for_each(|(blob, _)| tell_lost(blob, self.values));
        learnt
    }

    /// Whether there was more than the blobs with hits that were known.
    fn has_news(&self) -> bool {
        let is_known = |blob: &SeenBlob| self.known.blobs.find(&blob.id).is_some();
        let is_troubled_only = |id: &&ObjectId| self.known.blobs.find(id).is_none();
        // These are read each time, and there is nothing to keep of them.
        let troubled = self.sightings.troubled.iter().filter(is_troubled_only).count();
        self.scanned.blobs != (self.known.blobs.len() + troubled) as u64
            || !self.sightings.blobs.iter().all(is_known)
            || !self.loose.commits.is_empty()
            || !self.loose.trees.is_empty()
            || self.packs.iter().any(|seen| !seen.commits.is_empty() || !seen.trees.is_empty())
    }

    /// Keeps what the next scan need not find out again.
    fn keep(&self, path: &Path, rules: &[u8; 32], traced: Option<(trace::History, Learnt)>) {
        let hash = self.history.repository.hash;
        let mut next = Known::nothing(hash);
        match &traced {
            Some((history, _)) => {
                history.commits().iter().for_each(|(id, commit)| next.parsed.push(id, commit))
            }
            None => next.parsed = self.known.parsed.clone(),
        }
        let learnt = traced.map(|(_, learnt)| learnt);
        // Below a tree may stand what is missing now and comes later.
        let complete = !self.history.repository.partial
            && self.sightings.unread.is_empty()
            && learnt.as_ref().is_none_or(|learnt| learnt.complete);
        let mut open: HashSet<&oid> = self.sightings.unread.iter().map(AsRef::as_ref).collect();
        open.extend(self.sightings.troubled.iter().map(AsRef::as_ref));
        open.extend(self.sightings.blobs.iter().map(|blob| blob.id.as_ref()));
        let node_of = |known: Option<u32>| if complete { known } else { None };
        let mut trees: Vec<(ObjectId, u32)> = Vec::new();
        for (number, (pack, seen)) in self.objects.packs.iter().zip(&self.packs).enumerate() {
            for place in &seen.trees {
                let node = learnt.as_ref().map_or(NOTHING, |learnt| learnt.packed[number][*place as usize]);
                match node_of((node != UNKNOWN).then_some(node)) {
                    Some(NOTHING) => {}
                    Some(node) => {
                        open.insert(pack.id(*place));
                        trees.push((pack.id(*place).to_owned(), node));
                    }
                    None => drop(open.insert(pack.id(*place))),
                }
            }
        }
        for id in &self.loose.trees {
            let node = learnt.as_ref().map_or(Some(NOTHING), |learnt| learnt.loose.get(id).copied());
            match node_of(node) {
                Some(NOTHING) => {}
                Some(node) => {
                    open.insert(id);
                    trees.push((*id, node));
                }
                None => drop(open.insert(id)),
            }
        }
        // Without hits no node is left that they could lead to.
        let kept = self.known.trees.iter().zip(&self.known.tree_nodes).filter(|_| learnt.is_some());
        trees.extend(kept.map(|(id, node)| (id.to_owned(), *node)));
        trees.sort_unstable();
        trees.dedup_by_key(|(id, _)| *id);
        for (id, node) in &trees {
            next.trees.push(id);
            next.tree_nodes.push(*node);
        }
        self.settle(&mut next, &open);
        match learnt {
            Some(learnt) => (next.nodes, next.names) = (learnt.nodes, learnt.names),
            None => (next.nodes, next.names) = (vec![Node::default()], Vec::new()),
        }
        next.blobs = Ids::of(hash.len_in_bytes(), self.sightings.blobs.iter().map(|blob| blob.id.as_ref()));
        if let Err(error) = next.save(path, hash, rules) {
            let why = format!("cannot be written: {}; the next scan takes as long as this one", error.kind());
            self.scan.troubles.add(path.display().to_string(), why);
        }
    }

    /// Lists all objects that need no look: all that are not `open`, nor trees of which something is known.
    fn settle(&self, next: &mut Known, open: &HashSet<&oid>) {
        let is_settled = |id: &oid| !open.contains(id) && self.known.trees.find(id).is_none();
        for pack in &self.objects.packs {
            let ids = (0..pack.len()).map(|place| pack.id(place));
            ids.filter(|id| is_settled(id)).for_each(|id| next.settled.push(id));
        }
        self.loose.all.iter().filter(|id| is_settled(id)).for_each(|id| next.settled.push(id));
        next.settled = std::mem::take(&mut next.settled).sorted();
        for (pack, seen) in self.objects.packs.iter().zip(&self.packs) {
            seen.commits.iter().for_each(|place| next.commits.push(pack.id(*place)));
        }
        self.loose.commits.iter().for_each(|id| next.commits.push(id));
        self.known.commits.iter().for_each(|id| next.commits.push(id));
        next.commits = std::mem::take(&mut next.commits).sorted();
    }
}

/// One thread that searches loose objects.
struct LooseThread<'t> {
    scan: &'t Scan<'t>,
    /// What is looked into comes one at a time, for unpacking needs memory of its own.
    opened: &'t Mutex<()>,
    searcher: Searcher<'t>,
    done: Done,
    sightings: Sightings,
    seen: LooseSeen,
}

impl<'t> LooseThread<'t> {
    fn new(scan: &'t Scan<'t>, values: &'t Values<'t>, opened: &'t Mutex<()>) -> Self {
        let searcher = Searcher::new(scan.engine, values);
        let (done, sightings, seen) = (Done::default(), Sightings::default(), LooseSeen::default());
        Self { scan, opened, searcher, done, sightings, seen }
    }

    fn object(&mut self, id: ObjectId, path: &Path) {
        let Some(object) = Loose::open(path) else { return self.give_up(id) };
        match object.kind {
            Kind::Blob => self.blob(id, object),
            Kind::Commit => self.seen.commits.push(id),
            Kind::Tree => self.seen.trees.push(id),
            Kind::Tag => {}
        }
    }

    fn blob(&mut self, id: ObjectId, object: Loose) {
        let len = object.len;
        match self.search(id, object) {
            Ok(true) => self.done.binaries += 1,
            Ok(false) => self.done.texts += 1,
            Err(_) => return self.give_up(id),
        }
        self.done.bytes += len;
    }

    /// Searches a blob; gives whether it is no text.
    fn search(&mut self, id: ObjectId, mut object: Loose) -> io::Result<bool> {
        let mut bytes = Vec::new();
        (&mut object.content).take(BEGINNING).read_to_end(&mut bytes)?;
        let is_binary = is_binary(&bytes);
        if inside::holds_more(&bytes) {
            let _alone = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            let content = bytes.as_slice().chain(object.content);
            let looked = Looker::keep(self.scan, &mut self.searcher, &format!("object {id}"), content);
            self.sightings.add_looked(id, looked);
            self.done.opened += 1;
        } else if is_binary {
            // To its end, for what is broken is told.
            io::copy(&mut object.content, &mut io::sink())?;
        } else if object.len > STREAMED {
            let (mut seen, mut listed, values) = (Vec::new(), Listed::default(), self.searcher.values);
            let content = bytes.as_slice().chain(object.content);
            self.searcher.search_stream(content, |sighting| {
                if listed.takes(sighting.known.value, values) {
                    seen.push(sighting);
                }
            })?;
            self.sightings.add_streamed(id, &seen);
        } else {
            object.content.read_to_end(&mut bytes)?;
            let known = self.searcher.search(&bytes, None);
            if !known.is_empty() {
                self.sightings.add(id, &bytes, &known);
            }
        }
        Ok(is_binary)
    }

    fn give_up(&mut self, id: ObjectId) {
        self.scan.troubles.add(format!("object {id}"), BROKEN);
        self.sightings.unread.push(id);
    }
}

/// Runs the same on all threads and collects what comes of it.
fn on_all_threads<T: Send>(scan: &Scan<'_>, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..scan.threads.get()).map(|_| scope.spawn(&work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Adds the places of one file, of which all versions are given.
fn tell_file(
    versions: &[Trace],
    blobs: &[SeenBlob],
    history: &trace::History,
    reader: &mut Reader<'_>,
    values: &Values<'_>,
) {
    let has = |trace: &&Trace, value| blobs[trace.blob as usize].seen.iter().any(|seen| seen.value == value);
    let mut found: Vec<u32> = versions
        .iter()
        .flat_map(|trace| blobs[trace.blob as usize].seen.iter().map(|seen| seen.value))
        .collect();
    found.sort_unstable();
    found.dedup();
    for value in found {
        let with_value: Vec<&Trace> = versions.iter().filter(|trace| has(trace, value)).collect();
        let newest = with_value.iter().max_by_key(|trace| (trace.standing == Standing::Head, trace.last));
        let Some(newest) = newest else { continue };
        let first =
            with_value.iter().map(|trace| trace.first).min().map(|commit| history.commit_ref(reader, commit));
        let last =
            with_value.iter().map(|trace| trace.last).max().map(|commit| history.commit_ref(reader, commit));
        let standing = with_value.iter().map(|trace| &trace.standing).min().unwrap_or(&newest.standing);
        let blob = &blobs[newest.blob as usize];
        let historic = Historic {
            path: String::from_utf8_lossy(&newest.path).into_owned(),
            blob: blob.id.to_string(),
            versions: with_value.len() as u32,
            standing: standing.clone(),
            first,
            last,
        };
        add_places(blob, value, &historic, values);
    }
}

/// A blob that no commit has.
fn tell_lost(blob: &SeenBlob, values: &Values<'_>) {
    let historic = Historic {
        path: String::new(),
        blob: blob.id.to_string(),
        versions: 1,
        standing: Standing::Unreachable,
        first: None,
        last: None,
    };
    let mut found: Vec<u32> = blob.seen.iter().map(|seen| seen.value).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().for_each(|value| add_places(blob, value, &historic, values));
}

fn add_places(blob: &SeenBlob, value: u32, historic: &Historic, values: &Values<'_>) {
    let source = Source::History(Box::new(historic.clone()));
    for seen in blob.seen.iter().filter(|seen| seen.value == value) {
        values.add_place(value, seen.place_in(&source));
    }
}

const BROKEN: &str = "is a broken loose object; `git fsck` says more";
/// As far as a NUL is looked for; the marks of archives stand before that.
const BEGINNING: u64 = 8000;
/// Longer loose blobs are not taken into memory.
const STREAMED: u64 = 8 << 20;
