//! Looks for keys in this process's own memory after its vault was sealed, under the allocator that the binary uses.
//!
//! Linux only: `/proc/self/mem` is what it looks with. One test, since a second one beside it would be searched too.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use keymoat_crypto::{MasterKey, SecretBytes, ZeroingAllocator, memory_protection};
use keymoat_server::{Custody, Doors, Peer, Terms};
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{Clock, Durability, NewSlot, NewVault, SealedVault, Surroundings};
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: ZeroingAllocator = ZeroingAllocator;

struct Standing;

impl Clock for Standing {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_780_272_000).unwrap()
    }
}

/// Bytes to look for, kept in a form that the search does not find.
struct Masked(Vec<u8>);

impl Masked {
    fn of(secret: &SecretBytes) -> Self {
        // EXPOSE: a made-up key of a test.
        Self(secret.expose(|bytes| bytes.iter().map(|byte| byte ^ MASK).collect()))
    }

    /// How often they stand in the heap and the anonymous mappings of this process.
    fn occurrences(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = File::open("/proc/self/mem").unwrap();
        let lines =
            maps.lines().filter(|l| l.contains(" rw-p ") && !l.contains("[stack") && !l.contains('/'));
        lines.map(|line| self.search(&mut memory, line)).sum()
    }

    /// Reads through a small window, so that the search itself holds no copy of what it reads.
    fn search(&self, memory: &mut File, line: &str) -> usize {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let (mut matched, mut found, mut left) = (0, 0, to - from);
        let mut window = [0u8; 4096];
        if memory.seek(SeekFrom::Start(from)).is_err() {
            return 0;
        }
        while left > 0 {
            let Ok(read @ 1..) = memory.read(&mut window) else { break };
            for byte in &window[..read.min(left as usize)] {
                let byte = byte ^ MASK;
                matched = if byte == self.0[matched] { matched + 1 } else { usize::from(byte == self.0[0]) };
                if matched == self.0.len() {
                    (matched, found) = (0, found + 1);
                }
            }
            left = left.saturating_sub(read as u64);
        }
        window.fill(0);
        std::hint::black_box(&window);
        found
    }
}

async fn ask(custody: &Custody, method: &str, path: &str, body: Body) -> (u16, Vec<u8>) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    request.extensions_mut().insert(Peer::OsUser { name: "ana".to_owned() });
    let (parts, body) = custody.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status.as_u16(), body.collect().await.unwrap().to_bytes().to_vec())
}

fn keys_alive() -> usize {
    let report = memory_protection();
    report.keys_in_arena + report.keys_in_plain_memory
}

fn key_offer(text: &SecretBytes) -> Body {
    // EXPOSE: a made-up key of a test.
    Body::from(text.expose(|bytes| format!("{{\"key\":\"{}\"}}", String::from_utf8_lossy(bytes))))
}

#[tokio::test]
async fn nothing_of_a_sealed_vault_is_left_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    let surroundings = Surroundings {
        clock: Arc::new(Standing),
        catalogue: Arc::new(keymoat_detect::Catalogue::builtin().clone()),
        outside_dir: dir.path().join("outside"),
        durability: Durability::Os,
        database: None,
        key_at_hand: None,
    };
    let master = MasterKey::generate();
    let text = master.to_text();
    let (master_text, value) =
        (Masked::of(&text), SecretBytes::from_slice(b"sk_live_made_up_for_the_memory_test"));
    let value_bytes = Masked::of(&value);
    let empty = SealedVault::open(&dir.path().join("data"), Durability::Os).unwrap().err().unwrap();
    let new = NewVault {
        instance: uuid::Uuid::from_u128(7),
        slot: NewSlot { source: SlotSource::Key, master },
        os_user: "ana".to_owned(),
        environments: vec!["prod".parse().unwrap()],
    };
    let (vault, code) = empty.create(new, surroundings.clone()).await.unwrap();
    drop(code);
    let custody = Custody::open(
        vault,
        Terms { surroundings, doors: Doors::default(), certificate: None, tend: |_| Box::pin(async {}) },
    );
    // EXPOSE: a made-up value of a test.
    let put =
        value.expose(|bytes| format!("{{\"value\":{{\"text\":\"{}\"}}}}", String::from_utf8_lossy(bytes)));
    drop(value);
    let (status, _) = ask(&custody, "PUT", "/api/v1/secrets/prod/stripe", Body::from(put)).await;
    assert_eq!(status, 201);
    let (status, _) = ask(&custody, "POST", "/api/v1/reveal/prod/stripe", Body::empty()).await;
    assert_eq!(status, 200);
    assert!(keys_alive() >= 4, "root, instance, data and pepper keys are alive: {}", keys_alive());

    for _ in 0..2 {
        assert_eq!(ask(&custody, "POST", "/api/v1/seal", Body::empty()).await.0, 204);
        assert_eq!(keys_alive(), 0, "every key is erased and gone");
        assert_eq!(value_bytes.occurrences(), 0, "the value is nowhere");
        assert_eq!(ask(&custody, "POST", "/api/v1/unseal", key_offer(&text)).await.0, 200);
        assert!(keys_alive() >= 4);
        assert!(master_text.occurrences() >= 1, "the search finds what is there: the test's own copy");
    }
    drop(text);
    assert_eq!(master_text.occurrences(), 0, "the master key that was offered is nowhere");
    custody.close().await.unwrap();
    assert_eq!(keys_alive(), 0);
}

const MASK: u8 = 0xa5;
