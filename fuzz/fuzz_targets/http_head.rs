//! Bytes of a connection: what reaches a handler is what a plain reading of RFC 9112 finds there, in this order, with
//! the target as it was sent.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made")
    });
}

fuzz_target!(|bytes: &[u8]| {
    let taken = RUNTIME.with(|runtime| runtime.block_on(keymoat_server::strict::taken(bytes)));
    let mut plain = plain_reading(bytes).into_iter();
    for request in taken {
        let (_, target) = &request;
        assert!(!target.contains(['#', '\\']) && target.starts_with('/'), "{request:?} was taken");
        assert!(plain.any(|found| found == request), "{request:?} is not in what was sent");
    }
});

/// Heads with proper lines and one way to say how long they are; nothing behind the first that is otherwise.
fn plain_reading(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let Some((request, length)) = head(&bytes[..end]) else { break };
        found.push(request);
        let Some(rest) = bytes[end + 4..].get(length..) else { break };
        bytes = rest;
    }
    found
}

fn head(head: &[u8]) -> Option<((String, String), usize)> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return None;
    }
    let (first, headers) = lines.split_first()?;
    let words: Vec<&str> = std::str::from_utf8(first).ok()?.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else { return None };
    let (mut hosts, mut lengths) = (0, Vec::new());
    for line in headers {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(std::str::from_utf8(value).ok()?.parse::<usize>().ok()?),
            b"transfer-encoding" => return None,
            _ => {}
        }
    }
    if hosts != 1 || lengths.len() > 1 {
        return None;
    }
    Some(((method.to_owned(), target.to_owned()), lengths.first().copied().unwrap_or(0)))
}
