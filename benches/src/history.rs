//! Searching a whole git history, beside git reading the same objects and beside other scanners.
//!
//! Each runs as a program of its own, one after the other. Processor time counts all that a program started; memory is
//! the largest single process, looked at every few milliseconds. Scanners are taken from `PATH`.

use std::io::{BufWriter, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use keymoat_detect::{Catalogue, Engine};
use keymoat_scan::git::{History, Repository};
use keymoat_scan::{FingerprintKey, Scan, Troubles};

/// Measures all on one repository, which is generated with so many commits before if it is told.
pub(crate) fn run(repository: &str, generate: Option<u32>) -> Result<()> {
    if let Some(commits) = generate {
        make(Path::new(repository), commits)?;
    }
    let place = tempfile::tempdir()?;
    let known = place.path().join("known");
    let own = std::env::current_exe().context("failed to find this program")?;
    let ours = |options: &[&str]| {
        let mut command = Command::new(&own);
        command.args(["scan-history", repository]).args(options);
        command
    };
    let known = known.to_str().context("a temporary directory with an odd name")?;
    println!("{:<44} {:>8} {:>8} {:>7} {:>8} {:>9}", "", "wall s", "CPU s", "ratio", "RSS MB", "anon. MB");
    let mut git = Command::new("git");
    git.args(["-C", repository, "cat-file", "--batch-all-objects", "--unordered", "--buffer", "--batch"]);
    let limit = measure("git cat-file, all objects", git, None)?;
    for (name, options) in [
        ("Keymoat", &[][..]),
        ("Keymoat, whole texts instead of deltas", &["--whole"]),
        ("Keymoat, for the first time, keeping", &["--known", known]),
        ("Keymoat, again", &["--known", known]),
    ] {
        measure(name, ours(options), Some(&limit))?;
    }
    for (name, arguments) in peers(repository) {
        match find(name) {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(&arguments);
                measure(&format!("{name} {}", arguments[0]), command, Some(&limit))?;
            }
            None => println!("{name:<44} is not on PATH"),
        }
    }
    Ok(())
}

/// Searches one history and says what there was, in a line.
pub(crate) fn scan(repository: &str, options: &[&str]) -> Result<()> {
    let catalogue = Catalogue::builtin();
    let engine = Engine::new(catalogue);
    let key = FingerprintKey::new([7; 32]);
    let troubles = Troubles::default();
    let repository = Repository::open(Path::new(repository))?;
    let mut history = History::of(&repository);
    match options {
        [] => {}
        ["--whole"] => history.delta_aware = false,
        ["--known", path] => history.known_file = Some(Path::new(path)),
        _ => bail!("started by `keymoat-benches history`"),
    }
    let scan = Scan {
        engine: &engine,
        catalogue,
        key: &key,
        threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        progress: &(),
        troubles: &troubles,
        keeper: &(),
    };
    let (findings, scanned) = scan.history(&history);
    let places: usize = findings.iter().map(|finding| finding.places.len()).sum();
    println!(
        "{} findings at {places} places; {} blobs, {} of {} MB searched; {} objects known; {} troubles",
        findings.len(),
        scanned.blobs,
        scanned.searched / 1_000_000,
        scanned.bytes / 1_000_000,
        scanned.known,
        troubles.total(),
    );
    Ok(())
}

/// How the other scanners search a history and nothing else, without asking anybody.
fn peers(repository: &str) -> Vec<(&'static str, Vec<&str>)> {
    let leaks = vec!["git", repository, "--no-banner", "--exit-code=0", "--redact"];
    let kingfisher = vec!["scan", repository, "--no-validate", "--no-update-check", "--format=json"];
    let turbo = [&kingfisher[..], &["--turbo"]].concat();
    vec![
        ("betterleaks", leaks.clone()),
        ("gitleaks", leaks),
        ("kingfisher", kingfisher),
        ("kingfisher", turbo),
    ]
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// What a program took.
struct Took {
    cpu: f64,
}

/// Runs a program to its end and prints what it took, as a ratio to `limit`.
fn measure(name: &str, mut command: Command, limit: Option<&Took>) -> Result<Took> {
    let is_ours = name.starts_with("Keymoat");
    let out = if is_ours { Stdio::piped() } else { Stdio::null() };
    let before = cpu_of_children()?;
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn();
    let mut child = child.with_context(|| format!("failed to start {command:?}"))?;
    let (mut rss, mut anonymous) = (0, 0);
    while child.try_wait()?.is_none() {
        for pid in with_children(child.id()) {
            rss = rss.max(memory(pid, "VmHWM:"));
            anonymous = anonymous.max(memory(pid, "RssAnon:"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let wall = start.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    let cpu = cpu_of_children()? - before;
    let ratio = limit.map_or(1.0, |limit| cpu / limit.cpu.max(0.01));
    let mb = |kib: u64| kib / 1000;
    println!("{name:<44} {wall:>8.2} {cpu:>8.2} {ratio:>7.2} {:>8} {:>9}", mb(rss), mb(anonymous));
    if is_ours {
        print!("    {}", String::from_utf8_lossy(&output.stdout));
    }
    // Scanners have codes of their own for having found something.
    if !output.status.success() {
        println!("    ended with {}", output.status);
    }
    Ok(Took { cpu })
}

/// Processor time of all children that have ended, and of theirs: fields 16 and 17 of `/proc/self/stat` (proc(5)).
fn cpu_of_children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("unknown form of /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok());
    Ok(ticks.sum::<u64>() as f64 / 100.0)
}

fn with_children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// A line of `/proc/PID/status`, in KiB; 0 once the process has ended.
fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|found| found.strip_prefix(line));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Makes a history with `git fast-import`, the same each time: files that grow, change and go, and now and then a key.
fn make(repository: &Path, commits: u32) -> Result<()> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(repository);
        command
    };
    std::fs::create_dir_all(repository)?;
    let initialised = git(&["init", "-q", "--bare", "."]).status()?;
    let mut import = git(&["fast-import", "--quiet", "--depth=50"]).stdin(Stdio::piped()).spawn()?;
    let mut stream = BufWriter::new(import.stdin.take().context("fast-import has no input")?);
    let mut files: Vec<Vec<String>> = (0..FILES).map(|_| Vec::new()).collect();
    let mut dice = Dice(0x6b65_796d_6f61_7400);
    for commit in 0..commits {
        let file = dice.below(FILES);
        edit(&mut files[file], &mut dice, commit);
        let content = files[file].concat();
        let (dir, sub) = (file % 40, file % 7);
        writeln!(stream, "commit refs/heads/main")?;
        writeln!(
            stream,
            "committer Made Up <made@up.test> {} +0000",
            1_000_000_000 + u64::from(commit) * 60
        )?;
        writeln!(stream, "data 7\ncommit\n\nM 644 inline dir{dir}/sub{sub}/file{file}.py")?;
        writeln!(stream, "data {}\n{content}", content.len())?;
    }
    stream.flush()?;
    drop(stream);
    if !initialised.success() || !import.wait()?.success() {
        bail!("failed to make a history in `{}`", repository.display());
    }
    Ok(())
}

/// Replaces, removes and adds some lines.
fn edit(lines: &mut Vec<String>, dice: &mut Dice, commit: u32) {
    for _ in 0..=dice.below(6) {
        let at = dice.below(lines.len() + 1);
        let line = match dice.below(4000) {
            0 => format!("STRIPE_KEY = \"sk_live_51MadeUpExample{commit:08}Key{:04}\"\n", dice.below(10_000)),
            n => format!(
                "    value_{n} = compute(item_{}, \"{:x}\")  # step {n}\n",
                dice.below(500),
                dice.below(9999)
            ),
        };
        if dice.below(3) == 0 && at < lines.len() {
            lines[at] = line;
        } else {
            lines.insert(at, line);
        }
    }
    if lines.len() > LONGEST_FILE {
        lines.drain(..LONGEST_FILE / 4);
    }
}

/// xorshift64, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(5);
const FILES: usize = 600;
const LONGEST_FILE: usize = 700;
