//! A closed loop of HTTP/1.1 clients: each connection sends its next request when it has the last answer.
//!
//! It shares the machine with the server, for all servers alike. It reads no more of an answer than where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a run of requests amounts to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Half of the answers came within this.
    pub(crate) p50: Duration,
    /// 99 of 100 answers came within this.
    pub(crate) p99: Duration,
}

/// Sends what `request` makes of a connection's number and its request's number, for a time.
pub(crate) async fn for_a_time(
    address: &str,
    connections: usize,
    time: Duration,
    request: impl Fn(usize, usize) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Run> {
    run(address, connections, Until::Stopped, Some(time), request).await
}

/// Sends so many requests.
pub(crate) async fn so_many(
    address: &str,
    connections: usize,
    requests: usize,
    request: impl Fn(usize, usize) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Run> {
    run(address, connections, Until::Sent(requests.div_ceil(connections)), None, request).await
}

/// Sends one request and returns its answer.
pub(crate) async fn once(address: &str, request: &[u8]) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("failed to reach {address}"))?;
    stream.write_all(request).await?;
    let mut buffer = Vec::new();
    let (status, length) = answer(&mut stream, &mut buffer).await?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    if status >= 300 {
        bail!("the server answers {status}: {text}");
    }
    Ok(text)
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("failed to reach {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024) })
    }

    /// Sends a request and returns the status of its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        let (status, length) = answer(&mut self.stream, &mut self.buffer).await?;
        self.buffer.drain(..length);
        Ok(status)
    }
}

/// A request as bytes.
pub(crate) fn http(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text =
        format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

#[derive(Clone, Copy)]
enum Until {
    Sent(usize),
    Stopped,
}

async fn run(
    address: &str,
    connections: usize,
    until: Until,
    time: Option<Duration>,
    request: impl Fn(usize, usize) -> Vec<u8> + Send + Sync + 'static,
) -> Result<Run> {
    let (stop, request) = (Arc::new(AtomicBool::new(false)), Arc::new(request));
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for connection in 0..connections {
        let (stop, request, address) = (Arc::clone(&stop), Arc::clone(&request), address.to_owned());
        clients
            .spawn(async move { client(&address, until, &stop, |number| request(connection, number)).await });
    }
    if let Some(time) = time {
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
    }
    let mut took = Vec::new();
    while let Some(client) = clients.join_next().await {
        took.extend(client??);
    }
    Ok(summary(took, began.elapsed()))
}

async fn client(
    address: &str,
    until: Until,
    stop: &AtomicBool,
    request: impl Fn(usize) -> Vec<u8>,
) -> Result<Vec<Duration>> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("failed to reach {address}"))?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut took) = (Vec::with_capacity(4096), Vec::new());
    loop {
        let is_over = match until {
            Until::Sent(requests) => took.len() >= requests,
            Until::Stopped => stop.load(Ordering::Relaxed),
        };
        if is_over {
            return Ok(took);
        }
        let bytes = request(took.len());
        let began = Instant::now();
        stream.write_all(&bytes).await?;
        let (status, length) = answer(&mut stream, &mut buffer).await?;
        took.push(began.elapsed());
        if status >= 300 {
            bail!("the server answers {status}: {}", String::from_utf8_lossy(&buffer[..length]));
        }
        buffer.drain(..length);
    }
}

/// Reads one answer into the buffer: its status, and its length with its head.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, usize)> {
    loop {
        if let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) {
            let (status, body) = read_head(&buffer[..head])?;
            while buffer.len() < head + body {
                if stream.read_buf(buffer).await? == 0 {
                    bail!("the server closed the connection inside an answer");
                }
            }
            return Ok((status, head + body));
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
    }
}

fn read_head(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head).context("the head of an answer is not text")?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).context("an answer has no status")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    match (status, length) {
        (204 | 304, _) => Ok((status, 0)),
        (_, Some(length)) => Ok((status, length)),
        (_, None) => bail!("an answer does not say how long it is"),
    }
}

fn summary(mut took: Vec<Duration>, time: Duration) -> Run {
    if took.is_empty() {
        return Run::default();
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    Run { rate: took.len() as f64 / time.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers() {
        fn check(head: &str, expected: Option<(u16, usize)>) {
            assert_eq!(read_head(head.as_bytes()).ok(), expected, "{head:?}");
        }
        check("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", Some((200, 12)));
        check("HTTP/1.1 204 No Content\r\n\r\n", Some((204, 0)));
        check("HTTP/1.1 200 OK\r\n\r\n", None);
        check("nonsense\r\n\r\n", None);
    }

    #[test]
    fn summaries() {
        let took = (1..=100).map(Duration::from_millis).collect();
        let run = summary(took, Duration::from_secs(2));
        assert_eq!(
            (run.rate, run.p50, run.p99),
            (50.0, Duration::from_millis(50), Duration::from_millis(99))
        );
        assert_eq!(summary(Vec::new(), Duration::from_secs(1)).rate, 0.0);
    }
}
