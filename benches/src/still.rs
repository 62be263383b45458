//! A server that answers every request with the same JSON: what the HTTP library alone can do on this machine.

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::any;
use tokio::net::TcpListener;

/// What it is called in tables.
pub(crate) const NAME: &str = "constant JSON, axum";

/// Serves on a free port of this machine and says which.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let router =
        Router::new().fallback(any(|| async { json(r#"{"value":{"text":"made up"},"version":1}"#) }));
    axum::serve(listener, router).await?;
    Ok(())
}

/// JSON as an answer.
pub(crate) fn json(body: impl Into<Body>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], body.into())
}
