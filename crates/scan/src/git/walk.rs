//! Reads the blobs of a pack, each once, on all processors, and has them searched.
//!
//! Deltas are applied from the roots down. What a delta was applied to is kept while something else still hangs on it:
//! the heaviest child comes last, when nothing else needs the parent any more, so a thread keeps as many texts as the
//! logarithm of the versions at most. Where that is too much all the same, texts are given up and made again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use gix_hash::ObjectId;
use gix_zlib::Inflate;

use super::delta::{self, Copied, DeltaError};
use super::inflating::Inflating;
use super::pack::{Content, Entry, EntryError, Forest, Pack};
use super::sightings::Sightings;
use crate::finding::{Known, Listed};
use crate::inside;
use crate::look::Looker;
use crate::scan::Scan;
use crate::text::{Before, Searcher, is_binary};

/// What the threads of a walk share.
pub(crate) struct Walk<'a> {
    pub pack: &'a Pack,
    pub forest: &'a Forest,
    pub scan: &'a Scan<'a>,
    /// Whether of a delta only what is new is searched.
    pub delta_aware: bool,
    next_root: AtomicUsize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    idle: AtomicUsize,
    held: Arc<AtomicUsize>,
    /// One at a time, so that memory is bounded by the largest and not by the number of threads.
    large: Mutex<()>,
    /// The same of what is looked into, which may need memory to unpack.
    opened: Mutex<()>,
    stopped: AtomicBool,
}

/// What has no thread yet.
#[derive(Default)]
struct Waiting {
    pending: Vec<Pending>,
    idle: usize,
}

/// A delta that is to be applied.
struct Pending {
    node: u32,
    parent: u32,
    /// Nothing where it was given up.
    base: Option<Arc<Text>>,
}

/// A blob in memory.
struct Text {
    bytes: Vec<u8>,
    /// What was found in it; nothing where it was not searched.
    known: Option<Vec<Known>>,
    held: Arc<AtomicUsize>,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
    }
}

/// What a thread has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// Blobs that were searched.
    pub texts: u64,
    /// Blobs that are no text.
    pub binaries: u64,
    /// Blobs that were looked into, text or not.
    pub opened: u64,
    /// The bytes of both.
    pub bytes: u64,
    /// How often a text was made again.
    pub remade: u64,
}

impl<'a> Walk<'a> {
    pub fn new(pack: &'a Pack, forest: &'a Forest, scan: &'a Scan<'a>, delta_aware: bool) -> Self {
        Self {
            pack,
            forest,
            scan,
            delta_aware,
            next_root: AtomicUsize::new(0),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            idle: AtomicUsize::new(0),
            held: Arc::default(),
            large: Mutex::default(),
            opened: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Works until nothing is left; each thread calls it once.
    pub fn work(&self, searcher: &mut Searcher<'_>, sightings: &mut Sightings) -> Done {
        let mut thread = Thread {
            walk: self,
            searcher,
            sightings,
            inflate: Inflate::default(),
            delta: Vec::new(),
            copied: Vec::new(),
            children: Vec::new(),
            spare: Vec::new(),
            stack: Vec::new(),
            done: Done::default(),
        };
        loop {
            if self.scan.progress.is_cancelled() {
                self.stopped.store(true, Ordering::Relaxed);
                self.changed.notify_all();
                return thread.done;
            }
            if let Some(pending) = thread.stack.pop() {
                thread.child(pending);
            } else if let Some(root) = self.next_root() {
                thread.root(root);
            } else if let Some(pending) = self.wait() {
                thread.stack.push(pending);
            } else {
                return thread.done;
            }
        }
    }

    fn next_root(&self) -> Option<u32> {
        let next = self.next_root.fetch_add(1, Ordering::Relaxed);
        self.forest.roots.get(next).copied()
    }

    /// Waits for work of another thread; nothing when all wait.
    fn wait(&self) -> Option<Pending> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.idle += 1;
        self.idle.store(waiting.idle, Ordering::Relaxed);
        loop {
            if let Some(pending) = waiting.pending.pop() {
                waiting.idle -= 1;
                self.idle.store(waiting.idle, Ordering::Relaxed);
                return Some(pending);
            }
            if waiting.idle == self.scan.threads.get() || self.stopped.load(Ordering::Relaxed) {
                self.changed.notify_all();
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One thread of a walk.
struct Thread<'w, 's, 'v> {
    walk: &'w Walk<'w>,
    searcher: &'s mut Searcher<'v>,
    sightings: &'s mut Sightings,
    inflate: Inflate,
    delta: Vec<u8>,
    copied: Vec<Copied>,
    children: Vec<u32>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    stack: Vec<Pending>,
    done: Done,
}

impl Thread<'_, '_, '_> {
    fn root(&mut self, node: u32) {
        if let Err(error) = self.try_root(node) {
            self.give_up(node, &error);
        }
    }

    fn try_root(&mut self, node: u32) -> Result<(), EntryError> {
        let walk = self.walk;
        let entry = walk.pack.entry(walk.forest.offset(node))?;
        let _alone = is_large(entry.len).then(|| walk.large.lock().unwrap_or_else(PoisonError::into_inner));
        walk.forest.children(node, &mut self.children);
        let is_leaf = self.children.is_empty();
        if is_leaf && entry.len > LOOKED_INTO_FIRST {
            self.read_beginning(&entry)?;
            let holds_more = inside::holds_more(&self.delta);
            if !holds_more && is_binary(&self.delta) {
                self.count_binary(entry.len);
                return Ok(());
            }
            if is_large(entry.len) {
                return self.stream(node, &entry, holds_more);
            }
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        limit(entry.len)?;
        let inflated = walk.pack.inflate(&entry, &mut self.inflate, &mut bytes);
        inflated.inspect_err(|_| self.spare.push(Vec::new()))?;
        let known = self.look_at(node, &bytes, None);
        self.keep(node, bytes, known);
        Ok(())
    }

    fn child(&mut self, mut pending: Pending) {
        let node = pending.node;
        let outcome = match pending.base.take() {
            Some(base) => self.apply(node, base),
            None => self.remake(pending.parent).and_then(|base| {
                let siblings = self.stack.iter_mut().rev().take_while(|other| other.parent == pending.parent);
                siblings.for_each(|sibling| sibling.base = Some(Arc::clone(&base)));
                self.apply(node, base)
            }),
        };
        if let Err(error) = outcome {
            self.give_up(node, &error);
        }
    }

    fn apply(&mut self, node: u32, base: Arc<Text>) -> Result<(), EntryError> {
        let walk = self.walk;
        let entry = walk.pack.entry(walk.forest.offset(node))?;
        limit(entry.len)?;
        walk.pack.inflate(&entry, &mut self.inflate, &mut self.delta)?;
        let (_, len, _) = delta::lengths(&self.delta).map_err(|_| EntryError::Delta)?;
        let _alone = is_large(len).then(|| walk.large.lock().unwrap_or_else(PoisonError::into_inner));
        let mut bytes = self.spare.pop().unwrap_or_default();
        apply(&base.bytes, &self.delta, &mut bytes, &mut self.copied)?;
        let known = self.look_at(node, &bytes, Some(&base));
        // The last that needed the base gives its memory to whoever comes next.
        if let Ok(mut text) = Arc::try_unwrap(base) {
            walk.held.fetch_sub(text.bytes.capacity(), Ordering::Relaxed);
            let bytes = std::mem::take(&mut text.bytes);
            self.reuse(bytes);
        }
        walk.forest.children(node, &mut self.children);
        self.keep(node, bytes, known);
        Ok(())
    }

    /// Searches a blob, if it is wanted and a text.
    fn look_at(&mut self, node: u32, bytes: &[u8], base: Option<&Text>) -> Option<Vec<Known>> {
        let walk = self.walk;
        if !walk.forest.is_wanted(node) {
            return None;
        }
        if inside::holds_more(bytes) {
            self.look_into(node, bytes);
            self.count_looked_into(is_binary(bytes), bytes.len() as u64);
            return None;
        }
        if is_binary(bytes) {
            self.count_binary(bytes.len() as u64);
            return None;
        }
        let before = base.filter(|_| walk.delta_aware).and_then(|base| {
            let known = base.known.as_deref()?;
            Some(Before { text: &base.bytes, known, copied: &self.copied })
        });
        let known = self.searcher.search(bytes, before);
        self.count_text(bytes.len() as u64);
        if !known.is_empty() {
            self.sightings.add(self.id(node), bytes, &known);
        }
        Some(known)
    }

    /// Puts the children of a node on the stack, of which `children` is the list, heaviest first.
    fn keep(&mut self, node: u32, mut bytes: Vec<u8>, known: Option<Vec<Known>>) {
        if self.children.is_empty() {
            self.reuse(bytes);
            return;
        }
        // Room to grow is for buffers that are used again at once.
        bytes.shrink_to(bytes.len() + bytes.len() / 4);
        self.walk.held.fetch_add(bytes.capacity(), Ordering::Relaxed);
        let text = Arc::new(Text { bytes, known, held: Arc::clone(&self.walk.held) });
        let pending = |child: &u32| Pending { node: *child, parent: node, base: Some(Arc::clone(&text)) };
        self.stack.extend(self.children.iter().map(pending));
        drop(text);
        self.share();
        self.hold_less();
    }

    /// Hands work to threads that have none: what was to come last, which is the heaviest.
    fn share(&mut self) {
        let walk = self.walk;
        if walk.idle.load(Ordering::Relaxed) == 0 || self.stack.len() < 2 {
            return;
        }
        let mut waiting = walk.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pending.extend(self.stack.drain(..self.stack.len() / 2));
        walk.changed.notify_all();
    }

    /// Gives up texts that are needed last while too much is held.
    fn hold_less(&mut self) {
        let held = || self.walk.held.load(Ordering::Relaxed);
        let last = self.stack.len().saturating_sub(1);
        for pending in &mut self.stack[..last] {
            if held() <= HELD_AT_MOST {
                return;
            }
            pending.base = None;
        }
    }

    /// Makes a text again that was given up.
    fn remake(&mut self, node: u32) -> Result<Arc<Text>, EntryError> {
        let walk = self.walk;
        let (mut bytes, mut base) = (Vec::new(), Vec::new());
        for step in walk.forest.chain(walk.pack, node)? {
            let entry = walk.pack.entry(walk.forest.offset(step))?;
            limit(entry.len)?;
            match entry.content {
                Content::Whole(_) => walk.pack.inflate(&entry, &mut self.inflate, &mut bytes)?,
                Content::Delta(_) => {
                    std::mem::swap(&mut bytes, &mut base);
                    walk.pack.inflate(&entry, &mut self.inflate, &mut self.delta)?;
                    apply(&base, &self.delta, &mut bytes, &mut self.copied)?;
                }
            }
        }
        self.done.remade += 1;
        walk.held.fetch_add(bytes.capacity(), Ordering::Relaxed);
        Ok(Arc::new(Text { bytes, known: None, held: Arc::clone(&walk.held) }))
    }

    /// Looks into an archive, a document, a database.
    fn look_into(&mut self, node: u32, stream: impl std::io::Read) {
        let (walk, id) = (self.walk, self.id(node));
        let _alone = walk.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = Looker::keep(walk.scan, self.searcher, &format!("object {id}"), stream);
        self.sightings.add_looked(id, looked);
    }

    /// Reads as much of a blob as says whether the rest has to be inflated; it is in `delta` then.
    fn read_beginning(&mut self, entry: &Entry) -> Result<(), EntryError> {
        self.delta.resize(BEGINNING, 0);
        self.inflate.reset();
        let compressed = self.walk.pack.compressed(entry);
        let (.., written) =
            self.inflate.once(compressed, &mut self.delta).map_err(|_| EntryError::Inflate)?;
        self.delta.truncate(written);
        Ok(())
    }

    /// Searches a blob that does not fit into memory well, and that nothing hangs on.
    fn stream(&mut self, node: u32, entry: &Entry, holds_more: bool) -> Result<(), EntryError> {
        let mut reader = Inflating::new(self.walk.pack.compressed(entry), entry.len);
        if holds_more {
            let is_binary = is_binary(&self.delta);
            self.look_into(node, reader);
            self.count_looked_into(is_binary, entry.len);
            return Ok(());
        }
        let (mut seen, mut listed, values) = (Vec::new(), Listed::default(), self.searcher.values);
        let streamed = self.searcher.search_stream(&mut reader, |sighting| {
            if listed.takes(sighting.known.value, values) {
                seen.push(sighting);
            }
        });
        streamed.map_err(|_| EntryError::Inflate)?;
        self.count_text(entry.len);
        self.sightings.add_streamed(self.id(node), &seen);
        Ok(())
    }

    /// Tells of all that cannot be read because `node` cannot.
    fn give_up(&mut self, node: u32, error: &EntryError) {
        let (walk, mut nodes) = (self.walk, vec![node]);
        while let Some(at) = nodes.pop() {
            walk.forest.children(at, &mut self.children);
            nodes.extend(&self.children);
            if walk.forest.is_wanted(at) {
                let why = if at == node { error.to_string() } else { LOST_BASE.to_owned() };
                walk.scan.troubles.add(format!("object {}", self.id(at)), why);
                self.sightings.unread.push(self.id(at));
                walk.scan.progress.advance(1);
            }
        }
    }

    fn id(&self, node: u32) -> ObjectId {
        self.walk.pack.id(self.walk.forest.place(node)).to_owned()
    }

    fn count_looked_into(&mut self, is_binary: bool, bytes: u64) {
        self.done.opened += 1;
        if is_binary { self.count_binary(bytes) } else { self.count_text(bytes) }
    }

    fn count_text(&mut self, bytes: u64) {
        self.done.texts += 1;
        self.done.bytes += bytes;
        self.walk.scan.progress.advance(1);
    }

    fn count_binary(&mut self, bytes: u64) {
        self.done.binaries += 1;
        self.done.bytes += bytes;
        self.walk.scan.progress.advance(1);
    }

    fn reuse(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= LARGEST_SPARE && self.spare.len() < MOST_SPARE {
            self.spare.push(bytes);
        }
    }
}

fn apply(base: &[u8], delta: &[u8], bytes: &mut Vec<u8>, copied: &mut Vec<Copied>) -> Result<(), EntryError> {
    delta::apply(base, delta, LONGEST_IN_MEMORY, bytes, copied).map_err(|error| match error {
        DeltaError::TooLarge(_) => EntryError::TooLarge,
        _ => EntryError::Delta,
    })
}

fn limit(len: u64) -> Result<(), EntryError> {
    if len > LONGEST_IN_MEMORY as u64 { Err(EntryError::TooLarge) } else { Ok(()) }
}

fn is_large(len: u64) -> bool {
    len > LARGE
}

const LOST_BASE: &str = "is a delta on an object that cannot be read";
/// What texts may hold together that something hangs on, of all threads.
const HELD_AT_MOST: usize = 64 << 20;
/// Longer blobs are worked on one at a time, and streamed where nothing hangs on them.
const LARGE: u64 = 8 << 20;
/// Git makes no delta of what is longer than 512 MiB (`core.bigFileThreshold`), unless told to.
const LONGEST_IN_MEMORY: usize = 1 << 30;
/// Of longer blobs the beginning is looked at first: most of them are pictures and archives.
const LOOKED_INTO_FIRST: u64 = 32 << 10;
/// As far as a NUL is looked for; the marks of archives stand before that.
const BEGINNING: usize = 8000;
const LARGEST_SPARE: usize = 1 << 20;
const MOST_SPARE: usize = 4;
