//! A repository on the disk: where its parts are, which form it has, what points into it, and what of it is missing.
//!
//! It reads files only: no hook, filter or program that a repository names is ever run, and no lazy fetch is made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gix_hash::ObjectId;

use crate::trouble::Troubles;

/// A repository that was found.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Where `HEAD` and the index are; a linked worktree has its own.
    pub git_dir: PathBuf,
    /// Where refs and objects are.
    pub common_dir: PathBuf,
    /// The working tree, where there is one.
    pub worktree: Option<PathBuf>,
    /// The hash that names objects.
    pub hash: gix_hash::Kind,
    /// The directories with objects: its own, then those that it borrows from.
    pub object_dirs: Vec<PathBuf>,
    /// How many commits are there without their parents, because the clone was made that way.
    pub shallow: usize,
    /// Whether objects were left out when it was cloned, to be fetched when needed.
    pub partial: bool,
    /// Whether refs are kept in a form that is not read: then nothing is known to be in use.
    pub unread_refs: bool,
    /// What is staged. While git makes a commit of some files only, it is another file than usual.
    pub index: PathBuf,
}

/// Why a repository cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("`{0}` is not a git repository; name a directory with a `.git`, or a bare repository")]
    NotOne(PathBuf),
    /// A file that says where its parts are cannot be followed.
    #[error(
        "`{0}` does not lead to a git repository; `git worktree repair` or `git submodule update` mends it"
    )]
    Astray(PathBuf),
    /// Its objects are named by a hash that nobody here knows.
    #[error("`{0}` names its objects by `{1}`; sha1 and sha256 are known")]
    UnknownHash(PathBuf, String),
}

impl Repository {
    /// Opens the repository at `path`: a directory with `.git`, or the git directory itself.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let dot_git = path.join(".git");
        if dot_git.is_dir() {
            return Self::at(&dot_git, Some(path));
        }
        if dot_git.is_file() {
            let lead = fs::read_to_string(&dot_git).unwrap_or_default();
            let lead = lead.trim_end().strip_prefix("gitdir: ").map(|lead| path.join(lead));
            let lead = lead.filter(|lead| lead.is_dir()).ok_or(OpenError::Astray(dot_git))?;
            return Self::at(&lead, Some(path));
        }
        Self::at(path, None)
    }

    /// Opens the repository that `path` stands in: it or the nearest directory above.
    pub fn discover(path: &Path) -> Result<Self, OpenError> {
        for dir in path.ancestors() {
            if dir.join(".git").exists() {
                return Self::open(dir);
            }
        }
        Self::at(path, None)
    }

    fn at(git_dir: &Path, worktree: Option<&Path>) -> Result<Self, OpenError> {
        if !git_dir.join("HEAD").exists() {
            return Err(OpenError::NotOne(worktree.unwrap_or(git_dir).to_owned()));
        }
        let common_dir = match fs::read_to_string(git_dir.join("commondir")) {
            Ok(lead) => git_dir.join(lead.trim_end()),
            Err(_) => git_dir.to_owned(),
        };
        let objects = common_dir.join("objects");
        if !objects.is_dir() {
            return Err(OpenError::NotOne(worktree.unwrap_or(git_dir).to_owned()));
        }
        let config = Config::read(&common_dir.join("config"));
        let hash = match config.get("extensions.objectformat").unwrap_or("sha1") {
            "sha1" => gix_hash::Kind::Sha1,
            "sha256" => gix_hash::Kind::Sha256,
            other => return Err(OpenError::UnknownHash(common_dir, other.to_owned())),
        };
        let mut object_dirs = Vec::new();
        with_alternates(&objects, 0, &mut object_dirs);
        let shallow = fs::read_to_string(common_dir.join("shallow")).unwrap_or_default();
        Ok(Self {
            git_dir: git_dir.to_owned(),
            worktree: worktree.map(Path::to_owned),
            hash,
            shallow: shallow.lines().count(),
            partial: config.get("extensions.partialclone").is_some()
                || config.values.iter().any(|(key, value)| is_promisor(key, value)),
            unread_refs: config.get("extensions.refstorage").is_some_and(|form| form != "files"),
            index: git_dir.join("index"),
            object_dirs,
            common_dir,
        })
    }

    /// Where a scan may keep what it found out: in the git directory, so that it goes when the repository goes.
    pub fn known_file(&self) -> PathBuf {
        self.common_dir.join("keymoat/settled-objects")
    }

    /// Its submodules that were fetched, which are repositories of their own: their names and git directories.
    pub fn submodules(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        git_dirs_below(&self.common_dir.join("modules"), "", 0, &mut found);
        // A linked worktree has its own.
        for worktree in sorted_entries(&self.common_dir.join("worktrees")) {
            git_dirs_below(&worktree.join("modules"), "", 0, &mut found);
        }
        found.sort();
        found
    }

    /// What points into the history. A ref that cannot be read is told.
    pub fn tips(&self, troubles: &Troubles) -> Tips {
        // Whether it can be read at all; what stands in it may lead nowhere yet.
        content_of(&self.git_dir.join("HEAD"), troubles);
        let mut tips = Tips { head: self.head(&self.git_dir), ..Tips::default() };
        self.packed_refs(&mut tips, troubles);
        let mut dirs = vec![self.common_dir.clone()];
        dirs.extend(entries_of(&self.common_dir.join("worktrees"), troubles));
        for dir in dirs {
            if let Some(id) = self.head(&dir) {
                tips.refs.push(("HEAD".to_owned(), id));
            }
            self.loose_refs(&dir.join("refs"), "refs", &mut tips, troubles);
            self.reflogs(&dir.join("logs"), "logs", &mut tips, troubles);
        }
        // A loose ref wins over the packed one of its name.
        tips.refs.reverse();
        let mut seen = BTreeSet::new();
        tips.refs.retain(|(name, _)| name == "HEAD" || seen.insert(name.clone()));
        tips.refs.sort();
        tips
    }

    /// What `HEAD` in `dir` leads to; nothing before the first commit.
    fn head(&self, dir: &Path) -> Option<ObjectId> {
        let mut text = fs::read_to_string(dir.join("HEAD")).ok()?;
        for _ in 0..LONGEST_CHAIN_OF_REFS {
            let Some(name) = text.trim_end().strip_prefix("ref: ").map(str::to_owned) else {
                return self.id(text.trim_end());
            };
            match fs::read_to_string(self.common_dir.join(&name)) {
                Ok(next) => text = next,
                Err(_) => return self.packed_ref(&name),
            }
        }
        None
    }

    fn packed_ref(&self, name: &str) -> Option<ObjectId> {
        let mut tips = Tips::default();
        // What cannot be read was told.
        self.packed_refs(&mut tips, &Troubles::default());
        tips.refs.into_iter().find(|(packed, _)| packed == name).map(|(_, id)| id)
    }

    fn packed_refs(&self, tips: &mut Tips, troubles: &Troubles) {
        let bytes = content_of(&self.common_dir.join("packed-refs"), troubles);
        for line in String::from_utf8_lossy(&bytes).lines() {
            // `#` begins the header, `^` what the tag before leads to.
            if let Some((id, name)) = line.split_once(' ')
                && let Some(id) = self.id(id)
            {
                tips.add(name, id);
            }
        }
    }

    fn loose_refs(&self, dir: &Path, name: &str, tips: &mut Tips, troubles: &Troubles) {
        for path in entries_of(dir, troubles) {
            let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                self.loose_refs(&path, &name, tips, troubles);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            match self.id(text.trim_end()) {
                Some(id) => tips.add(&name, id),
                // `refs/remotes/origin/HEAD` leads to another ref.
                None if text.starts_with("ref: ") || name.ends_with(".lock") => {}
                None => troubles.add(name, "is not a ref; what only it leads to counts as unreachable"),
            }
        }
    }

    fn reflogs(&self, dir: &Path, name: &str, tips: &mut Tips, troubles: &Troubles) {
        for path in entries_of(dir, troubles) {
            let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                self.reflogs(&path, &name, tips, troubles);
                continue;
            }
            let bytes = content_of(&path, troubles);
            let hex = self.hash.len_in_hex();
            let ids = bytes.split(|byte| *byte == b'\n').flat_map(|line| {
                let id = |from: usize| std::str::from_utf8(line.get(from..from + hex)?).ok();
                [id(0), id(hex + 1)].into_iter().flatten().filter_map(|id| self.id(id)).collect::<Vec<_>>()
            });
            let list = if name == STASH_LOG { &mut tips.stashes } else { &mut tips.reflogs };
            list.extend(ids);
        }
    }

    /// An id of this repository's hash that is not all zeros.
    fn id(&self, hex: &str) -> Option<ObjectId> {
        let id = ObjectId::from_hex(hex.as_bytes()).ok()?;
        (id.kind() == self.hash && !id.is_null()).then_some(id)
    }
}

/// What points into a history.
#[derive(Debug, Default)]
pub struct Tips {
    /// What is checked out.
    pub head: Option<ObjectId>,
    /// Branches, tags, remote branches, notes, and what other worktrees have checked out.
    pub refs: Vec<(String, ObjectId)>,
    /// All stashes, also the dropped ones that the log still names.
    pub stashes: Vec<ObjectId>,
    /// What refs led to once.
    pub reflogs: Vec<ObjectId>,
}

impl Tips {
    fn add(&mut self, name: &str, id: ObjectId) {
        if name == "refs/stash" {
            self.stashes.push(id);
        } else {
            self.refs.push((name.to_owned(), id));
        }
    }
}

/// The values of a configuration file: `section.key` or `section.sub.key`, section and key in lower case.
struct Config {
    values: Vec<(String, String)>,
}

impl Config {
    fn read(path: &Path) -> Self {
        let text = fs::read(path).unwrap_or_default();
        let mut section = String::new();
        let mut values = Vec::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = match header.split_once(' ') {
                    Some((name, sub)) => format!("{}.{}", name.to_lowercase(), sub.trim_matches('"')),
                    None => header.to_lowercase(),
                };
            } else if !line.starts_with(['#', ';']) && !line.is_empty() {
                let (key, value) = line.split_once('=').unwrap_or((line, "true"));
                let value = value.trim().trim_matches('"').to_lowercase();
                values.push((format!("{section}.{}", key.trim().to_lowercase()), value));
            }
        }
        Self { values }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn is_promisor(key: &str, value: &str) -> bool {
    key.starts_with("remote.") && key.ends_with(".promisor") && value == "true"
}

/// `objects` and what it borrows from, each once.
fn with_alternates(objects: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let objects = fs::canonicalize(objects).unwrap_or_else(|_| objects.to_owned());
    if depth > DEEPEST_ALTERNATES || found.contains(&objects) {
        return;
    }
    let list = fs::read_to_string(objects.join("info/alternates")).unwrap_or_default();
    let others = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let others: Vec<PathBuf> = others.map(|line| objects.join(line.trim_matches('"'))).collect();
    found.push(objects);
    for other in others {
        with_alternates(&other, depth + 1, found);
    }
}

fn git_dirs_below(dir: &Path, above: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) {
    for path in sorted_entries(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") };
        if depth > DEEPEST_MODULES || path.is_symlink() {
            continue;
        }
        if path.join("HEAD").is_file() && path.join("objects").is_dir() {
            git_dirs_below(&path.join("modules"), &name, depth + 1, found);
            found.push((name, path));
        } else if path.is_dir() {
            git_dirs_below(&path, &name, depth + 1, found);
        }
    }
}

/// What stands in a directory, in order; nothing where there is none. One that cannot be read is told.
pub(super) fn entries_of(dir: &Path, troubles: &Troubles) -> Vec<PathBuf> {
    if let Err(error) = fs::read_dir(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        troubles.add(dir.display().to_string(), format!("cannot be read: {}", error.kind()));
    }
    sorted_entries(dir)
}

/// What stands in a file; nothing where there is none. One that cannot be read is told.
fn content_of(path: &Path, troubles: &Troubles) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            troubles.add(path.display().to_string(), format!("cannot be read: {}", error.kind()));
        }
        Vec::new()
    })
}

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

const STASH_LOG: &str = "logs/refs/stash";
/// As git: a ref that leads to a ref that leads on.
const LONGEST_CHAIN_OF_REFS: usize = 5;
/// As git.
const DEEPEST_ALTERNATES: usize = 5;
/// Names of submodules may have slashes.
const DEEPEST_MODULES: usize = 16;
