//! What is new in a push: the objects that no ref of the server leads to yet, as git itself counts them. They stand apart
//! until the hook has allowed them, so git is asked for them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use keymoat_detect::Engine;
use keymoat_scan::report::{About, Report, Searched, Target};
use keymoat_scan::{Baseline, Finding, FingerprintKey, Scan, Source, Troubles};
use keymoat_vault::Clock as _;

use crate::Context;
use crate::clock::SystemClock;
use crate::error::CliError;

/// Searches what is pushed, as stdin names it: a line `OLD NEW REF` for each ref.
///
/// # Errors
/// When git does not give the objects: then nobody knows what is in them.
pub fn report(context: &Context, baseline: Option<&Path>) -> Result<Report, CliError> {
    let catalogue = context.catalogue()?;
    let baseline = baseline.map(read_baseline).transpose()?;
    let tips = pushed_tips()?;
    let blobs = new_blobs(&tips)?;
    let engine = Engine::new(&catalogue);
    let key = baseline.as_ref().map_or_else(|| FingerprintKey::new(keymoat_crypto::bytes()), Baseline::key);
    let troubles = Troubles::default();
    let scan = Scan {
        engine: &engine,
        catalogue: &catalogue,
        key: &key,
        threads: std::num::NonZeroUsize::MIN,
        progress: &(),
        troubles: &troubles,
        keeper: &(),
    };
    let findings = search(&scan, &blobs)?;
    let target =
        Target { name: "push".to_owned(), read: vec![("files", blobs.len() as u64)], ..Target::default() };
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made: SystemClock.now().as_second(),
        warnings: Vec::new(),
    };
    Ok(Report::new(&engine, vec![Searched { target, findings }], baseline, &troubles, about))
}

fn read_baseline(path: &Path) -> Result<Baseline, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read the baseline", path, &e))?;
    Baseline::parse(&text)
        .map_err(|error| CliError::new(format!("cannot use the baseline `{}`: {error}", path.display())))
}

/// What the refs are to lead to; one that is deleted leads to nothing.
fn pushed_tips() -> Result<Vec<String>, CliError> {
    let mut tips = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| CliError::new(format!("cannot read what is pushed: {e}")))?;
        let Some(new) = line.split(' ').nth(1) else { continue };
        if !new.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(CliError::new("stdin is not what git says to a pre-receive hook"));
        }
        if new.chars().any(|c| c != '0') {
            tips.push(new.to_owned());
        }
    }
    Ok(tips)
}

/// Ids and paths of the objects with a path that come with these tips: files, and directories, which are told apart when
/// they are read.
fn new_blobs(tips: &[String]) -> Result<Vec<(String, String)>, CliError> {
    if tips.is_empty() {
        return Ok(Vec::new());
    }
    let done = Command::new("git")
        .args(["rev-list", "--objects"])
        .args(tips)
        .args(["--not", "--all"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&e.to_string()))?;
    if !done.status.success() {
        return Err(failed("`git rev-list` ended with an error"));
    }
    let text = String::from_utf8_lossy(&done.stdout);
    let named = text.lines().filter_map(|line| line.split_once(' ')).filter(|(_, path)| !path.is_empty());
    Ok(named.map(|(id, path)| (id.to_owned(), path.to_owned())).collect())
}

fn search(scan: &Scan<'_>, blobs: &[(String, String)]) -> Result<Vec<Finding>, CliError> {
    if blobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut child = Command::new("git")
        .args(["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(&e.to_string()))?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else { return Err(failed("it has no pipes")) };
    std::thread::scope(|scope| {
        // Both pipes are short: whoever only wrote would wait for somebody to read.
        let asked = scope.spawn(move || blobs.iter().try_for_each(|(id, _)| writeln!(input, "{id}")));
        let found = read_all(scan, blobs, BufReader::new(output), &mut child);
        let asked = asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        asked.map_err(|e| failed(&e.to_string())).and(found)
    })
}

fn read_all(
    scan: &Scan<'_>,
    blobs: &[(String, String)],
    mut output: BufReader<ChildStdout>,
    child: &mut Child,
) -> Result<Vec<Finding>, CliError> {
    let mut findings = Vec::new();
    for (_, path) in blobs {
        let mut head = String::new();
        output.read_line(&mut head).map_err(|e| failed(&e.to_string()))?;
        let words: Vec<&str> = head.split_whitespace().collect();
        let [_, kind, length] = words[..] else { return Err(failed("an object of the push is missing")) };
        let length: u64 = length.parse().map_err(|_| failed("`git cat-file` says no length"))?;
        let mut content = (&mut output).take(length);
        if kind == "blob" {
            findings.extend(scan.stream(path, &mut content));
        }
        std::io::copy(&mut content, &mut std::io::sink()).map_err(|e| failed(&e.to_string()))?;
        output.read_exact(&mut [0]).map_err(|e| failed(&e.to_string()))?;
    }
    drop(output);
    child.wait().map_err(|e| failed(&e.to_string()))?;
    for place in findings.iter_mut().flat_map(|finding: &mut Finding| &mut finding.places) {
        let source = match &mut place.source {
            Source::Inside(inside) => &mut inside.of,
            source => source,
        };
        if let Source::Stream(path) = source {
            *source = Source::Staged(std::mem::take(path));
        }
    }
    Ok(findings)
}

fn failed(why: &str) -> CliError {
    CliError::new(format!("git does not give what is pushed: {why}"))
        .hint("nothing was taken in; `git fsck` on the server says whether the repository is whole")
}
