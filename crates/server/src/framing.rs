//! Where one request ends and the next begins, decided strictly, before the HTTP parser sees the bytes.
//!
//! The parser takes a bare line feed for a line's end, drops a Content-Length beside a Transfer-Encoding, and drops
//! the second of two equal Content-Lengths, and cuts a target at its `#` (measured). A proxy in front may decide
//! otherwise, and what the two see as one request would differ (request smuggling, RFC 9112 §11.2). Here the byte that
//! completes such a head becomes a NUL, which the parser refuses with 400, and nothing after it on the connection is
//! looked at.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Follows the bytes of a connection from request to request. No IO.
#[derive(Debug, Default)]
struct Framing {
    state: State,
    head: Head,
    /// Whether a first head has ended, well or not.
    has_head: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Inside a request's head.
    #[default]
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// The connection ends with what is on its way: nothing more is looked at.
    Rest,
}

/// What is known of the head so far.
#[derive(Debug, Default)]
struct Head {
    /// The current line, cut at [`LINE_KEPT`].
    line: Vec<u8>,
    line_len: usize,
    last: u8,
    has_request_line: bool,
    request_line: RequestLine,
    content_length: Option<u64>,
    has_transfer_encoding: bool,
}

/// What is known of a request line so far; it may be far longer than what is kept of a line.
#[derive(Debug, Default)]
struct RequestLine {
    spaces: u32,
    /// A byte that has no place in it: no printable ASCII, or the beginning of a fragment, which is never sent
    /// (RFC 9110 §4.2.5).
    is_odd: bool,
}

/// What the end of a line means.
enum LineEnd {
    GoesOn,
    HeadEnds,
    Refused,
}

impl Framing {
    /// Looks at bytes as they come, and spoils the one that makes a request ambiguous.
    fn look(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Rest => return,
                State::Body(left) => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += usize::try_from(here).expect("at most the length of a slice");
                    self.body_left(left - here);
                }
                State::Head => {
                    let Some(end) = bytes[at..].iter().position(|b| *b == b'\n') else {
                        self.head.extend(&bytes[at..]);
                        return;
                    };
                    self.head.extend(&bytes[at..at + end]);
                    match self.head.end_line() {
                        LineEnd::GoesOn => {}
                        LineEnd::HeadEnds => self.head_ends(),
                        LineEnd::Refused => {
                            bytes[at + end] = 0;
                            self.has_head = true;
                            self.state = State::Rest;
                            return;
                        }
                    }
                    at += end + 1;
                }
            }
        }
    }

    fn head_ends(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.has_head = true;
        match head.has_transfer_encoding {
            // The edge refuses such a request and ends the connection.
            true => self.state = State::Rest,
            false => self.body_left(head.content_length.unwrap_or(0)),
        }
    }

    fn body_left(&mut self, left: u64) {
        self.state = if left == 0 { State::Head } else { State::Body(left) };
    }
}

impl Head {
    fn extend(&mut self, bytes: &[u8]) {
        if !self.has_request_line {
            self.request_line.extend(bytes);
        }
        let room = LINE_KEPT.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.line_len += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self) -> LineEnd {
        let line = std::mem::take(&mut self.line);
        let len = std::mem::take(&mut self.line_len);
        if len == 0 || std::mem::take(&mut self.last) != b'\r' {
            return LineEnd::Refused;
        }
        let is_whole = len == line.len();
        let text = if is_whole { &line[..len - 1] } else { &line[..] };
        if text.is_empty() {
            let is_ambiguous = self.has_transfer_encoding && self.content_length.is_some();
            return if is_ambiguous || !self.has_request_line { LineEnd::Refused } else { LineEnd::HeadEnds };
        }
        if !std::mem::replace(&mut self.has_request_line, true) {
            return if self.request_line.is_whole() { LineEnd::GoesOn } else { LineEnd::Refused };
        }
        self.header(text, is_whole)
    }

    fn header(&mut self, line: &[u8], is_whole: bool) -> LineEnd {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = (line[..colon].trim_ascii(), line.get(colon + 1..).unwrap_or_default());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.has_transfer_encoding = true;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let Some(length) = length(value.trim_ascii()).filter(|_| is_whole) else {
                return LineEnd::Refused;
            };
            if self.content_length.replace(length).is_some() {
                return LineEnd::Refused;
            }
        }
        LineEnd::GoesOn
    }
}

impl RequestLine {
    fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b' ' => self.spaces = self.spaces.saturating_add(1),
                // The end of the line; the parser refuses it anywhere else.
                b'\r' => {}
                byte => self.is_odd |= !byte.is_ascii_graphic() || *byte == b'#',
            }
        }
    }

    /// Method, target and version, with one space between them (RFC 9112 §3).
    fn is_whole(&self) -> bool {
        self.spaces == 2 && !self.is_odd
    }
}

/// Digits only (RFC 9110 §8.6).
fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A connection that is framed strictly, and that ends when its other end takes nothing for a while.
pub(crate) struct StrictIo<S> {
    inner: S,
    framing: Framing,
    /// What was read and looked at before the parser asked for it.
    ahead: Vec<u8>,
    write_within: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StrictIo<S> {
    /// Wraps a connection; a write that makes no progress for `write_within` ends it.
    pub(crate) fn new(inner: S, write_within: Duration) -> Self {
        Self { inner, framing: Framing::default(), ahead: Vec::new(), write_within, stalled: None }
    }

    fn progress<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let within = self.write_within;
        let deadline = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> StrictIo<S> {
    /// Waits for the first head, whole or refused, or for more than `most` bytes. Until then a connection costs little
    /// more than the bytes that have come.
    ///
    /// # Errors
    /// When the connection ends before.
    pub(crate) async fn first_head(&mut self, most: usize) -> io::Result<()> {
        while !self.framing.has_head && self.ahead.len() <= most {
            std::future::poll_fn(|cx| self.poll_ahead(cx)).await?;
        }
        Ok(())
    }

    /// Reads what there is. The buffer is on the stack: nothing is held while nothing comes.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_AT_ONCE];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.framing.look(buffer.filled_mut());
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let here = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[..here]);
            this.ahead.drain(..here);
            if this.ahead.is_empty() {
                this.ahead = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.framing.look(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.progress(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_flush(cx);
        this.progress(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.progress(cx, outcome)
    }
}

/// Far longer than a line that says how long a body is.
const LINE_KEPT: usize = 128;
/// Most heads at once.
const READ_AT_ONCE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes as the parser gets them, fed in pieces of a size.
    fn seen(input: &[u8], piece: usize) -> Vec<u8> {
        let mut framing = Framing::default();
        let mut bytes = input.to_vec();
        bytes.chunks_mut(piece).for_each(|chunk| framing.look(chunk));
        bytes
    }

    #[test]
    fn requests_and_whether_they_pass() {
        #[track_caller]
        fn check(input: &str, passes: bool) {
            for piece in [1, 2, 3, 7, 4096] {
                let spoilt = seen(input.as_bytes(), piece) != input.as_bytes();
                assert_eq!(!spoilt, passes, "{input:?} in pieces of {piece}");
            }
        }
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true);
        check("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na\nb", true);
        check("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n", true);
        check("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\n\r\n", false);
        check("GET /?a=%20&b={} HTTP/1.1\r\nHost: a\r\n\r\n", true);
        check("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("GET /\r\nHost: a\r\n\r\n", false);
        check("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("GET / HTTP/1.1\r\nHost: a\r\nX: # \u{e9} a b c\r\n\r\n", true);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", false);
        check("GET / HTTP/1.1\r\nHost: a\n\r\n", false);
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", false);
        check("\r\nGET / HTTP/1.1\r\n\r\n", false);
        check("\nGET / HTTP/1.1\r\n\r\n", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 4\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length:\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\nabc", false);
        check("PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", false);
        check("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", false);
        check("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\n\n", true);
        let long = "x".repeat(5_000);
        check(&format!("GET /{long} HTTP/1.1\r\nX: {long}\r\n\r\n"), true);
        check(&format!("PUT / HTTP/1.1\r\nContent-Length: {}3\r\n\r\nabc", " ".repeat(500)), false);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (near, mut far) = tokio::io::duplex(16);
        let mut io = StrictIo::new(near, Duration::from_secs(30));
        io.write_all(&[0; 16]).await.unwrap();
        let error = io.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        far.read_exact(&mut [0; 16]).await.unwrap();
        io.write_all(&[0; 16]).await.unwrap();
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(input in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let out = seen(&input, piece);
            prop_assert_eq!(&out, &seen(&input, 4096));
            prop_assert!(input.iter().zip(&out).filter(|(a, b)| a != b).count() <= 1);
        }

        #[test]
        fn bodies_are_passed_over(bodies in proptest::collection::vec(".{0,40}", 1..6), piece in 1usize..20) {
            let wire: String = bodies
                .iter()
                .map(|body| format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
                .collect();
            prop_assert_eq!(seen(wire.as_bytes(), piece), wire.into_bytes());
        }
    }
}
