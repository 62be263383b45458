//! The audit log as JSON lines, handed out piece by piece as the front desk reads it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::body::Frame;
use keymoat_core::tree::Hash;
use keymoat_vault::{AuditExport, Code, PersonalExport, VaultError};
use tokio::sync::mpsc;

use crate::AppState;
use crate::api::audit::filter_of;
use crate::context::SignedIn;
use crate::convert;
use crate::params::Params;
use crate::problem::Problem;

/// The records under the newest checkpoint. A refusal is an answer of its own; what fails later breaks the answer off,
/// so that nobody takes half an export for a whole one.
pub(crate) async fn export(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Result<Response, Problem> {
    let account = params.get("account")?;
    let export = app.vault.export_audit(&caller, filter_of(&params)?, account.as_ref()).await?;
    streamed(&app, export).await
}

/// Records with what proves them in the headers.
pub(crate) async fn streamed(app: &AppState, export: AuditExport) -> Result<Response, Problem> {
    let header = |text: String| HeaderValue::try_from(text).map_err(|_| Problem::internal());
    let (checkpoint, key) = (export.checkpoint().to_owned(), app.vault.audit_key());
    let proof = match export.span().await? {
        // A log without archived records begins with its first one, and needs no more than the checkpoint.
        Some(span) if span.start.size() > 0 || span.consistency != Vec::<Hash>::new() => {
            let proof = convert::archive_proof(&span, checkpoint.clone(), key.clone());
            let proof = serde_json::to_vec(&proof).map_err(|_| Problem::internal())?;
            Some(header(BASE64.encode(proof))?)
        }
        _ => None,
    };
    let mut response = lines(export);
    let headers = response.headers_mut();
    headers.insert(CHECKPOINT_HEADER, header(BASE64.encode(checkpoint))?);
    headers.insert(KEY_HEADER, header(key)?);
    if let Some(proof) = proof {
        headers.insert(ARCHIVE_PROOF_HEADER, proof);
    }
    Ok(response)
}

/// Lines as they are read.
pub(crate) fn lines(source: impl LineSource) -> Response {
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    // It ends by itself when the reader has gone.
    tokio::spawn(hand_out(source, sender));
    let mut response = Response::new(Body::new(Lines { pieces, has_ended: false }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    response
}

/// Something that the front desk hands out a piece at a time.
pub(crate) trait LineSource: Send + 'static {
    /// The next lines; none when there are no more.
    fn next_lines(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, VaultError>> + Send;
}

impl LineSource for AuditExport {
    async fn next_lines(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        self.next().await
    }
}

impl LineSource for PersonalExport {
    async fn next_lines(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        self.next().await
    }
}

async fn hand_out(mut source: impl LineSource, pieces: mpsc::Sender<Piece>) {
    loop {
        let piece = match source.next_lines().await {
            Ok(Some(lines)) => Piece::Lines(lines.into()),
            Ok(None) => Piece::End,
            Err(error) => Piece::Failed(error),
        };
        let is_last = !matches!(piece, Piece::Lines(_));
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

enum Piece {
    Lines(Bytes),
    /// There are no more; without it the export stopped short.
    End,
    Failed(VaultError),
}

/// The lines as they come; it ends well only with the last one.
struct Lines {
    pieces: mpsc::Receiver<Piece>,
    has_ended: bool,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = VaultError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, VaultError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Lines(lines)) => Some(Ok(Frame::data(lines))),
            Some(Piece::End) => {
                self.has_ended = true;
                None
            }
            Some(Piece::Failed(error)) => {
                tracing::error!(%error, "an export of the audit log failed");
                self.has_ended = true;
                Some(Err(error))
            }
            None => {
                self.has_ended = true;
                Some(Err(VaultError::new(Code::Internal, "the export stopped short")))
            }
        })
    }
}

/// Carries the signed checkpoint over the exported records, in base64, since it has several lines.
pub const CHECKPOINT_HEADER: &str = "keymoat-checkpoint";
/// Carries what ties archived records, or the records after them, to the checkpoint: JSON, in base64.
pub const ARCHIVE_PROOF_HEADER: &str = "keymoat-archive-proof";
/// Carries the key that signs checkpoints, as a C2SP verifier key.
pub const KEY_HEADER: &str = "keymoat-audit-key";
/// Enough that reading and sending do not wait for each other.
const PIECES_WAITING: usize = 4;
