//! A directory as it stands on the disk.
//!
//! What git ignores is left out, for it is made by programs; but not a `.env` and the like, which is ignored because it
//! holds secrets. Symbolic links are never followed: what they lead to inside is reached anyway, and outside is not asked
//! for. There is no limit on sizes.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::finding::{Listed, Values};
use crate::inside;
use crate::look::{Dumps, Looker};
use crate::place::{Place, Source};
use crate::scan::Scan;
use crate::text::{Lines, Searcher, is_binary};

/// What was read of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Files that were searched.
    pub texts: u64,
    /// Files that are no text; what is in them was searched all the same.
    pub binaries: u64,
    /// Bytes of the texts.
    pub bytes: u64,
    /// Files that were searched although git ignores them, because their names promise secrets.
    pub ignored_but_searched: Vec<PathBuf>,
    /// Files and directories that were left out because git ignores them.
    pub ignored: u64,
    /// Symbolic links, sockets, pipes and devices.
    pub special: u64,
    /// Repositories in it, of which only the files were searched.
    pub repositories: u64,
}

impl Files {
    fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.binaries += other.binaries;
        self.bytes += other.bytes;
        self.ignored += other.ignored;
        self.special += other.special;
        self.repositories += other.repositories;
        self.ignored_but_searched.extend(other.ignored_but_searched);
        self.ignored_but_searched.sort();
    }
}

/// Searches a directory, or a single file.
pub(crate) fn search(root: &Path, scan: &Scan<'_>, values: &Values<'_>) -> Files {
    let (sender, receiver) = sync_channel(FILES_AHEAD);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let walker = scope.spawn(move || Walker::new(root, scan, sender).walk());
        let searchers: Vec<_> = (0..scan.threads.get())
            .map(|_| scope.spawn(|| search_files(root, &receiver, scan, values)))
            .collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Files>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let mut files = joined(walker);
        searchers.into_iter().map(joined).for_each(|other| files.add(other));
        files
    })
}

/// Goes through directories, one after the other, and hands on the files.
struct Walker<'a> {
    root: &'a Path,
    scan: &'a Scan<'a>,
    files: SyncSender<PathBuf>,
    /// The rules of the directories from the top of the repository down to the present one.
    rules: Vec<Gitignore>,
    found: Files,
}

impl<'a> Walker<'a> {
    fn new(root: &'a Path, scan: &'a Scan<'a>, files: SyncSender<PathBuf>) -> Self {
        Self { root, scan, files, rules: rules_above(root), found: Files::default() }
    }

    fn walk(mut self) -> Files {
        if self.root.is_dir() {
            self.dir(self.root, 0);
        } else {
            // Nobody takes files any more where the searchers have ended.
            let _ = self.files.send(self.root.to_owned());
        }
        self.found
    }

    fn dir(&mut self, dir: &Path, depth: usize) {
        if self.scan.progress.is_cancelled() {
            return;
        }
        if depth > DEEPEST {
            self.scan.troubles.add(self.shown(dir), "is nested too deeply to be followed");
            return;
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(dir, &error),
        };
        self.rules.push(rules_of(dir));
        let (entries, broken): (Vec<_>, Vec<_>) = entries.partition(Result::is_ok);
        broken.into_iter().filter_map(Result::err).for_each(|error| self.unreadable(dir, &error));
        let mut entries: Vec<fs::DirEntry> = entries.into_iter().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.subdir(&path, depth),
                Ok(kind) if kind.is_file() => self.file(path),
                Ok(_) => self.found.special += 1,
                Err(error) => self.unreadable(&path, &error),
            }
        }
        self.rules.pop();
    }

    fn subdir(&mut self, dir: &Path, depth: usize) {
        if is_git_dir(dir) {
            // Its own history is another source, which whoever scans knows of.
            self.found.repositories += u64::from(dir.parent() != Some(self.root));
            return;
        }
        if self.ignores(dir, true) {
            self.found.ignored += 1;
            return;
        }
        self.dir(dir, depth + 1);
    }

    fn file(&mut self, path: PathBuf) {
        if self.ignores(&path, false) {
            if !promises_secrets(&path) {
                self.found.ignored += 1;
                return;
            }
            let shown = path.strip_prefix(self.root).unwrap_or(&path).to_owned();
            self.found.ignored_but_searched.push(shown);
        }
        let _ = self.files.send(path);
    }

    /// As git: the nearest rule that speaks of a path decides.
    fn ignores(&self, path: &Path, is_dir: bool) -> bool {
        let spoken = self.rules.iter().rev().map(|rules| rules.matched(path, is_dir));
        spoken.into_iter().find(|found| !found.is_none()).is_some_and(|found| found.is_ignore())
    }

    fn unreadable(&self, path: &Path, error: &std::io::Error) {
        self.scan.troubles.add(self.shown(path), format!("cannot be read: {}", error.kind()));
    }

    fn shown(&self, path: &Path) -> String {
        let within = path.strip_prefix(self.root).ok().filter(|rest| !rest.as_os_str().is_empty());
        within.unwrap_or(path).display().to_string()
    }
}

/// The rules of the repository that a directory stands in, from the top down to above it.
fn rules_above(root: &Path) -> Vec<Gitignore> {
    let Some(top) = root.ancestors().find(|dir| dir.join(".git").exists()) else { return Vec::new() };
    let mut exclude = GitignoreBuilder::new(top);
    exclude.add(top.join(".git/info/exclude"));
    let mut rules = vec![exclude.build().unwrap_or_else(|_| Gitignore::empty())];
    let above: Vec<&Path> = root.ancestors().skip(1).take_while(|dir| dir.starts_with(top)).collect();
    rules.extend(above.into_iter().rev().map(rules_of));
    rules
}

fn rules_of(dir: &Path) -> Gitignore {
    let file = dir.join(".gitignore");
    // What cannot be parsed of it is left out, as git does.
    if file.is_file() { Gitignore::new(file).0 } else { Gitignore::empty() }
}

/// A repository's own directory: its objects are compressed, and its history is another source.
fn is_git_dir(path: &Path) -> bool {
    let is_named = path.file_name().is_some_and(|name| name == ".git");
    is_named || (path.join("objects").is_dir() && path.join("refs").is_dir() && path.join("HEAD").is_file())
}

fn search_files(
    root: &Path,
    files: &Mutex<Receiver<PathBuf>>,
    scan: &Scan<'_>,
    values: &Values<'_>,
) -> Files {
    let mut searcher = Searcher::new(scan.engine, values);
    let mut buffer = Vec::new();
    let mut found = Files::default();
    let mut dumps = Dumps::default();
    loop {
        let next = files.lock().ok().and_then(|files| files.recv().ok());
        let Some(path) = next else { return found };
        if scan.progress.is_cancelled() {
            continue;
        }
        let shown = path.strip_prefix(root).ok().filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(&path);
        let shown = shown.to_string_lossy().into_owned();
        let searched = match read_beginning(&path, &mut buffer) {
            Ok(file) if inside::is_plain_text(&shown, &buffer) && !dumps.has(&path) => {
                search_text(&file, &shown, &mut searcher, &mut buffer, values, &mut found)
            }
            Ok(mut file) => {
                found.binaries += u64::from(is_binary(&buffer));
                let looker = Looker::new(scan, &mut searcher, values, Source::File(shown.clone()));
                // What was read is read once more: these formats begin at their beginning.
                found.bytes += match file.rewind() {
                    Ok(()) => looker.file(&path, &file, &mut dumps),
                    // A pipe has none any more.
                    Err(_) => looker.stream(buffer.as_slice().chain(file)),
                };
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = searched {
            scan.troubles.add(shown, format!("cannot be read: {}", error.kind()));
        }
        scan.progress.advance(1);
    }
}

fn read_beginning(path: &Path, buffer: &mut Vec<u8>) -> std::io::Result<File> {
    let file = File::open(path)?;
    buffer.clear();
    (&file).take(READ_WHOLE).read_to_end(buffer)?;
    Ok(file)
}

fn search_text(
    mut file: &File,
    shown: &str,
    searcher: &mut Searcher<'_>,
    buffer: &mut Vec<u8>,
    values: &Values<'_>,
    found: &mut Files,
) -> std::io::Result<()> {
    let source = || Source::File(shown.to_owned());
    found.texts += 1;
    if (buffer.len() as u64) < READ_WHOLE {
        let mut lines = Lines::default();
        for known in searcher.search(buffer, None) {
            let (line, column) = lines.at(buffer, known.start);
            values.add_place(known.value, Place { source: source(), line, column, encoding: known.encoding });
        }
        found.bytes += buffer.len() as u64;
        return Ok(());
    }
    let (whole, mut listed) = (std::mem::take(buffer), Listed::default());
    let streamed = searcher.search_stream(whole.as_slice().chain(&mut file), |sighting| {
        let (line, column, encoding) = (sighting.line, sighting.column, sighting.known.encoding);
        if listed.takes(sighting.known.value, values) {
            values.add_place(sighting.known.value, Place { source: source(), line, column, encoding });
        }
    })?;
    found.bytes += streamed.bytes;
    Ok(())
}

/// Whether a file of this name is ignored because of what it holds.
fn promises_secrets(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    NAMES.contains(&name.as_str())
        || STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// Files that hold logins, by name; see the manuals of the programs that read them.
const NAMES: [&str; 17] = [
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".yarnrc.yml",
    ".pypirc",
    ".htpasswd",
    ".git-credentials",
    ".dockercfg",
    "odoo.conf",
    "openerp-server.conf",
    "local_settings.py",
    "settings_local.py",
    "wp-config.php",
    "secret_key.txt",
    "docker-compose.override.yml",
];
const STARTS: [&str; 9] = [
    ".env",
    "env.",
    "secret",
    "credential",
    "service-account",
    "service_account",
    "id_rsa",
    "id_ed25519",
    "kubeconfig",
];
const ENDS: [&str; 9] =
    [".env", ".pem", ".key", ".tfvars", ".tfstate", ".p8", ".secrets", ".secrets.toml", ".secrets.yml"];
/// Enough that no searcher waits, few enough to cost nothing.
const FILES_AHEAD: usize = 1024;
/// Longer files are streamed.
const READ_WHOLE: u64 = 1 << 20;
/// As deep as paths can be named at once, and shallow enough for the stack.
const DEEPEST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_promise_secrets() {
        for (name, expected) in [
            (".env", true),
            ("config/.env.production", true),
            ("prod.env", true),
            ("Credentials.json", true),
            ("terraform.tfvars", true),
            ("environment.py", false),
            ("main.o", false),
            ("debug.log", false),
        ] {
            assert_eq!(promises_secrets(Path::new(name)), expected, "{name}");
        }
    }
}
