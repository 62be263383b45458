//! Looks for secrets in this process's own memory, under the allocator that the binary uses.
//!
//! Linux only: `/proc/self/mem` and `/proc/self/smaps` are what it looks with.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use keymoat_crypto::{
    DataKey, MasterKey, Place, SecretBytes, Token, TokenKind, ZeroingAllocator, memory_protection, open, seal,
};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: ZeroingAllocator = ZeroingAllocator;

/// The canary's bytes are computed where they are needed, so that the search does not find itself.
fn canary_byte(position: usize) -> u8 {
    b'A' + ((position * 7 + position / 5 * 11 + 3) % 23) as u8
}

const CANARY_LEN: usize = 40;

fn canary() -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..CANARY_LEN).for_each(|i| bytes.push(canary_byte(i)));
    bytes
}

/// How often `expected(0), expected(1), …` stands in the heap and anonymous mappings of this process.
fn occurrences(expected: &dyn Fn(usize) -> u8, len: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|l| l.contains(" rw-p ") && !l.contains("[stack") && !l.contains('/')) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        found += search(&mut memory, from, to, expected, len);
    }
    found
}

/// Reads byte by byte through a small window, so that the search itself holds no copy of what it reads.
fn search(memory: &mut File, from: u64, to: u64, expected: &dyn Fn(usize) -> u8, len: usize) -> usize {
    let mut window = [0u8; 4096];
    let (mut matched, mut found) = (0, 0);
    if memory.seek(SeekFrom::Start(from)).is_err() {
        return 0;
    }
    let mut left = to - from;
    while left > 0 {
        let Ok(read @ 1..) = memory.read(&mut window) else { break };
        for byte in &window[..read.min(left as usize)] {
            matched =
                if *byte == expected(matched) { matched + 1 } else { usize::from(*byte == expected(0)) };
            if matched == len {
                (matched, found) = (0, found + 1);
            }
        }
        left = left.saturating_sub(read as u64);
    }
    window.fill(0);
    std::hint::black_box(&window);
    found
}

/// One test, since a second one running beside it would be searched too.
#[test]
fn secrets_are_gone_when_they_are_dropped() {
    let value = SecretBytes::new(canary());
    assert!(occurrences(&canary_byte, CANARY_LEN) >= 1, "the search finds a secret that is alive");

    let key = DataKey::generate(1);
    let place = Place {
        instance: Uuid::nil(),
        environment: "prod",
        company: None,
        secret: Uuid::nil(),
        path: "made/up",
        version: 1,
        data_key: 1,
    };
    let sealed = seal(&key, &place, &value);
    let opened = open(&key, &place, &sealed).unwrap();
    assert!(opened.ct_eq(&value));
    let text = opened.expose(|bytes| String::from_utf8(bytes.clone()).unwrap());
    // Kept clear of both ends of its block, where an allocator that does not zero leaves its own notes.
    let mut formatted = format!("{:100}{text}{:100}", "", "");
    (0..10).for_each(|_| formatted.push_str(" and longer, so that the buffer moves"));
    drop((value, opened, text, formatted));
    assert_eq!(occurrences(&canary_byte, CANARY_LEN), 0, "after the value was dropped");

    let token = Token::generate(TokenKind::ServiceAccount);
    let half: Vec<u8> = token.text().expose(|text| text.iter().map(|b| b ^ 0x80).collect());
    let token_byte = |i: usize| half[i] ^ 0x80;
    assert!(occurrences(&token_byte, half.len()) >= 1);
    drop(Token::parse(token.text()).unwrap());
    drop(token);
    assert_eq!(occurrences(&token_byte, half.len()), 0, "after the token was dropped");

    key_memory_is_as_reported();
}

fn key_memory_is_as_reported() {
    let master = MasterKey::generate();
    let report = memory_protection();
    assert!(report.keys_in_arena + report.keys_in_plain_memory >= 1);
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let flagged = |flags: &[&str]| {
        let mut lines = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
        lines.any(|line| flags.iter().all(|flag| line.split_whitespace().any(|f| f == *flag)))
    };
    let rows = [(report.locked, "lo"), (report.excluded_from_dumps, "dd"), (report.wiped_on_fork, "wf")];
    let expected: Vec<&str> = rows.iter().filter(|(obtained, _)| *obtained).map(|(_, flag)| *flag).collect();
    // A kernel that emulates another may leave the flags out altogether.
    if report.keys_in_arena > 0 && smaps.contains("VmFlags:") {
        assert!(flagged(&expected), "no mapping has the flags {expected:?}");
    }
    drop(master);
}
