//! All objects of a repository: in packs, loose, and borrowed; reading any of them by its id.

use std::collections::HashMap;
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gix_hash::{ObjectId, oid};
use gix_zlib::Inflate;

use super::delta;
use super::inflating::Inflating;
use super::object::{Kind, loose_header};
use super::pack::{Content, Pack};
use super::repository::{Repository, entries_of};
use crate::trouble::Troubles;

/// Where all objects are.
pub(crate) struct Objects {
    pub packs: Vec<Pack>,
    pub loose_dirs: Vec<PathBuf>,
    pub hash: gix_hash::Kind,
}

impl Objects {
    /// Maps all packs. One that cannot be read is told, and left out.
    pub fn open(repository: &Repository, troubles: &Troubles) -> Self {
        let mut packs = Vec::new();
        for dir in &repository.object_dirs {
            if let Err(error) = fs::metadata(dir) {
                let why = format!("is borrowed from and cannot be read: {}", error.kind());
                troubles.add(dir.display().to_string(), why);
            }
            let files = entries_of(&dir.join("pack"), troubles);
            let has_extension = |path: &Path, wanted| path.extension().is_some_and(|found| found == wanted);
            for index in files.iter().filter(|path| has_extension(path, "idx")) {
                match Pack::open(index, repository.hash) {
                    Ok(pack) => packs.push(pack),
                    Err(why) => troubles.add(index.with_extension("pack").display().to_string(), why),
                }
            }
            for pack in files.iter().filter(|path| has_extension(path, "pack")) {
                if !pack.with_extension("idx").exists() {
                    let why = "has no index; `git index-pack` makes one";
                    troubles.add(pack.display().to_string(), why);
                }
            }
        }
        Self { packs, loose_dirs: repository.object_dirs.clone(), hash: repository.hash }
    }

    /// The first pack that has an object, and its place in the index.
    pub fn in_pack(&self, id: &oid) -> Option<(usize, u32)> {
        self.packs.iter().enumerate().find_map(|(number, pack)| Some((number, pack.find(id)?)))
    }

    /// Lists the loose objects that no pack has, each once. Directories that cannot be read are told.
    pub fn loose(&self, troubles: &Troubles) -> Vec<(ObjectId, PathBuf)> {
        let mut found = Vec::new();
        for dir in &self.loose_dirs {
            for first in entries_of(dir, troubles) {
                let Some(start) = first.file_name().and_then(|name| name.to_str()) else { continue };
                if start.len() != 2 {
                    continue;
                }
                for path in entries_of(&first, troubles) {
                    let rest = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    let id = ObjectId::from_hex(format!("{start}{rest}").as_bytes());
                    found.extend(id.ok().filter(|id| id.kind() == self.hash).map(|id| (id, path)));
                }
            }
        }
        found.sort();
        found.dedup_by_key(|(id, _)| *id);
        found.retain(|(id, _)| self.in_pack(id).is_none());
        found
    }
}

/// A loose object, of which only the header was read.
pub(crate) struct Loose {
    pub kind: Kind,
    pub len: u64,
    /// The content.
    pub content: Inflating<BufReader<fs::File>>,
}

impl Loose {
    /// Opens one. Nothing where it makes no sense.
    pub fn open(path: &Path) -> Option<Self> {
        let file = || fs::File::open(path).ok().map(BufReader::new);
        let mut header = [0; LONGEST_LOOSE_HEADER];
        let read = read_some(&mut Inflating::new(file()?, u64::MAX), &mut header);
        let (kind, len, start) = loose_header(&header[..read])?;
        let mut content = Inflating::new(file()?, len.checked_add(start as u64)?);
        content.read_exact(&mut header[..start]).ok()?;
        Some(Self { kind, len, content })
    }

    /// Reads all of the content. Nothing where it makes no sense, or is longer than `longest`.
    pub fn read(mut self, longest: u64) -> Option<Vec<u8>> {
        if self.len > longest {
            return None;
        }
        let mut bytes = Vec::new();
        self.content.read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == self.len).then_some(bytes)
    }
}

/// Reads until the buffer is full, the stream ends, or makes no sense.
fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => break,
        }
    }
    filled
}

/// The kind of an object, and its content.
type Object = (Kind, Rc<Vec<u8>>);

/// Reads objects one after the other, and remembers what others are likely to be deltas on.
pub(crate) struct Reader<'a> {
    objects: &'a Objects,
    inflate: Inflate,
    delta: Vec<u8>,
    /// By pack and offset.
    recent: HashMap<(usize, u64), Object>,
    remembered: usize,
    /// Where objects were that were asked for before.
    places: Vec<Option<(ObjectId, (usize, u32))>>,
}

impl<'a> Reader<'a> {
    pub fn new(objects: &'a Objects) -> Self {
        Self {
            objects,
            inflate: Inflate::default(),
            delta: Vec::new(),
            recent: HashMap::new(),
            remembered: 0,
            places: vec![None; PLACES],
        }
    }

    /// As [`Objects::in_pack`], quicker for what was asked before.
    pub fn in_pack(&mut self, id: &oid) -> Option<(usize, u32)> {
        let bytes = id.as_bytes();
        let slot = usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) % PLACES;
        if let Some((known, place)) = &self.places[slot]
            && known.as_ref() == id
        {
            return Some(*place);
        }
        let place = self.objects.in_pack(id)?;
        self.places[slot] = Some((id.to_owned(), place));
        Some(place)
    }

    /// Reads an object. Nothing where it is missing or broken, or longer than anything but a blob should be.
    pub fn read(&mut self, id: &oid) -> Option<Object> {
        match self.in_pack(id) {
            Some((pack, place)) => self.read_packed(pack, self.objects.packs[pack].offset(place)),
            None => self.read_loose(id),
        }
    }

    /// Reads the object of a pack that begins at `offset`.
    pub fn read_packed(&mut self, pack: usize, offset: u64) -> Option<Object> {
        let file = &self.objects.packs[pack];
        let mut chain = Vec::new();
        let mut at = offset;
        let (kind, mut bytes) = loop {
            if let Some((kind, bytes)) = self.recent.get(&(pack, at)) {
                break (*kind, Rc::clone(bytes));
            }
            let entry = file.entry(at).ok().filter(|entry| entry.len <= LONGEST)?;
            match entry.content {
                Content::Whole(kind) => {
                    let mut bytes = Vec::new();
                    file.inflate(&entry, &mut self.inflate, &mut bytes).ok()?;
                    break (kind, self.remember(pack, at, kind, bytes));
                }
                Content::Delta(base) if chain.len() < LONGEST_CHAIN => {
                    chain.push((at, entry));
                    at = base;
                }
                Content::Delta(_) => return None,
            }
        };
        while let Some((at, entry)) = chain.pop() {
            file.inflate(&entry, &mut self.inflate, &mut self.delta).ok()?;
            let mut result = Vec::new();
            delta::apply(&bytes, &self.delta, LONGEST as usize, &mut result, &mut Vec::new()).ok()?;
            bytes = self.remember(pack, at, kind, result);
        }
        Some((kind, bytes))
    }

    /// Lends the object of a pack that begins at `offset`, without remembering it where it is no delta.
    pub fn with_packed<T>(
        &mut self,
        pack: usize,
        offset: u64,
        use_bytes: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let file = &self.objects.packs[pack];
        let entry = file.entry(offset).ok().filter(|entry| entry.len <= LONGEST)?;
        if let Content::Delta(_) = entry.content {
            return self.read_packed(pack, offset).map(|(_, bytes)| use_bytes(&bytes));
        }
        file.inflate(&entry, &mut self.inflate, &mut self.delta).ok()?;
        Some(use_bytes(&self.delta))
    }

    /// A blob that is too long for [`Reader::read`], as it comes. Nothing where it is missing, broken or a delta.
    pub fn stream(&mut self, id: &oid) -> Option<Box<dyn Read + 'a>> {
        let Some((pack, place)) = self.in_pack(id) else {
            let loose = self.loose(id).filter(|loose| loose.kind == Kind::Blob)?;
            return Some(Box::new(loose.content));
        };
        let file = &self.objects.packs[pack];
        let entry = file.entry(file.offset(place)).ok()?;
        let is_whole = entry.content == Content::Whole(Kind::Blob);
        is_whole.then(|| Box::new(Inflating::new(file.compressed(&entry), entry.len)) as Box<dyn Read + 'a>)
    }

    fn read_loose(&self, id: &oid) -> Option<Object> {
        let loose = self.loose(id)?;
        let kind = loose.kind;
        Some((kind, Rc::new(loose.read(LONGEST)?)))
    }

    fn loose(&self, id: &oid) -> Option<Loose> {
        let hex = id.to_string();
        let (start, rest) = hex.split_at(2);
        self.objects.loose_dirs.iter().find_map(|dir| Loose::open(&dir.join(start).join(rest)))
    }

    fn remember(&mut self, pack: usize, offset: u64, kind: Kind, bytes: Vec<u8>) -> Rc<Vec<u8>> {
        let bytes = Rc::new(bytes);
        if self.remembered + bytes.len() > REMEMBERED {
            self.recent.clear();
            self.remembered = 0;
        }
        if bytes.len() <= REMEMBERED / 8 {
            self.remembered += bytes.len() + PER_ENTRY;
            self.recent.insert((pack, offset), (kind, Rc::clone(&bytes)));
        }
        bytes
    }
}

const LONGEST_LOOSE_HEADER: usize = 32;
/// No tree or commit that anybody made on purpose is longer.
const LONGEST: u64 = 64 << 20;
/// As git: `pack.depth` is 4095 at most.
const LONGEST_CHAIN: usize = 4096;
/// What is remembered of trees.
const REMEMBERED: usize = 48 << 20;
/// What an entry costs beside its bytes.
const PER_ENTRY: usize = 96;
const PLACES: usize = 1 << 16;
