//! A backup, handed out piece by piece as the front desk makes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::body::Frame;
use keymoat_vault::{BackupSummary, VaultError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::AppState;
use crate::context::SignedIn;
use crate::problem::Problem;

/// Everything that the vault holds, encrypted. A refusal is an answer of its own; what fails later breaks the answer
/// off, so that nobody takes half a backup for a whole one.
pub(crate) async fn backup(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Result<Response, Problem> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let runtime = tokio::runtime::Handle::current();
    let sink = move |piece: &[u8]| -> io::Result<()> {
        // A reader that has stopped would keep the database's log from ever being emptied.
        let sending = tokio::time::timeout(TAKEN_WITHIN, sender.send(Bytes::copy_from_slice(piece)));
        match runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader has gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the reader takes nothing any more")),
        }
    };
    let vault = app.vault.clone();
    let job = tokio::spawn(async move { vault.backup(&caller, sink).await });
    let Some(first) = pieces.recv().await else {
        return match finished(job.await) {
            Ok(_) => Err(Problem::internal()),
            Err(error) => Err(error.into()),
        };
    };
    let mut response = Response::new(Body::new(Pieces { first: Some(first), pieces, job: Some(job) }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// The pieces as they come; it ends well only when the front desk says that the backup is whole.
struct Pieces {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    job: Option<JoinHandle<Result<BackupSummary, VaultError>>>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = VaultError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, VaultError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(piece) = ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(job) = &mut self.job else { return Poll::Ready(None) };
        let outcome = finished(ready!(Pin::new(job).poll(cx)));
        self.job = None;
        Poll::Ready(outcome.err().map(Err))
    }
}

fn finished(
    outcome: Result<Result<BackupSummary, VaultError>, tokio::task::JoinError>,
) -> Result<BackupSummary, VaultError> {
    outcome.unwrap_or_else(|error| {
        tracing::error!(%error, "a backup stopped short");
        Err(VaultError::new(keymoat_vault::Code::Internal, "the backup stopped short"))
    })
}

/// Enough that making and sending do not wait for each other.
const PIECES_WAITING: usize = 8;
/// Longer than any disk or network that still works needs for a few pieces.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
