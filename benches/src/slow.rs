//! Ten thousand clients that send half a head, and a thousand that send a body a byte at a time, while good ones ask on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::child::Server;
use crate::keymoat::{self, Vault};
use crate::load;

/// Measures good clients alone and beside slow ones.
pub(crate) async fn run(heads: usize, bodies: usize) -> Result<()> {
    allow_files(heads + bodies + 1_000)?;
    let vault = Vault::new().await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal").await?;
    let server = Arc::new(vault.serve().await?);
    let request = keymoat::reveal(&token, "shop");

    let good = Good::start(&server.address, &request);
    tokio::time::sleep(MEASURED).await;
    let idle = good.stop().await?;
    let rss_before = server.usage()?.rss_kib;

    let good = Good::start(&server.address, &request);
    let highest = Highest::start(Arc::clone(&server));
    let mut slow = JoinSet::new();
    for number in 0..heads + bodies {
        let address = server.address.clone();
        slow.spawn(async move {
            if number < heads { half_a_head(&address).await } else { slow_body(&address).await }
        });
    }
    let (mut longest, mut refused) = (Duration::ZERO, 0);
    while let Some(closed) = slow.join_next().await {
        match closed? {
            Ok(held) => longest = longest.max(held),
            Err(_) => refused += 1,
        }
    }
    let besides = good.stop().await?;
    let rss_highest = highest.stop().await?;

    println!(
        "\n{heads} half heads and {bodies} slow bodies, {GOOD} good clients with {PAUSE:?} between two requests"
    );
    println!("{:<34} {:>10} {:>10} {:>10} {:>8}", "", "requests", "p50", "p99", "failed");
    for (name, run) in [("good clients alone", &idle), ("good clients besides", &besides)] {
        let (p50, p99) = (run.at(0.5).as_secs_f64() * 1e3, run.at(0.99).as_secs_f64() * 1e3);
        println!("{name:<34} {:>10} {p50:>8.2}ms {p99:>8.2}ms {:>8}", run.took.len(), run.failed);
    }
    println!("p99 besides, to alone: {:.2}", besides.at(0.99).as_secs_f64() / idle.at(0.99).as_secs_f64());
    println!("memory added at most: {:.1} MiB", rss_highest.saturating_sub(rss_before) as f64 / 1024.0);
    println!(
        "the last slow one was closed after {:.1} s; {refused} could not connect",
        longest.as_secs_f64()
    );
    Ok(())
}

/// Connects, sends half a head, and waits to be closed.
async fn half_a_head(address: &str) -> Result<Duration> {
    let mut stream = TcpStream::connect(address).await?;
    let began = Instant::now();
    // The server may have closed it already.
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-half: ").await;
    let _ = stream.read(&mut [0; 16]).await;
    Ok(began.elapsed())
}

/// Sends a body a byte a second, until it is closed.
async fn slow_body(address: &str) -> Result<Duration> {
    let mut stream = TcpStream::connect(address).await?;
    let began = Instant::now();
    let head = "POST /api/v1/sign-in/code HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).await;
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let closing = async {
        let mut buffer = [0; 1024];
        while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = dripping => {}
        () = closing => {}
    }
    Ok(began.elapsed())
}

/// What good clients met with.
struct Met {
    took: Vec<Duration>,
    failed: usize,
}

impl Met {
    fn at(&self, part: f64) -> Duration {
        self.took.get(((self.took.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or_default()
    }
}

/// Good clients, who leave the server time; every so often each connects anew, which counts as part of its request.
struct Good {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Met>,
}

impl Good {
    fn start(address: &str, request: &[u8]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..GOOD {
            let (stop, address, request) = (Arc::clone(&stop), address.to_owned(), request.to_vec());
            clients.spawn(async move {
                let mut met = Met { took: Vec::new(), failed: 0 };
                while !stop.load(Ordering::Relaxed) {
                    if several(&address, &request, &mut met.took).await.is_err() {
                        met.failed += 1;
                    }
                }
                met
            });
        }
        Self { stop, clients }
    }

    async fn stop(mut self) -> Result<Met> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Met { took: Vec::new(), failed: 0 };
        while let Some(met) = self.clients.join_next().await {
            let met = met?;
            all.took.extend(met.took);
            all.failed += met.failed;
        }
        all.took.sort_unstable();
        Ok(all)
    }
}

/// A few requests on one connection.
async fn several(address: &str, request: &[u8], took: &mut Vec<Duration>) -> Result<()> {
    let mut began = Instant::now();
    let mut connection = load::Connection::open(address).await?;
    for _ in 0..ON_ONE_CONNECTION {
        if connection.ask(request).await? != 200 {
            bail!("not answered");
        }
        took.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
        began = Instant::now();
    }
    Ok(())
}

/// The most memory that a server was seen with.
struct Highest {
    stop: Arc<AtomicBool>,
    looking: tokio::task::JoinHandle<Result<u64>>,
}

impl Highest {
    fn start(server: Arc<Server>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let looking = tokio::spawn(async move {
            let mut highest = 0;
            while !is_over.load(Ordering::Relaxed) {
                highest = highest.max(server.usage()?.rss_kib);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(highest)
        });
        Self { stop, looking }
    }

    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.await?
    }
}

/// Lets this program and those that it starts open so many files.
pub(crate) fn allow_files(files: usize) -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = files as u64;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|most| most < wanted) {
        bail!("this needs {files} open files, and the system allows {:?}", limit.maximum);
    }
    limit.current = Some(wanted);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)
        .context("failed to allow more open files")
}

/// Clients who should notice nothing.
const GOOD: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// Then a client connects anew.
const ON_ONE_CONNECTION: usize = 20;
/// As long as it goes on with the slow ones, so that what the requests themselves take of memory is there before.
const MEASURED: Duration = Duration::from_secs(30);
