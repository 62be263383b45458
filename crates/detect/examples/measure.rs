//! `cargo run --release -p keymoat-detect --example measure -- …`: how much the engine finds, and how fast.
//!
//! `vectors DIR [--list SET]` reads labelled vectors (`*.jsonl`: `provider`, `rule`, `text`, `is_secret`, and
//! `checksum: "wrong"` where a value proves itself false) and prints recall, names and alarms; with `--list` what
//! became of each. Beside it stands what somebody has looked at (`looked-at/SET.tsv`). `speed FILE…` prints megabytes per second of processor time; `show FILE…` every hit.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::disallowed_macros,
    missing_docs,
    reason = "a program for developers: it reads its arguments and prints"
)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use keymoat_detect::{Catalogue, Classification, Engine, Generic, Hit, Identification, Scratch};
use serde_json::Value;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["vectors", directory] => vectors(directory, None),
        ["vectors", directory, "--list", set] => vectors(directory, Some(set)),
        ["speed", files @ ..] => speed(files),
        ["show", files @ ..] => show(files),
        ["start"] => start(),
        _ => println!("usage: measure vectors DIR [--list SET] | speed FILE… | show FILE… | start"),
    }
}

/// One line of a set.
struct Vector {
    id: String,
    provider: String,
    rule: String,
    text: String,
    is_secret: bool,
    is_wrong: bool,
}

/// What became of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Found,
    /// A publishable key or an identifier: known, and known to be no secret.
    ToldApart,
    /// It has the shape of a format with a checksum, and its own is wrong.
    Disproved,
    Missed,
}

#[derive(Default)]
struct Tally {
    secrets: usize,
    found: usize,
    told_apart: usize,
    disproved: usize,
    /// Of what is missed, what holds no key by the list of those that were looked at.
    empty: usize,
    /// Found without the providers of the set.
    by_others: usize,
    /// Found by a rule that belongs to no provider.
    by_generic: usize,
    /// Whose provider is in the catalogue: all, those found, those named rightly.
    known: usize,
    known_found: usize,
    named: usize,
    plain: usize,
    alarms: usize,
    /// Alarms that the list calls faults.
    faults: usize,
    wrong: usize,
    wrong_found: usize,
}

fn vectors(directory: &str, list: Option<&str>) {
    let catalogue = Catalogue::builtin();
    let engine = Engine::new(catalogue);
    let nobody = Engine::new(&Catalogue::of(&[]).unwrap());
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    println!("{HEAD}");
    let mut pooled = Tally::default();
    for path in files {
        let set = path.file_stem().unwrap().to_string_lossy().into_owned();
        let looked_at = looked_at(&set);
        let vectors: Vec<Vector> = fs::read_to_string(&path).unwrap().lines().map(read).collect();
        let others = Engine::new(&without(catalogue, &vectors));
        let mut tally = Tally::default();
        let is_listed = list == Some(&set);
        for vector in &vectors {
            let (names, own) = names_of(&engine, &vector.text);
            let is_found = !names.is_empty();
            let verdict = looked_at.get(&vector.id).map(String::as_str);
            let say = |what: &str| {
                if is_listed {
                    let Vector { id, rule, text, .. } = vector;
                    println!("{what} {id} {rule} {names:?} {verdict:?} {text:?}");
                }
            };
            if vector.is_wrong {
                tally.wrong += 1;
                tally.wrong_found += usize::from(is_found);
                is_found.then(|| say("WRONG"));
            } else if vector.is_secret {
                let outcome = outcome_of(catalogue, &vector.text, is_found);
                tally.secrets += 1;
                tally.found += usize::from(outcome == Outcome::Found);
                tally.told_apart += usize::from(outcome == Outcome::ToldApart);
                tally.disproved += usize::from(outcome == Outcome::Disproved);
                tally.empty += usize::from(outcome == Outcome::Missed && verdict.is_some());
                tally.by_generic += usize::from(!names_of(&nobody, &vector.text).0.is_empty());
                tally.by_others += usize::from(!names_of(&others, &vector.text).0.is_empty());
                let is_named = own.iter().any(|own| is_same(catalogue, own, &vector.provider));
                if is_known(catalogue, &vector.provider) {
                    tally.known += 1;
                    tally.known_found += usize::from(is_found);
                    tally.named += usize::from(is_named);
                }
                match outcome {
                    Outcome::Found if !is_named && is_known(catalogue, &vector.provider) => say("UNNAMED"),
                    Outcome::Found => say("FOUND"),
                    Outcome::ToldApart => say("TOLD-APART"),
                    Outcome::Disproved => say("DISPROVED"),
                    Outcome::Missed => say("MISSED"),
                }
            } else {
                tally.plain += 1;
                tally.alarms += usize::from(is_found);
                tally.faults += usize::from(is_found && verdict.is_none_or(|verdict| verdict == "fault"));
                is_found.then(|| say("ALARM"));
            }
        }
        print(&set, &tally);
        pooled.plain += tally.plain;
        pooled.alarms += tally.alarms;
        pooled.faults += tally.faults;
    }
    println!(
        "alarms on all negatives pooled: {} of {} = {:.1} %, of them faults {} = {:.1} %",
        pooled.alarms,
        pooled.plain,
        percent(pooled.alarms, pooled.plain),
        pooled.faults,
        percent(pooled.faults, pooled.plain)
    );
}

const HEAD: &str = "set          secrets   found  told apart  disproved  no key in it  = of the rest | providers of the set off  all off | named, of those found | alarms, of them faults | wrong";

fn print(set: &str, tally: &Tally) {
    let rest = tally.secrets - tally.told_apart - tally.disproved - tally.empty;
    println!(
        "{set:<12} {:>7} {:>5.1} % {:>11} {:>10} {:>13} {:>13.1} % | {:>22.1} % {:>6.1} % | {:>5.1} % {:>13.1} % | {:>3} of {:>3} {:>11} | {} of {}",
        tally.secrets,
        percent(tally.found, tally.secrets),
        tally.told_apart,
        tally.disproved,
        tally.empty,
        percent(tally.found, rest),
        percent(tally.by_others, tally.secrets),
        percent(tally.by_generic, tally.secrets),
        percent(tally.named, tally.known),
        percent(tally.named, tally.known_found),
        tally.alarms,
        tally.plain,
        tally.faults,
        tally.wrong_found,
        tally.wrong
    );
}

/// What somebody has looked at: the id of a vector and why it is missed, or why its alarm is none.
fn looked_at(set: &str) -> BTreeMap<String, String> {
    let path = format!("{}/examples/looked-at/{set}.tsv", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, why)| (id.to_owned(), why.to_owned()))
        .collect()
}

/// The catalogue without the providers that a set speaks of.
fn without(catalogue: &Catalogue, vectors: &[Vector]) -> Catalogue {
    let mut peers: Vec<&str> = vectors.iter().map(|vector| vector.provider.as_str()).collect();
    peers.sort_unstable();
    peers.dedup();
    let is_own = |id: &str| peers.iter().any(|peer| is_same(catalogue, id, peer));
    let directory = format!("{}/catalogue", env!("CARGO_MANIFEST_DIR"));
    let ids = catalogue.providers().iter().map(|provider| &provider.id).filter(|id| !is_own(id));
    let files: Vec<_> = ids
        .map(|id| (format!("{id}.toml"), fs::read_to_string(format!("{directory}/{id}.toml")).unwrap()))
        .collect();
    Catalogue::of(&files).unwrap()
}

/// What a text holds that is not reported, by its words and by what its names say of them.
fn outcome_of(catalogue: &Catalogue, text: &str, is_found: bool) -> Outcome {
    if is_found {
        return Outcome::Found;
    }
    let is_end = |c: char| c.is_whitespace() || "\"'`,;()<>{}[]\\".contains(c);
    let words: Vec<&str> = text
        .split(is_end)
        .flat_map(|word| [word, word.rsplit_once(['=', ':']).map_or("", |(_, value)| value)])
        .filter(|word| word.len() > 3)
        .collect();
    let is_public = |word: &&str| matches!(catalogue.identify(word.as_bytes()), Identification::Known(known) if !known.key.sensitive);
    let is_identifier = || {
        let pieces: Vec<&str> =
            text.split(|c: char| is_end(c) || "=:".contains(c)).filter(|piece| !piece.is_empty()).collect();
        pieces.iter().enumerate().any(|(at, value)| {
            pieces[at.saturating_sub(3)..at].iter().any(|name| {
                let named = catalogue.identify_named(name, value.as_bytes());
                matches!(named, Classification::NotSensitive(found) if found.key.kind.is_name())
            })
        })
    };
    if words.iter().any(is_public) || is_identifier() {
        return Outcome::ToldApart;
    }
    let has_wrong_checksum = |word: &&str| {
        catalogue
            .providers()
            .iter()
            .flat_map(|provider| &provider.keys)
            .any(|key| key.is_disproved(word.as_bytes()))
    };
    if words.iter().any(has_wrong_checksum) { Outcome::Disproved } else { Outcome::Missed }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn read(line: &str) -> Vector {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Vector {
        id: text("id"),
        provider: text("provider"),
        rule: if value["rule"].is_string() { text("rule") } else { text("provider") },
        text: text("text"),
        is_secret: value["is_secret"].as_bool().unwrap(),
        is_wrong: value["checksum"] == "wrong",
    }
}

fn hits_in(engine: &Engine, text: &[u8]) -> Vec<Hit> {
    let mut hits = Vec::new();
    engine.find(text, 0..text.len(), &mut Scratch::default(), &mut hits);
    hits
}

/// The rules that find something in a text, and their providers, or the forms that belong to nobody.
fn names_of(engine: &Engine, text: &str) -> (Vec<String>, Vec<String>) {
    let hits = hits_in(engine, text.as_bytes());
    let rules: Vec<_> = hits.iter().map(|hit| engine.rule(hit.rule)).collect();
    let owners = rules.iter().filter_map(|rule| match (rule.provider, rule.generic) {
        (Some(provider), _) => Some(provider.id.clone()),
        (None, Some(Generic::PrivateKey | Generic::EncryptedPrivateKey)) => Some("private-key".to_owned()),
        (None, Some(Generic::UrlPassword)) => Some("basic-auth".to_owned()),
        _ => None,
    });
    let owners = owners.collect();
    (rules.iter().map(|rule| rule.name()).collect(), owners)
}

fn is_known(catalogue: &Catalogue, peer: &str) -> bool {
    catalogue.providers().iter().any(|provider| is_same(catalogue, &provider.id, peer))
}

fn is_same(catalogue: &Catalogue, own: &str, peer: &str) -> bool {
    let joined = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let provider = catalogue.provider(own).unwrap();
    let peer = joined(peer);
    [&provider.id, &provider.name].into_iter().chain(&provider.aliases).any(|name| joined(name) == peer)
}

fn speed(files: &[&str]) {
    let engine = Engine::new(Catalogue::builtin());
    let mut scratch = Scratch::default();
    let mut hits = Vec::new();
    for file in files {
        let text = fs::read(file).unwrap();
        let mut best = f64::MAX;
        for _ in 0..rounds() {
            let before = processor_seconds();
            engine.find(&text, 0..text.len(), &mut scratch, &mut hits);
            best = best.min(processor_seconds() - before);
        }
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        for hit in &hits {
            *rules.entry(engine.rule(hit.rule).name()).or_default() += 1;
        }
        let megabytes = text.len() as f64 / 1e6;
        println!(
            "{file}: {megabytes:.1} MB, {best:.3} s, {:.0} MB per second of processor time, {} hits {rules:?}",
            megabytes / best,
            hits.len()
        );
    }
    println!("peak memory with the text: {} MB", peak_memory() / 1024);
}

fn show(files: &[&str]) {
    let engine = Engine::new(Catalogue::builtin());
    for file in files {
        let Ok(text) = fs::read(file) else { continue };
        for hit in hits_in(&engine, &text) {
            let line = text[..hit.span.start].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let from = text[..hit.span.start].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let from = from.max(hit.span.start.saturating_sub(80));
            let to = hit.span.end.min(hit.span.start + 60);
            println!(
                "{file}:{line} {} {}",
                engine.rule(hit.rule).name(),
                String::from_utf8_lossy(&text[from..to]).escape_debug()
            );
        }
    }
}

fn start() {
    let begin = Instant::now();
    let catalogue = Catalogue::builtin();
    let read = begin.elapsed();
    let engine = Engine::new(catalogue);
    let made = begin.elapsed();
    let text = b"twilio_auth_token = 9f2c4b7a1e8d3056c1a9e4f7b2d80635 sk_live_51MadeUpExample0000KeymoatTest";
    let found = hits_in(&engine, text).len();
    let searched = begin.elapsed();
    println!(
        "{} providers, {} rules: read in {:.1} ms, compiled in {:.1} ms, first search ({found} hits) {:.1} ms",
        catalogue.providers().len(),
        engine.rules().count(),
        1e3 * read.as_secs_f64(),
        1e3 * (made - read).as_secs_f64(),
        1e3 * (searched - made).as_secs_f64()
    );
}

/// Seconds that this thread has computed: the first field of its scheduler statistics is nanoseconds on a processor.
fn processor_seconds() -> f64 {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    statistics.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Three, of which the best counts; one where instructions are counted instead.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}
