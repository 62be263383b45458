//! Where blobs stand in a history: paths, the first and the last commit, and whether they are still in use.
//!
//! It is done only for blobs with hits, and reads each tree once however many commits have it: what of interest stands
//! below a tree depends on the tree alone. Trees with the same of it below are one *node*, and there are few of them.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use gix_hash::{ObjectId, oid};

use super::known::{Known, Node};
use super::object::{Commit, Kind, Mode, author, commit, tag_target, title, tree_entries};
use super::objects::{Objects, Reader};
use super::repository::Tips;
use crate::place::{CommitRef, Standing};
use crate::progress::{Phase, Progress};
use crate::trouble::Troubles;

/// Where one blob stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The blob, by its number in what was asked for.
    pub blob: u32,
    pub path: Vec<u8>,
    pub standing: Standing,
    /// The oldest commit that has it there, and the newest; by their number in [`History`].
    pub first: u32,
    pub last: u32,
}

/// All commits, oldest first.
pub(crate) struct History {
    /// Sorted by id.
    commits: Vec<(ObjectId, Commit)>,
    /// Numbers in `commits`, oldest first.
    order: Vec<u32>,
    reach: Vec<Reach>,
    head: Option<u32>,
    /// Names of refs by what they lead to.
    tips: HashMap<u32, String>,
}

/// What leads to a commit: the first of these that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Ref,
    Stash,
    Reflog,
    Nothing,
}

impl History {
    /// Reads all commits, of which `packed` are the places in each pack, but for those that were read before.
    pub fn read(
        objects: &Objects,
        known: &Known,
        packed: &[Vec<u32>],
        loose: &[ObjectId],
        tips: &Tips,
        troubles: &Troubles,
    ) -> Self {
        let mut reader = Reader::new(objects);
        let mut commits: Vec<(ObjectId, Commit)> = Vec::new();
        let mut add = |id: ObjectId, found: Option<Commit>| match found {
            Some(found) => commits.push((id, found)),
            None => troubles.add(format!("commit {id}"), "cannot be read; `git fsck` says more"),
        };
        for (number, (pack, places)) in objects.packs.iter().zip(packed).enumerate() {
            let mut places: Vec<(u64, u32)> =
                places.iter().map(|place| (pack.offset(*place), *place)).collect();
            // In the order of the file.
            places.sort_unstable();
            for (offset, place) in places {
                let id = pack.id(place);
                let read = || reader.with_packed(number, offset, commit).flatten();
                add(id.to_owned(), known.parsed.get(id).or_else(read));
            }
        }
        for id in loose {
            let read = || reader.read(id).and_then(|(_, bytes)| commit(&bytes));
            add(*id, known.parsed.get(id).or_else(read));
        }
        commits.sort_by_key(|(id, _)| *id);
        commits.dedup_by_key(|(id, _)| *id);
        Self::of(commits, &mut reader, tips)
    }

    fn of(commits: Vec<(ObjectId, Commit)>, reader: &mut Reader<'_>, tips: &Tips) -> Self {
        let number = |id: &oid| commits.binary_search_by(|(other, _)| other.as_ref().cmp(id)).ok();
        let parents: Vec<Vec<u32>> = commits
            .iter()
            .map(|(_, commit)| commit.parents.iter().filter_map(|id| number(id)).map(|n| n as u32).collect())
            .collect();
        // Only what is no commit has to be read: a tag.
        let mut peel = |id: &ObjectId| number(id).or_else(|| number(&peeled(*id, reader)));
        let head = tips.head.as_ref().and_then(&mut peel);
        let refs: Vec<(usize, &str)> =
            tips.refs.iter().filter_map(|(name, id)| Some((peel(id)?, name.as_str()))).collect();
        let mut reach = vec![Reach::Nothing; commits.len()];
        mark(refs.iter().map(|(commit, _)| *commit).chain(head), Reach::Ref, &parents, &mut reach);
        mark(tips.stashes.iter().filter_map(&mut peel), Reach::Stash, &parents, &mut reach);
        mark(tips.reflogs.iter().filter_map(&mut peel), Reach::Reflog, &parents, &mut reach);

        let order = oldest_first(&commits, &parents);
        let mut rank = vec![0u32; commits.len()];
        for (position, commit) in order.iter().enumerate() {
            rank[*commit as usize] = position as u32;
        }
        let mut names: HashMap<u32, String> = HashMap::new();
        for (commit, name) in refs {
            names.entry(rank[commit]).or_insert_with(|| short_name(name));
        }
        let head = head.map(|commit| rank[commit]);
        let reach = order.iter().map(|commit| reach[*commit as usize]).collect();
        Self { commits, order, reach, head, tips: names }
    }

    /// All commits, sorted by id.
    pub fn commits(&self) -> &[(ObjectId, Commit)] {
        &self.commits
    }

    /// A commit by its number, oldest first.
    fn commit(&self, number: u32) -> &(ObjectId, Commit) {
        &self.commits[self.order[number as usize] as usize]
    }

    /// Finds all places of `blobs`, which are sorted, and what it learnt of trees.
    pub fn trace(
        &self,
        objects: &Objects,
        known: &Known,
        blobs: &[ObjectId],
        progress: &dyn Progress,
        troubles: &Troubles,
    ) -> (Vec<Trace>, Learnt) {
        progress.begin(Phase::Tracing, self.order.len() as u64);
        let mut trees = Trees::new(objects, known, blobs, troubles);
        let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
        // The newest first: that is the order in which packs keep them whole.
        for commit in (0..self.order.len() as u32).rev() {
            if progress.is_cancelled() {
                break;
            }
            progress.advance(1);
            let node = trees.node(&self.commit(commit).1.tree, 0);
            if node != NOTHING {
                let span = self.span(commit);
                spans.entry(node).and_modify(|known| known.merge(&span)).or_insert(span);
            }
        }
        let (places, learnt) = (trees.places(spans), trees.learnt());
        (places.into_iter().map(|(path, blob, span)| self.told(path, blob, span)).collect(), learnt)
    }

    /// What a report tells of a commit.
    pub fn commit_ref(&self, reader: &mut Reader<'_>, commit: u32) -> CommitRef {
        let id = self.commit(commit).0;
        let bytes = reader.read(&id).map(|(_, bytes)| bytes).unwrap_or_default();
        let author = author(&bytes);
        let seconds = author.as_ref().map_or(0, |author| author.seconds);
        let author = author.map(|author| format!("{} <{}>", author.name, author.email)).unwrap_or_default();
        CommitRef { id: id.to_string(), author, authored: seconds, title: title(&bytes) }
    }

    fn span(&self, commit: u32) -> Span {
        Span {
            first: commit,
            last: commit,
            reach: self.reach[commit as usize],
            in_head: self.head == Some(commit),
            tip: self.tips.contains_key(&commit).then_some(commit),
        }
    }

    fn told(&self, path: Vec<u8>, blob: u32, span: Span) -> Trace {
        let tip = span.tip.and_then(|commit| self.tips.get(&commit));
        let standing = match (span.in_head, tip, span.reach) {
            (true, ..) => Standing::Head,
            (_, Some(name), _) => Standing::Tip(name.clone()),
            (.., Reach::Ref) => Standing::History,
            (.., Reach::Stash) => Standing::Stash,
            (.., Reach::Reflog) => Standing::Reflog,
            (.., Reach::Nothing) => Standing::Unreachable,
        };
        Trace { blob, path, standing, first: span.first, last: span.last }
    }
}

/// What an annotated tag leads to in the end.
fn peeled(mut id: ObjectId, reader: &mut Reader<'_>) -> ObjectId {
    for _ in 0..LONGEST_CHAIN_OF_TAGS {
        match reader.read(&id) {
            Some((Kind::Tag, bytes)) => match tag_target(&bytes) {
                Some(target) => id = target,
                None => return id,
            },
            _ => return id,
        }
    }
    id
}

/// Marks all that `from` leads to and nothing marked before did.
fn mark(from: impl Iterator<Item = usize>, as_what: Reach, parents: &[Vec<u32>], reach: &mut [Reach]) {
    let mut next: Vec<usize> = from.collect();
    while let Some(commit) = next.pop() {
        if reach[commit] == Reach::Nothing {
            reach[commit] = as_what;
            next.extend(parents[commit].iter().map(|parent| *parent as usize));
        }
    }
}

/// Parents before children, and the older first where neither is the other's parent.
fn oldest_first(commits: &[(ObjectId, Commit)], parents: &[Vec<u32>]) -> Vec<u32> {
    let mut waiting = vec![0u32; commits.len()];
    let mut children = vec![Vec::new(); commits.len()];
    for (commit, parents) in parents.iter().enumerate() {
        waiting[commit] = parents.len() as u32;
        for parent in parents {
            children[*parent as usize].push(commit as u32);
        }
    }
    let key = |commit: u32| std::cmp::Reverse((commits[commit as usize].1.committed, commit));
    let ready = (0..commits.len() as u32).filter(|commit| waiting[*commit as usize] == 0);
    let mut ready: BinaryHeap<_> = ready.map(key).collect();
    let mut order = Vec::with_capacity(commits.len());
    while let Some(std::cmp::Reverse((_, commit))) = ready.pop() {
        order.push(commit);
        for child in &children[commit as usize] {
            waiting[*child as usize] -= 1;
            if waiting[*child as usize] == 0 {
                ready.push(key(*child));
            }
        }
    }
    order
}

fn short_name(name: &str) -> String {
    let prefixes = ["refs/heads/", "refs/tags/", "refs/remotes/", "refs/"];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

/// The commits that have something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    first: u32,
    last: u32,
    reach: Reach,
    in_head: bool,
    tip: Option<u32>,
}

impl Span {
    fn merge(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.reach = self.reach.min(other.reach);
        self.in_head |= other.in_head;
        self.tip = self.tip.max(other.tip);
    }
}

/// What was learnt of trees: the number of the node of each.
pub(crate) struct Learnt {
    /// By place in each pack.
    pub packed: Vec<Vec<u32>>,
    pub loose: HashMap<ObjectId, u32>,
    pub nodes: Vec<Node>,
    pub names: Vec<Vec<u8>>,
    /// Whether every tree that was asked for could be read.
    pub complete: bool,
}

/// What of interest stands below trees.
struct Trees<'a> {
    objects: &'a Objects,
    known: &'a Known,
    reader: Reader<'a>,
    complete: bool,
    troubles: &'a Troubles,
    blobs: &'a [ObjectId],
    /// Which first two bytes the ids of blobs have.
    starts: super::pack::Bits,
    /// The node of each tree in a pack, by its place.
    packed: Vec<Vec<u32>>,
    loose: HashMap<ObjectId, u32>,
    nodes: Vec<Node>,
    numbers: HashMap<Node, u32>,
    names: Vec<Vec<u8>>,
    name_numbers: HashMap<Vec<u8>, u32>,
}

impl<'a> Trees<'a> {
    fn new(objects: &'a Objects, known: &'a Known, blobs: &'a [ObjectId], troubles: &'a Troubles) -> Self {
        let mut starts = super::pack::Bits::new(1 << 16);
        blobs.iter().for_each(|id| starts.set(start_of(id.as_bytes())));
        let nodes = nodes_of(known, blobs);
        let number = |(number, node): (usize, &Node)| (node.clone(), number as u32);
        Self {
            objects,
            known,
            complete: true,
            reader: Reader::new(objects),
            troubles,
            blobs,
            starts,
            packed: objects.packs.iter().map(|pack| vec![UNKNOWN; pack.len() as usize]).collect(),
            loose: HashMap::new(),
            // Of nodes that became the same the first counts.
            numbers: nodes.iter().enumerate().rev().map(number).collect(),
            nodes,
            names: known.names.clone(),
            name_numbers: known.names.iter().cloned().zip(0..).collect(),
        }
    }

    /// The node of a tree, of which all trees below are read that were not before.
    fn node(&mut self, id: &oid, depth: usize) -> u32 {
        let place = self.reader.in_pack(id);
        let known = match place {
            Some((pack, place)) => self.packed[pack][place as usize],
            None => self.loose.get(id).copied().unwrap_or(UNKNOWN),
        };
        if known != UNKNOWN {
            return known;
        }
        let node = match self.known.trees.find(id) {
            Some(index) => self.known.tree_nodes[index],
            None if self.known.settled.find(id).is_some() => NOTHING,
            None => self.read_node(id, place, depth),
        };
        match place {
            Some((pack, place)) => self.packed[pack][place as usize] = node,
            None => drop(self.loose.insert(id.to_owned(), node)),
        }
        node
    }

    fn read_node(&mut self, id: &oid, place: Option<(usize, u32)>, depth: usize) -> u32 {
        if depth > DEEPEST {
            self.complete = false;
            self.troubles.add(format!("tree {id}"), "is nested too deeply to be followed");
            return NOTHING;
        }
        let read = match place {
            Some((pack, place)) => self.reader.read_packed(pack, self.objects.packs[pack].offset(place)),
            None => self.reader.read(id),
        };
        let Some((Kind::Tree, bytes)) = read else {
            self.complete = false;
            self.troubles.add(format!("tree {id}"), "cannot be read; what stands in it has no path");
            return NOTHING;
        };
        let mut node = Node::default();
        for entry in tree_entries(&bytes, id.as_bytes().len()) {
            match entry.mode {
                Mode::Tree => {
                    let below = self.node(oid::from_bytes_unchecked(entry.id), depth + 1);
                    if below != NOTHING {
                        let name = self.name(entry.name);
                        node.trees.push((name, below));
                    }
                }
                Mode::File | Mode::Link => {
                    if let Some(blob) = self.blob(entry.id) {
                        let name = self.name(entry.name);
                        node.blobs.push((name, blob));
                    }
                }
                Mode::Submodule => {}
            }
        }
        let next = self.nodes.len() as u32;
        let number = *self.numbers.entry(node.clone()).or_insert(next);
        if number == next {
            self.nodes.push(node);
        }
        number
    }

    fn blob(&self, id: &[u8]) -> Option<u32> {
        if !self.starts.get(start_of(id)) {
            return None;
        }
        self.blobs.binary_search_by(|blob| blob.as_bytes().cmp(id)).ok().map(|number| number as u32)
    }

    fn name(&mut self, name: &[u8]) -> u32 {
        if let Some(number) = self.name_numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.name_numbers.insert(name.to_owned(), number);
        number
    }

    /// All paths below the roots, level by level, each with the commits that have it.
    fn places(&self, roots: BTreeMap<u32, Span>) -> Vec<(Vec<u8>, u32, Span)> {
        let mut level: BTreeMap<(Vec<u8>, u32), Span> =
            roots.into_iter().map(|(node, span)| ((Vec::new(), node), span)).collect();
        let mut found: BTreeMap<(Vec<u8>, u32), Span> = BTreeMap::new();
        while !level.is_empty() {
            let mut next: BTreeMap<(Vec<u8>, u32), Span> = BTreeMap::new();
            for ((path, node), span) in level {
                let node = &self.nodes[node as usize];
                let below = |name: u32| joined(&path, &self.names[name as usize]);
                let add = |list: &mut BTreeMap<_, Span>, key| {
                    list.entry(key).and_modify(|known| known.merge(&span)).or_insert_with(|| span.clone());
                };
                node.blobs.iter().for_each(|(name, blob)| add(&mut found, (below(*name), *blob)));
                node.trees.iter().for_each(|(name, tree)| add(&mut next, (below(*name), *tree)));
            }
            level = next;
        }
        found.into_iter().map(|((path, blob), span)| (path, blob, span)).collect()
    }

    fn learnt(self) -> Learnt {
        let Self { packed, loose, nodes, names, complete, .. } = self;
        Learnt { packed, loose, nodes, names, complete }
    }
}

/// The nodes of an earlier scan, with the numbers that blobs have now. A blob that is gone is left out.
fn nodes_of(known: &Known, blobs: &[ObjectId]) -> Vec<Node> {
    if known.nodes.is_empty() {
        return vec![Node::default()];
    }
    let now: Vec<Option<u32>> = known
        .blobs
        .iter()
        .map(|id| blobs.binary_search_by(|blob| blob.as_ref().cmp(id)).ok().map(|number| number as u32))
        .collect();
    let renumbered = |node: &Node| {
        let blobs = node.blobs.iter().filter_map(|(name, blob)| Some((*name, now[*blob as usize]?)));
        Node { blobs: blobs.collect(), trees: node.trees.clone() }
    };
    known.nodes.iter().map(renumbered).collect()
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_owned() } else { [path, b"/", name].concat() }
}

fn start_of(id: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]]))
}

/// Nothing of interest.
pub(crate) const NOTHING: u32 = 0;
/// Not looked at.
pub(crate) const UNKNOWN: u32 = u32::MAX;
/// Deeper than anybody nests directories, and shallow enough for the stack.
const DEEPEST: usize = 512;
/// A tag on a tag on a tag.
const LONGEST_CHAIN_OF_TAGS: usize = 10;
