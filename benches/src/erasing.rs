//! The servers to compare with, under the allocator that erases what is freed; see `allocator`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for developers: it reads its arguments and prints"
)]
#![allow(dead_code, reason = "the modules have more than is served here")]

mod floor;
mod still;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use keymoat_crypto::ZeroingAllocator;

#[global_allocator]
static ALLOCATOR: ZeroingAllocator = ZeroingAllocator;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime
        .context("failed to start the runtime")
        .and_then(|runtime| runtime.block_on(serve(&arguments)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn serve(arguments: &[String]) -> Result<()> {
    match arguments {
        [what] if what == "serve-still" => still::serve().await,
        [what, file] if what == "serve-floor" => floor::serve(file).await,
        _ => bail!("started by `keymoat-benches allocator`"),
    }
}
