//! What is left in the memory of a running server of the values that it took and gave: nothing.
//!
//! Linux only, and only where the kernel lets one process look into another that is not dumpable: for root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::Home;

#[test]
fn of_200_values_over_200_connections_nothing_is_left_in_memory() {
    let home = Home::with_vault();
    home.ok(&["policy", "put", "all", "--allow", "write,reveal", "--on", "prod/**"]);
    home.ok(&["account", "add", "shop", "--kind", "service-account", "--policy", "all"]);
    let token = home.ok(&["token", "create", "shop", "--ttl", "1h"]).stdout.trim().to_owned();
    let server = home.serve();
    let (address, pid) = (server.address().replace("http://", ""), server.child.id());
    let values: Vec<String> = (0..VALUES).map(value).collect();
    let windows = Windows::of(&values);

    std::thread::scope(|scope| {
        for (number, value) in values.iter().enumerate() {
            let (address, token) = (&address, &token);
            scope.spawn(move || {
                let mut connection = TcpStream::connect(address).unwrap();
                let put = format!("{{\"value\":{{\"text\":\"{value}\"}}}}");
                let path = format!("prod/memory/n{number}");
                let (status, _) =
                    ask(&mut connection, "PUT", &format!("/api/v1/secrets/{path}"), token, &put);
                assert_eq!(status, 201);
                let (status, answer) =
                    ask(&mut connection, "POST", &format!("/api/v1/reveal/{path}"), token, "{}");
                assert!(status == 200 && answer.contains(value), "{status} {answer}");
            });
        }
    });
    // The search finds what is there: a value on its way, whose request has not ended.
    let mut half = TcpStream::connect(&address).unwrap();
    let on_its_way = value(VALUES);
    let head = request("PUT", "/api/v1/secrets/prod/memory/half", &token, 1000);
    write!(half, "{head}{{\"value\":{{\"text\":\"{on_its_way}").unwrap();
    let it = Windows::of(&[on_its_way]);
    match until(|found| found > 0, || it.found_in(pid)) {
        Err(error) => return eprintln!("SKIP memory_of_a_server: cannot look into it: {error}"),
        Ok(found) => assert!(found > 0, "the search does not find a value that is there"),
    }
    drop(half);

    // Connections close when they have heard of it; then it is gone.
    let left = until(|found| found == 0, || windows.found_in(pid)).unwrap();
    assert_eq!(left, 0, "windows of {WINDOW} bytes of values in the server's memory");
    assert_eq!(
        until(|found| found == 0, || it.found_in(pid)).unwrap(),
        0,
        "what was on its way is still there"
    );
    println!("FIGURE memory: 0 of {} windows of values left in memory", windows.all.len());
}

/// Every window of [`WINDOW`] bytes of some values: less than a whole value is worth something too, and an allocator
/// overwrites the beginning of what it frees.
struct Windows {
    all: HashSet<[u8; WINDOW]>,
    /// The first two bytes of them, to look at the rest only where it may be worth it.
    begins: Vec<bool>,
}

impl Windows {
    fn of(values: &[String]) -> Self {
        let all: HashSet<[u8; WINDOW]> =
            values.iter().flat_map(|value| value.as_bytes().array_windows::<WINDOW>().copied()).collect();
        let mut begins = vec![false; 1 << 16];
        all.iter().for_each(|window| begins[usize::from(u16::from_le_bytes([window[0], window[1]]))] = true);
        Self { all, begins }
    }

    /// How many stand in what a process can write to: heap, stacks, and everything else.
    fn found_in(&self, pid: u32) -> std::io::Result<usize> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mut memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let range = line.split_once(' ').map_or(line, |(range, _)| range);
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // What cannot be read is no memory of its own.
            if memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes)).is_ok() {
                found += bytes.array_windows::<WINDOW>().filter(|window| self.has(window)).count();
            }
        }
        Ok(found)
    }

    fn has(&self, window: &[u8; WINDOW]) -> bool {
        self.begins[usize::from(u16::from_le_bytes([window[0], window[1]]))] && self.all.contains(window)
    }
}

/// Looks again until it is as expected, or for as long as a server may need to let go of a connection.
fn until(
    is_expected: impl Fn(usize) -> bool,
    look: impl Fn() -> std::io::Result<usize>,
) -> std::io::Result<usize> {
    let begun = Instant::now();
    loop {
        let found = look()?;
        if is_expected(found) || begun.elapsed() > PATIENCE {
            return Ok(found);
        }
    }
}

fn ask(connection: &mut TcpStream, method: &str, target: &str, token: &str, body: &str) -> (u16, String) {
    write!(connection, "{}{body}", request(method, target, token, body.len())).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = connection.read(&mut buffer).unwrap();
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if read == 0 || length.is_some_and(|length: usize| body.len() >= length) {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
        }
    }
}

fn request(method: &str, target: &str, token: &str, length: usize) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// A made-up value that is like no other.
fn value(number: usize) -> String {
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6d65_6d6f_7279;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 20) as usize % LETTERS.len()])
    };
    (0..LENGTH).map(|_| letter()).collect()
}

const VALUES: usize = 200;
const LENGTH: usize = 48;
const WINDOW: usize = 12;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const PATIENCE: Duration = Duration::from_secs(10);
