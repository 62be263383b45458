//! `cargo run --release -p keymoat-detect --example measure -- …`: how much the engine finds, and how fast.
//!
//! `vectors DIR [--list SET]` reads labelled vectors (`*.jsonl`: `provider`, `rule`, `text`, `is_secret`, and
//! `checksum: "wrong"` where a value proves itself false) and prints recall, names and alarms; with `--list` what is
//! missed and what is an alarm. `speed FILE…` prints megabytes per second of processor time; `show FILE…` every hit.
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

use keymoat_detect::{Catalogue, Engine, Hit, Scratch};
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
    provider: String,
    rule: String,
    text: String,
    is_secret: bool,
    is_wrong: bool,
}

#[derive(Default)]
struct Tally {
    secrets: usize,
    found: usize,
    /// Found by a rule that belongs to no provider.
    by_generic: usize,
    known: usize,
    named: usize,
    plain: usize,
    alarms: usize,
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
    println!(
        "{:<12} {:>7} {:>7} {:>9} {:>9} {:>7} {:>13} {:>9}",
        "set", "secrets", "found", "providers", "generic", "named", "alarms", "wrong"
    );
    let mut pooled = Tally::default();
    for path in files {
        let set = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut tally = Tally::default();
        let mut rules: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let is_listed = list == Some(&set);
        for vector in fs::read_to_string(&path).unwrap().lines().map(read) {
            let (names, own) = names_of(&engine, &vector.text);
            let is_found = !names.is_empty();
            if vector.is_wrong {
                tally.wrong += 1;
                tally.wrong_found += usize::from(is_found);
                if is_listed && is_found {
                    println!("WRONG {} {names:?} {:?}", vector.rule, vector.text);
                }
            } else if vector.is_secret {
                tally.secrets += 1;
                tally.found += usize::from(is_found);
                tally.by_generic += usize::from(!names_of(&nobody, &vector.text).0.is_empty());
                if is_known(catalogue, &vector.provider) {
                    tally.known += 1;
                    let is_named = own.iter().any(|own| is_same(catalogue, own, &vector.provider));
                    tally.named += usize::from(is_named);
                    if is_listed && is_found && !is_named {
                        println!("UNNAMED {} {names:?} {:?}", vector.rule, vector.text);
                    }
                }
                let rule = rules.entry(vector.rule.clone()).or_default();
                rule.0 += 1;
                rule.1 += usize::from(is_found);
                if is_listed && !is_found {
                    println!("MISSED {} {:?}", vector.rule, vector.text);
                }
            } else {
                tally.plain += 1;
                tally.alarms += usize::from(is_found);
                if is_listed && is_found {
                    println!("ALARM {} {names:?} {:?}", vector.rule, vector.text);
                }
            }
        }
        print(&set, &tally);
        pooled.plain += tally.plain;
        pooled.alarms += tally.alarms;
    }
    println!(
        "alarms on all negatives pooled: {}/{} = {:.1} %",
        pooled.alarms,
        pooled.plain,
        percent(pooled.alarms, pooled.plain)
    );
}

fn print(set: &str, tally: &Tally) {
    println!(
        "{set:<12} {:>7} {:>5.1} % {:>9} {:>7.1} % {:>5.1} % {:>4}/{:>3} {:>4.1} % {:>4}/{:>3}",
        tally.secrets,
        percent(tally.found, tally.secrets),
        "",
        percent(tally.by_generic, tally.secrets),
        percent(tally.named, tally.known),
        tally.alarms,
        tally.plain,
        percent(tally.alarms, tally.plain),
        tally.wrong_found,
        tally.wrong
    );
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn read(line: &str) -> Vector {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Vector {
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

/// The rules that find something in a text, and their providers.
fn names_of(engine: &Engine, text: &str) -> (Vec<String>, Vec<String>) {
    let hits = hits_in(engine, text.as_bytes());
    let rules: Vec<_> = hits.iter().map(|hit| engine.rule(hit.rule)).collect();
    let providers =
        rules.iter().filter_map(|rule| rule.provider).map(|provider| provider.id.clone()).collect();
    (rules.iter().map(|rule| rule.name()).collect(), providers)
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
