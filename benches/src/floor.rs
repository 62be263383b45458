//! The least that an audited read can cost: look up a token's HMAC, write a record durably in a group commit, decrypt.
//!
//! No policies, no tree, no signatures, no copies of a value erased: what Keymoat adds to this is what it costs.

use std::sync::Arc;

use anyhow::{Context, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::still::json;

/// The token that it knows.
pub(crate) const TOKEN: &str = "made-up-token-of-the-floor";

struct Floor {
    pepper: hmac::Key,
    digest: Vec<u8>,
    key: LessSafeKey,
    ciphertext: Vec<u8>,
    writer: mpsc::Sender<oneshot::Sender<()>>,
}

/// Serves on a free port of this machine, with its database in `file`, and says where.
pub(crate) async fn serve(file: &str) -> Result<()> {
    let connection = open(file)?;
    let (writer, jobs) = mpsc::channel(4096);
    std::thread::spawn(move || write(connection, jobs));
    let pepper = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    let digest = hmac::sign(&pepper, TOKEN.as_bytes()).as_ref().to_vec();
    let key =
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[2; 32]).ok().context("a key of 32 bytes fits")?);
    let mut ciphertext = b"made up value of 32 bytes, yes!!".to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut ciphertext).ok().context("a short text fits")?;
    let state = Arc::new(Floor { pepper, digest, key, ciphertext, writer });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(post(read)).with_state(state)).await?;
    Ok(())
}

async fn read(State(floor): State<Arc<Floor>>, headers: HeaderMap) -> Response {
    let token =
        headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_known = token.is_some_and(|token| hmac::verify(&floor.pepper, token, &floor.digest).is_ok());
    if !is_known {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (done, written) = oneshot::channel();
    if floor.writer.send(done).await.is_err() || written.await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut text = floor.ciphertext.clone();
    match floor.key.open_in_place(nonce(), Aad::empty(), &mut text) {
        Ok(text) => json(format!(r#"{{"value":"{}"}}"#, BASE64_STANDARD.encode(text))).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn open(file: &str) -> Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE log (seq INTEGER PRIMARY KEY, record BLOB NOT NULL)")?;
    Ok(connection)
}

/// One transaction for whatever came while the last one was on its way to the disk.
fn write(connection: Connection, mut jobs: mpsc::Receiver<oneshot::Sender<()>>) {
    let record = vec![b'x'; RECORD_BYTES];
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(next) = jobs.try_recv() {
            batch.push(next);
        }
        let commit = || -> rusqlite::Result<()> {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let mut insert = connection.prepare_cached("INSERT INTO log (record) VALUES (?1)")?;
            for _ in &batch {
                insert.execute([&record])?;
            }
            connection.execute_batch("COMMIT")
        };
        if commit().is_err() {
            return;
        }
        for done in batch {
            // Who no longer waits is not told.
            let _ = done.send(());
        }
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([3; 12])
}

/// About what a record of Keymoat takes.
const RECORD_BYTES: usize = 400;
