//! What the machine and the process give: memory that is not swapped, no core dumps, room on the disk, and whether a
//! running server can be reached from elsewhere, or tells its metrics to everybody.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use keymoat_crypto::MasterKey;

use super::Finding;
use crate::Context;

/// Checks machine and process.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let mut findings = vec![core_dumps(), memory()];
    findings.extend(free_space(&context.places.data, &context.places.config));
    if let Some(listeners) = listeners(context) {
        findings.push(reach(&listeners));
        findings.extend(metrics(&listeners));
    }
    findings
}

fn core_dumps() -> Finding {
    let process = keymoat_crypto::harden_process();
    match (process.dumpable, process.core_dumps_disabled) {
        (false, true) => {
            Finding::ok("core dumps", "are off, and other programs cannot read this one's memory")
        }
        (false, false) => {
            Finding::warn("core dumps", "could not be limited", "set `LimitCORE=0` or `ulimit -c 0`")
        }
        (true, _) => Finding::warn(
            "core dumps",
            "other programs of the same user can read this one's memory",
            "run Keymoat under a user of its own",
        ),
    }
}

fn memory() -> Finding {
    // The arena is there as soon as there is a key.
    let key = MasterKey::generate();
    let protection = keymoat_crypto::memory_protection();
    drop(key);
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() > 1;
    match (protection.locked, swaps) {
        (true, false) => Finding::ok("memory", "keys are locked into memory, and nothing is swapped here"),
        (true, true) => Finding::ok("memory", "keys are locked into memory and never swapped"),
        (false, false) => {
            Finding::ok("memory", "keys cannot be locked into memory, but nothing is swapped here")
        }
        (false, true) => Finding::warn(
            "memory",
            "keys cannot be locked into memory, and this machine swaps",
            "raise the limit (`LimitMEMLOCK=`, `ulimit -l`), encrypt the swap or switch it off",
        ),
    }
}

/// Room on the file systems of data and checkpoint: the record of every answer is written to both.
fn free_space(data: &Path, config: &Path) -> Vec<Finding> {
    let there = |path: &Path| path.ancestors().find(|path| path.exists()).map(Path::to_owned);
    let file_system = |path: &Path| std::fs::metadata(there(path)?).ok().map(|about| about.dev());
    let mut places = vec![data];
    if file_system(data) != file_system(config) {
        places.push(config);
    }
    let free = |path: &&Path| {
        let system = rustix::fs::statvfs(there(path)?).ok()?;
        Some(room(path, system.f_bavail.saturating_mul(system.f_frsize)))
    };
    places.iter().filter_map(free).collect()
}

fn room(path: &Path, free: u64) -> Finding {
    let says = format!("{} MiB free for `{}`", free / MIB, path.display());
    let todo = "make room: when a record cannot be written, nothing is handed out";
    match free {
        ..BAD_BELOW => Finding::bad("disk space", says, todo),
        BAD_BELOW..WARN_BELOW => Finding::warn("disk space", says, todo),
        WARN_BELOW.. => Finding::ok("disk space", says),
    }
}

/// Where the running server of this data directory listens on TCP; none when none runs, or it cannot be told.
fn listeners(context: &Context) -> Option<Vec<SocketAddr>> {
    let socket = keymoat_store::socket_in(&context.places.data);
    std::os::unix::net::UnixStream::connect(socket).ok()?;
    let pid = std::fs::read_to_string(context.places.data.join("lock")).ok()?;
    let pid: u32 = pid.trim().parse().ok()?;
    let sockets = socket_inodes(pid)?;
    let mut listeners = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        let own = text.lines().filter_map(listener).filter(|(_, inode)| sockets.contains(inode));
        listeners.extend(own.map(|(address, _)| address));
    }
    Some(listeners)
}

/// Whether other machines reach it.
fn reach(listeners: &[SocketAddr]) -> Finding {
    let Some(address) = listeners.iter().find(|address| !address.ip().is_loopback()) else {
        return Finding::ok("network", "the running server can be reached from this machine only");
    };
    Finding::warn(
        "network",
        format!("the running server speaks plain HTTP on {address}, which other machines reach"),
        "let it listen on 127.0.0.1 behind a proxy with TLS, unless something in front of it adds TLS already",
    )
}

/// Whether it tells its metrics to whoever asks; none when it does not listen on TCP, or does not answer.
fn metrics(listeners: &[SocketAddr]) -> Option<Finding> {
    let address = *listeners.first()?;
    // Who listens everywhere listens here.
    let near = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        ip if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let mut stream = TcpStream::connect_timeout(&near, ANSWERS_WITHIN).ok()?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    Some(match answer.ends_with(b" 200") {
        false => Finding::ok("metrics", "need a token, or the socket"),
        true => Finding::warn(
            "metrics",
            format!("whoever reaches {address} reads them without a token"),
            "start the server without --open-metrics, and give the scraper a token with `inspect` on `sys/metrics`",
        ),
    })
}

/// The numbers of a process's sockets, as `/proc/PID/fd` names them.
fn socket_inodes(pid: u32) -> Option<Vec<u64>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Some(links.filter_map(inode).collect())
}

/// A listening socket from a line of `/proc/net/tcp` or `tcp6` (proc(5)): its address and its number.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state != LISTENING {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    Some((SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?), inode.parse().ok()?))
}

/// An address in the kernel's form: words of four bytes in the machine's own order, in hexadecimal.
fn address(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// A server on this machine is far quicker.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// `TCP_LISTEN` of Linux's `tcp_states.h`.
const LISTENING: &str = "0A";
const MIB: u64 = 1024 * 1024;
/// A day of a busy server's records.
const BAD_BELOW: u64 = 100 * MIB;
/// Room for a backup and a few weeks of records.
const WARN_BELOW: u64 = 1024 * MIB;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Level;
    use proptest::prelude::*;

    #[test]
    fn room_on_the_disk() {
        let check =
            |free: u64, expected: Level| assert_eq!(room(Path::new("/x"), free).level, expected, "{free}");
        check(0, Level::Bad);
        check(100 * MIB - 1, Level::Bad);
        check(100 * MIB, Level::Warn);
        check(1024 * MIB - 1, Level::Warn);
        check(1024 * MIB, Level::Ok);
        check(u64::MAX, Level::Ok);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_the_kernel_and_their_addresses() {
        let check = |line: &str, expected: Option<(&str, u64)>| {
            let expected = expected.map(|(address, inode)| (address.parse().unwrap(), inode));
            assert_eq!(listener(line), expected, "{line}");
        };
        let rest = "00000000:00000000 00:00000000 00000000  1000        0 77 1 0000000000000000 100 0 0 10 0";
        check(&format!("0: 0100007F:2008 00000000:0000 0A {rest}"), Some(("127.0.0.1:8200", 77)));
        check(&format!("0: 00000000:2008 00000000:0000 0A {rest}"), Some(("0.0.0.0:8200", 77)));
        check(&format!("0: 0100007F:2008 00000000:0000 01 {rest}"), None);
        let v6 = "00000000000000000000000001000000:2008 00000000000000000000000000000000:0000";
        check(&format!("0: {v6} 0A {rest}"), Some(("[::1]:8200", 77)));
        check(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            None,
        );
        check("", None);
    }

    proptest! {
        #[test]
        fn reading_a_line_is_total(line in "\\PC{0,80}") {
            let _ = listener(&line);
            let _ = address(&line);
        }
    }
}
