//! The corpus: requests as bytes, and what becomes of them. One list for the server alone and behind proxies.

/// A row of the corpus.
pub struct Row {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub then: Then,
}

impl Row {
    /// On a socket of this machine, where a request needs no name of a server and no browser is led to.
    pub fn then_on_the_socket(&self) -> Then {
        match (self.name, self.then.refused) {
            ("no Host", _) | (_, Some(421)) => taken(1),
            ("no Host on HTTP/1.0", _) => LAST,
            _ => self.then,
        }
    }
}

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Then {
    /// How many requests get past the edge, each answered once.
    pub handled: usize,
    /// The status of the refusal that comes next.
    pub refused: Option<u16>,
    /// Whether the connection ends, so that nothing behind these bytes is looked at.
    pub ends: bool,
}

/// So many requests are taken, and the connection goes on.
const fn taken(handled: usize) -> Then {
    Then { handled, refused: None, ends: false }
}

/// One request is taken, and the connection ends because it says so.
const LAST: Then = Then { handled: 1, refused: None, ends: true };

/// Nothing is taken, and where the next request begins is certain.
const fn keeps(status: u16) -> Then {
    Then { handled: 0, refused: Some(status), ends: false }
}

/// Nothing is taken, and nothing behind it is looked at.
const fn ends(status: u16) -> Then {
    then_ends(0, status)
}

/// So many are taken; then nothing is looked at any more.
const fn then_ends(handled: usize, status: u16) -> Then {
    Then { handled, refused: Some(status), ends: true }
}

/// A whole good request, hidden in what one of two readers takes for something else.
const HIDDEN: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Mark: hidden\r\n\r\n";

fn row(name: &'static str, bytes: impl Into<Vec<u8>>, then: Then) -> Row {
    Row { name, bytes: bytes.into(), then }
}

/// A GET with more header lines, each with its own end.
fn get(lines: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

/// A POST with more header lines and what follows the head.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST /healthz HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{rest}").into_bytes()
}

/// A GET of a target.
fn target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat()
}

/// All rows.
pub fn rows() -> Vec<Row> {
    let parts = [good(), hosts(), lines(), lengths(), encodings(), request_lines(), targets(), values(), limits()];
    parts.into_iter().flatten().collect()
}

fn good() -> Vec<Row> {
    let two = [get(""), get("")].concat();
    let body_and_more = [post("Content-Length: 5\r\n", "hello"), get("")].concat();
    vec![
        row("a plain GET", get(""), taken(1)),
        row("two at once", two, taken(2)),
        row("Connection: close", get("Connection: close\r\n"), LAST),
        row("Connection: keep-alive", get("Connection: keep-alive\r\n"), taken(1)),
        row("HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", LAST),
        row("HTTP/1.0 that is kept", "GET /healthz HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", taken(1)),
        row("a body, and a request behind it", body_and_more, taken(2)),
        row("an empty body", post("Content-Length: 0\r\n", ""), taken(1)),
        row("a length of zero on a GET", get("Content-Length: 0\r\n"), taken(1)),
        row("a length with zeroes in front", post("Content-Length: 005\r\n", "hello"), taken(1)),
        row("a body that looks like a request", post(&format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN), taken(1)),
        row("HEAD", "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", taken(1)),
        row("a method in small letters is another one", "get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", taken(1)),
        row("a method that nobody knows", "FROB /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", taken(1)),
        row("TRACE gives nothing back", "TRACE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", taken(1)),
        row("header names have no case", "GET /healthz HTTP/1.1\r\nhOST: localhost\r\n\r\n", taken(1)),
        row("no space behind the colon", "GET /healthz HTTP/1.1\r\nHost:localhost\r\n\r\n", taken(1)),
        row("spaces around a value", "GET /healthz HTTP/1.1\r\nHost: \t localhost \t \r\n\r\n", taken(1)),
        row("an empty value", get("X-Empty:\r\n"), taken(1)),
        row("Upgrade to another protocol is not followed", get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), taken(1)),
        row("Upgrade to HTTP/2 is not followed", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), taken(1)),
        row("underscores are another name", get("Content_Length: 5\r\nTransfer_Encoding: chunked\r\n"), taken(1)),
        row("a length that Connection names still counts", post("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"), taken(1)),
        row("TE is not Transfer-Encoding", get("TE: trailers, chunked\r\n"), taken(1)),
        row("a trailer that is announced and does not come", get("Trailer: Content-Length\r\n"), taken(1)),
        row("Expect without a body", get("Expect: 100-continue\r\n"), taken(1)),
        row("Expect with a body that is sent at once", post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"), taken(1)),
    ]
}

fn hosts() -> Vec<Row> {
    let with = |host: &str| format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
    vec![
        row("no Host", "GET /healthz HTTP/1.1\r\n\r\n", ends(400)),
        row("no Host on HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n", ends(400)),
        row("two Hosts", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n", ends(400)),
        row("two equal Hosts", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n", ends(400)),
        row("a foreign Host", with("evil.test"), keeps(421)),
        row("a foreign Host that begins like ours", with("localhost.evil.test"), keeps(421)),
        row("a Host with a port", with("localhost:8200"), taken(1)),
        row("a Host in capitals", with("LocalHost"), taken(1)),
        row("a Host with a dot at its end", with("localhost."), taken(1)),
        row("a Host of IPv4", with("127.0.0.1"), taken(1)),
        row("a Host of IPv6", with("[::1]:8200"), taken(1)),
        row("an empty Host", with(""), ends(400)),
        row("a Host with a user", with("localhost@evil.test"), ends(400)),
        row("a Host with a path", with("localhost/healthz"), ends(400)),
        row("a Host with a scheme", with("http://localhost"), ends(400)),
        row("a Host with a space", with("localhost evil.test"), ends(400)),
        row("a Host with a tab", with("localhost\tevil.test"), ends(400)),
        row("a Host with a comma", with("localhost,evil.test"), ends(400)),
        row("a Host with a backslash", with("localhost\\evil.test"), ends(400)),
        row("a Host with an escape", with("local%68ost"), ends(400)),
        row("a Host with a query", with("localhost?x"), ends(400)),
        row("a Host with a fragment", with("localhost#x"), ends(400)),
        row("a Host with two ports", with("localhost:80:81"), ends(400)),
        row("a Host with a port that is no number", with("localhost:http"), ends(400)),
        row("a Host with a port that is too large", with("localhost:65536"), ends(400)),
        row("a Host of another script", with("l\u{43e}calhost"), ends(400)),
        row("a Host with half an IPv6", with("[::1"), ends(400)),
        row("a Host that is only a port", with(":8200"), ends(400)),
        row("X-Forwarded-Host is nobody's Host", "GET /healthz HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: localhost\r\n\r\n", keeps(421)),
        row("a Host behind a space is a fold", "GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n", ends(400)),
    ]
}

fn lines() -> Vec<Row> {
    vec![
        row("bare LF everywhere", format!("GET /healthz HTTP/1.1\nHost: localhost\n\n{HIDDEN}"), ends(400)),
        row("bare LF behind the request line", "GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n", ends(400)),
        row("bare LF behind a header", get("X-A: b\nX-C: d\r\n"), ends(400)),
        row("bare LF that hides a length", post("X-A: b\nContent-Length: 5\r\n", "hello"), ends(400)),
        row("bare LF at the end of the head", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\n", ends(400)),
        row("CR alone for every line", "GET /healthz HTTP/1.1\rHost: localhost\r\r\n\r\n", ends(400)),
        row("CR alone between headers", get("X-A: b\rX-C: d\r\n"), ends(400)),
        row("CR CR LF", get("X-A: b\r\r\n"), ends(400)),
        row("LF CR", "GET /healthz HTTP/1.1\n\rHost: localhost\n\r\n\r", ends(400)),
        row("an empty line in front", [b"\r\n".as_slice(), &get("")].concat(), ends(400)),
        row("a bare LF in front", [b"\n".as_slice(), &get("")].concat(), ends(400)),
        row("a space in front", [b" ".as_slice(), &get("")].concat(), ends(400)),
        row("an empty line between two", [get(""), b"\r\n".to_vec(), HIDDEN.into()].concat(), then_ends(1, 400)),
        row("a fold", get("X-A: b\r\n c\r\n"), ends(400)),
        row("a fold with a tab", get("X-A: b\r\n\tc\r\n"), ends(400)),
        row("a fold that hides an encoding", post("Transfer-Encoding:\r\n chunked\r\n", &format!("0\r\n\r\n{HIDDEN}")), ends(400)),
        row("a fold that hides a length", post("X-A: b\r\n Content-Length: 5\r\n", "hello"), ends(400)),
        row("a fold of the request line", "GET /healthz\r\n HTTP/1.1\r\nHost: localhost\r\n\r\n", ends(400)),
        row("a space before the colon", get("X-A : b\r\n"), ends(400)),
        row("a space before the colon of a length", post("Content-Length : 5\r\n", "hello"), ends(400)),
        row("a tab before the colon of an encoding", post("Transfer-Encoding\t: chunked\r\n", &format!("0\r\n\r\n{HIDDEN}")), ends(400)),
        row("a space before the colon of Host", "GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n", ends(400)),
        row("a line without a colon", get("X-A\r\n"), ends(400)),
        row("a line without a name", get(": b\r\n"), ends(400)),
        row("a space in a name", get("X A: b\r\n"), ends(400)),
        row("a slash in a name", get("X/A: b\r\n"), ends(400)),
        row("a NUL in a name", get("X\0A: b\r\n"), ends(400)),
        row("a high byte in a name", [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\xe9: b\r\n\r\n".as_slice()].concat(), ends(400)),
        row("a form feed for a line's end", get("X-A: b\x0cX-C: d\r\n"), ends(400)),
        row("a vertical tab in a value", get("X-A: b\x0bc\r\n"), ends(400)),
    ]
}

fn lengths() -> Vec<Row> {
    let with = |length: &str| post(&format!("Content-Length: {length}\r\n"), &format!("hello{HIDDEN}"));
    vec![
        row("two lengths that differ", post("Content-Length: 5\r\nContent-Length: 6\r\n", &format!("hello{HIDDEN}")), ends(400)),
        row("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", &format!("hello{HIDDEN}")), ends(400)),
        row("two equal lengths in other letters", post("Content-Length: 5\r\ncontent-LENGTH: 5\r\n", &format!("hello{HIDDEN}")), ends(400)),
        row("three equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n", &format!("hello{HIDDEN}")), ends(400)),
        row("two lengths in one header", with("5, 5"), ends(400)),
        row("two lengths without a space", with("5,5"), ends(400)),
        row("two lengths that differ in one header", with("5, 0"), ends(400)),
        row("a length with a plus", with("+5"), ends(400)),
        row("a length with a minus", with("-5"), ends(400)),
        row("a length below zero", with("-1"), ends(400)),
        row("a length in hexadecimal", with("0x5"), ends(400)),
        row("a length with a fraction", with("5.0"), ends(400)),
        row("a length with an exponent", with("5e0"), ends(400)),
        row("a length with an underscore", with("1_0"), ends(400)),
        row("a length with a space inside", with("1 0"), ends(400)),
        row("a length with a semicolon", with("5;"), ends(400)),
        row("a length in quotes", with("\"5\""), ends(400)),
        row("an empty length", with(""), ends(400)),
        row("a length of letters", with("five"), ends(400)),
        row("a length with a NUL", with("5\0"), ends(400)),
        row("a length in other digits", with("\u{665}"), ends(400)),
        row("a length beyond 64 bits", with("18446744073709551621"), ends(400)),
        row("a length beyond everything", with("99999999999999999999999999999999"), ends(400)),
        row("a length that is too much", with("1048577"), ends(413)),
        row("the largest length there is", with("18446744073709551615"), ends(431)),
        row("a body on a GET, and more behind it", [get("Content-Length: 5\r\n"), b"hello".to_vec(), HIDDEN.into()].concat(), ends(400)),
        row("a request as the body of a GET", [get(&format!("Content-Length: {}\r\n", HIDDEN.len())), HIDDEN.into()].concat(), ends(400)),
        row("a body on a HEAD", format!("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello{HIDDEN}"), ends(400)),
        row("a length that is shorter than what comes", post("Content-Length: 2\r\n", "hi GET"), then_ends(1, 400)),
    ]
}

fn encodings() -> Vec<Row> {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let with = |encoding: &str| post(&format!("Transfer-Encoding: {encoding}\r\n"), &chunks);
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", &format!("{body}{HIDDEN}"));
    vec![
        row("chunked", with("chunked"), ends(411)),
        row("chunked in capitals", with("CHUNKED"), ends(411)),
        row("chunked on a GET", [get("Transfer-Encoding: chunked\r\n"), chunks.clone().into()].concat(), ends(411)),
        row("a length and an encoding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunks), ends(400)),
        row("an encoding and a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunks), ends(400)),
        row("a length of zero and an encoding", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", &chunks), ends(400)),
        row("a length and an encoding that is none", post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", &chunks), ends(400)),
        row("a length and an encoding in odd letters", post("Content-Length: 5\r\ntRANSFER-eNCODING: cHUNKED\r\n", &chunks), ends(400)),
        row("a length and an empty encoding", post("Content-Length: 5\r\nTransfer-Encoding:\r\n", &chunks), ends(400)),
        row("xchunked", with("xchunked"), ends(400)),
        row("chunked, identity", with("chunked, identity"), ends(400)),
        row("identity", with("identity"), ends(400)),
        row("gzip, chunked", with("gzip, chunked"), ends(411)),
        row("chunked, chunked", with("chunked, chunked"), ends(411)),
        row("chunked with a parameter", with("chunked;x=y"), ends(400)),
        row("chunked in quotes", with("\"chunked\""), ends(400)),
        row("chunked with a vertical tab", with("\x0bchunked"), ends(400)),
        row("chunked with a NUL", with("chunked\0"), ends(400)),
        row("an empty encoding", with(""), ends(400)),
        row("an encoding of commas", with(","), ends(400)),
        row("two encodings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunks), ends(411)),
        row("two encodings, the last is none", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &chunks), ends(400)),
        row("an encoding on HTTP/1.0", format!("POST /healthz HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), ends(400)),
        row("an encoding and Connection: close", post("Connection: close\r\nTransfer-Encoding: chunked\r\n", &chunks), ends(411)),
        row("a chunk larger than 64 bits", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk of the largest size", chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk with a space", chunked("5 \r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk with an extension", chunked("5;name=value\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("a chunk with a line feed in its extension", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("chunks with bare LF", chunked("5\nhello\n0\n\n"), ends(411)),
        row("a chunk that is longer than it says", chunked("2\r\nhello\r\n0\r\n\r\n"), ends(411)),
        row("trailers", chunked("5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"), ends(411)),
        row("a length among the trailers", chunked("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"), ends(411)),
        row("a Host among the trailers", chunked("0\r\nHost: evil.test\r\n\r\n"), ends(411)),
        row("a body in gzip", post("Content-Encoding: gzip\r\nContent-Length: 5\r\n", "hello"), keeps(415)),
    ]
}

fn request_lines() -> Vec<Row> {
    let line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n{HIDDEN}");
    vec![
        row("HTTP/0.9", format!("GET /healthz\r\n{HIDDEN}"), ends(400)),
        row("HTTP/0.9 with Host", line("GET /healthz"), ends(400)),
        row("HTTP/2 as its preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", ends(400)),
        row("HTTP/2 without its preface", line("GET /healthz HTTP/2.0"), ends(400)),
        row("HTTP/3", line("GET /healthz HTTP/3"), ends(400)),
        row("HTTP/1.2", line("GET /healthz HTTP/1.2"), ends(400)),
        row("HTTP/1", line("GET /healthz HTTP/1"), ends(400)),
        row("HTTP/1.1 with more behind it", line("GET /healthz HTTP/1.1 x"), ends(400)),
        row("HTTP/01.1", line("GET /healthz HTTP/01.1"), ends(400)),
        row("http/1.1", line("GET /healthz http/1.1"), ends(400)),
        row("HTTPS/1.1", line("GET /healthz HTTPS/1.1"), ends(400)),
        row("two spaces in front of the target", line("GET  /healthz HTTP/1.1"), ends(400)),
        row("two spaces behind the target", line("GET /healthz  HTTP/1.1"), ends(400)),
        row("a space behind the version", line("GET /healthz HTTP/1.1 "), ends(400)),
        row("a space inside of the target", line("GET /health z HTTP/1.1"), ends(400)),
        row("a tab for a space", line("GET\t/healthz\tHTTP/1.1"), ends(400)),
        row("no target", line("GET HTTP/1.1"), ends(400)),
        row("no method", line("/healthz HTTP/1.1"), ends(400)),
        row("a method with a colon", line("GET: /healthz HTTP/1.1"), ends(400)),
        row("a method with a NUL", line("GE\0T /healthz HTTP/1.1"), ends(400)),
        row("a TLS handshake", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n".to_vec(), ends(400)),
        row("PROXY protocol 1", format!("PROXY TCP4 192.0.2.1 192.0.2.2 40000 8200\r\n{HIDDEN}"), ends(400)),
        row("PROXY protocol 2", [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x20\x08", HIDDEN.as_bytes()].concat(), ends(400)),
        row("a line of an older protocol", "HELO localhost\r\n\r\n", ends(400)),
        row("an answer for a request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ends(400)),
        row("what a body left over, as a method", [b"hello".to_vec(), get("")].concat(), taken(1)),
    ]
}

fn targets() -> Vec<Row> {
    let whole: [(&'static str, &'static str); 5] = [
        ("absolute-form", "http://localhost/healthz"),
        ("absolute-form with another host", "http://evil.test/healthz"),
        ("absolute-form with a user", "http://localhost@evil.test/healthz"),
        ("absolute-form of another scheme", "ftp://localhost/healthz"),
        ("a target without a slash", "healthz"),
    ];
    let raw: [(&'static str, &'static [u8]); 9] = [
        ("a fragment", b"/healthz#top"),
        ("an empty fragment", b"/healthz#"),
        ("a fragment in a query", b"/healthz?a=b#c"),
        ("a target of UTF-8", "/h\u{e9}althz".as_bytes()),
        ("a target of invalid UTF-8", b"/he\xffalthz"),
        ("an overlong slash", b"/\xc0\xafhealthz"),
        ("a NUL in the target", b"/healthz\0"),
        ("a DEL in the target", b"/healthz\x7f"),
        ("a query of UTF-8", "/healthz?\u{e9}".as_bytes()),
    ];
    let spelt: [(&'static str, &'static str); 29] = [
        ("%2e", "/%2e/healthz"),
        ("%2e%2e", "/x/%2e%2e/healthz"),
        (".%2e", "/x/.%2e/healthz"),
        ("a dot segment", "/./healthz"),
        ("two dots", "/x/../healthz"),
        ("two dots at the end", "/healthz/.."),
        ("a dot at the end", "/healthz/."),
        ("%2f", "/x%2fhealthz"),
        ("%2F", "/x%2Fhealthz"),
        ("..%2f", "/x/..%2f..%2fhealthz"),
        ("%5c", "/x%5chealthz"),
        ("..%5c", "/x/..%5chealthz"),
        ("a backslash", "/x\\healthz"),
        ("two slashes in front", "//healthz"),
        ("two slashes inside", "/x//healthz"),
        ("two slashes at the end", "/healthz//"),
        ("a semicolon", "/healthz;x=y"),
        ("a semicolon in the middle", "/x;/healthz"),
        ("%00", "/healthz%00"),
        ("%0d%0a", "/healthz%0d%0aX:y"),
        ("%20", "/healthz%20"),
        ("an escaped letter", "/%68ealthz"),
        ("escapes of escapes", "/%2568ealthz"),
        ("overlong %c0%ae", "/%c0%ae%c0%ae/healthz"),
        ("%ff", "/%ff"),
        ("half an escape", "/healthz%"),
        ("an escape of no number", "/%zzhealthz"),
        ("%u0068", "/%u0068ealthz"),
        ("an asterisk in a path", "/*"),
    ];
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(whole.map(|(name, text)| row(name, [target(text.as_bytes()), HIDDEN.into()].concat(), ends(400))));
    rows.extend(raw.map(|(name, bytes)| row(name, [target(bytes), HIDDEN.into()].concat(), ends(400))));
    rows.extend(spelt.map(|(name, text)| row(name, target(text.as_bytes()), keeps(400))));
    rows.extend([
        row("asterisk-form", format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}"), ends(400)),
        row("authority-form", format!("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n{HIDDEN}"), ends(400)),
        row("authority-form with a GET", [target(b"localhost:443"), HIDDEN.into()].concat(), ends(400)),
        row("CONNECT with a path", format!("CONNECT /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}"), ends(400)),
        row("another path in capitals", target(b"/HEALTHZ"), taken(1)),
        row("another path with a slash at its end", target(b"/healthz/"), taken(1)),
        row("a path that is not there", target(b"/nothing/here"), taken(1)),
        row("a colon and its escape", target(b"/x:y%3Az"), taken(1)),
        row("an empty query", target(b"/healthz?"), taken(1)),
    ]);
    rows
}

fn values() -> Vec<Row> {
    vec![
        row("a NUL in a value", get("X-A: b\0c\r\n"), ends(400)),
        row("a DEL in a value", get("X-A: b\x7fc\r\n"), ends(400)),
        row("an escape in a value", get("X-A: b\x1bc\r\n"), ends(400)),
        row("a bell in a value", get("X-A: \x07\r\n"), ends(400)),
        row("Latin-1 in a value", [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: \xe9\r\n\r\n".as_slice()].concat(), taken(1)),
        row("a request in a value", get("X-A: b GET /healthz HTTP/1.1\r\n"), taken(1)),
        row("a line feed in an escape is text", get("X-A: b%0d%0aContent-Length: 5\r\n"), taken(1)),
    ]
}

fn limits() -> Vec<Row> {
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    let long = |bytes: usize| "y".repeat(bytes);
    vec![
        row("as many headers as can be", get(&many(63)), taken(1)),
        row("a header too many", [get(&many(64)), HIDDEN.into()].concat(), ends(431)),
        row("many headers too many", [get(&many(500)), HIDDEN.into()].concat(), ends(431)),
        row("a value that is too long", [get(&format!("X: {}\r\n", long(17_000))), HIDDEN.into()].concat(), ends(431)),
        row("values that are too long together", [get(&format!("X: {0}\r\nY: {0}\r\n", long(9_000))), HIDDEN.into()].concat(), ends(431)),
        row("a name that is too long", [get(&format!("{}: x\r\n", long(17_000))), HIDDEN.into()].concat(), ends(431)),
        row("a head beyond every room", [get(&format!("X: {}\r\n", long(70_000))), HIDDEN.into()].concat(), ends(431)),
        row("a path that is as long as it may be", target(format!("/{}", long(1_023)).as_bytes()), taken(1)),
        row("a path that is too long", target(format!("/{}", long(1_024)).as_bytes()), keeps(414)),
        row("a query that is too long", target(format!("/healthz?{}", long(4_097)).as_bytes()), keeps(414)),
        row("a request line that is too long", [target(format!("/{}", long(70_000)).as_bytes()), HIDDEN.into()].concat(), ends(431)),
        row("a method that is too long", format!("{} /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", long(70_000)), ends(431)),
    ]
}
