//! A MySQL or MariaDB database that runs: asked for what its tables hold, in transactions that may only read.
//!
//! As much of the protocol as that takes (MySQL internals manual, "Client/Server Protocol"): signing in with a password, and
//! results as text. What this user may not read, and what takes too long, is named.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use crate::inside::RowsOut;
use crate::rows::{Number, Rows, Table};
use crate::tls;

/// Where a database is. It is never printed with its password.
pub(crate) struct Address {
    host: String,
    port: u16,
    user: String,
    password: Zeroizing<String>,
    database: String,
    is_encrypted: bool,
    roots: Option<String>,
}

impl Address {
    /// Reads `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=…&ssl-ca=…`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and never repeats the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = || SHAPE.to_owned();
        let rest =
            text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://")).ok_or_else(shape)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').ok_or_else(shape)?;
        let (login, place) = place.rsplit_once('@').ok_or_else(shape)?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("3306")),
            None => place.split_once(':').unwrap_or((place, "3306")),
        };
        let (mut mode, mut roots) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').ok_or_else(shape)? {
                ("ssl-mode", value) => mode = Some(value.to_ascii_uppercase()),
                ("ssl-ca", value) => roots = Some(decoded(value).ok_or_else(shape)?),
                _ => return Err("a MySQL address knows `ssl-mode` and `ssl-ca`".to_owned()),
            }
        }
        let is_encrypted = match mode.as_deref() {
            Some("DISABLED") => false,
            Some("REQUIRED" | "VERIFY_CA" | "VERIFY_IDENTITY") => true,
            None => roots.is_some() || !tls::is_this_machine(host),
            Some(_) => {
                return Err("`ssl-mode` of a MySQL address is `VERIFY_IDENTITY` or `DISABLED`".to_owned());
            }
        };
        let [user, password, database] = [user, password, database].map(decoded);
        let address = Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| shape())?,
            user: user.ok_or_else(shape)?,
            password: Zeroizing::new(password.ok_or_else(shape)?),
            database: database.filter(|name| !name.is_empty()).ok_or_else(shape)?,
            is_encrypted,
            roots,
        };
        if address.host.is_empty() { Err(shape()) } else { Ok(address) }
    }

    /// The address without user and password.
    pub fn shown(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("mysql://{host}:{}/{}", self.port, self.database)
    }
}

/// Hands out the rows of all tables.
///
/// # Errors
/// When the database cannot be reached, or goes away.
pub(crate) fn read(address: &Address, out: &mut RowsOut<'_>) -> Result<(), String> {
    let mut server = connect(address).map_err(|error| error.why())?;
    for statement in SESSION {
        // MySQL and MariaDB each know one of the limits.
        match server.run(statement) {
            Ok(()) | Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error.why()),
        }
    }
    for listed in server.tables(&address.database).map_err(|error| error.why())? {
        match server.table(&listed, out) {
            Ok(()) => {}
            Err(Error::Refused { code, .. }) => out.trouble_at(&listed.name, refused(code)),
            Err(error) => return Err(out.check().err().map_or_else(|| error.why(), |stop| stop.to_string())),
        }
    }
    Ok(())
}

fn connect(address: &Address) -> Result<Server<Box<dyn Wire>>, Error> {
    let mut last = Error::Broken("its name leads nowhere".to_owned());
    let places = (address.host.as_str(), address.port).to_socket_addrs()?;
    for place in places {
        match TcpStream::connect_timeout(&place, CONNECT_WITHIN) {
            Ok(stream) => {
                stream.set_read_timeout(Some(ANSWER_WITHIN))?;
                return sign_in(address, stream);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn sign_in(address: &Address, stream: TcpStream) -> Result<Server<Box<dyn Wire>>, Error> {
    let mut server = Server { wire: stream, sequence: 0, packet: Vec::new() };
    let greeting = Greeting::read(server.receive()?)?;
    if !address.is_encrypted {
        let mut server = server.over(|stream| Ok(Box::new(stream) as Box<dyn Wire>))?;
        server.authenticate(address, &greeting, Secrecy::Plain)?;
        return Ok(server);
    }
    if greeting.capabilities & WITH_TLS == 0 {
        return Err(Error::Broken(
            "it does not encrypt; `ssl-mode=DISABLED` reads it all the same".to_owned(),
        ));
    }
    server.send(&response_head(WITH_TLS))?;
    let config = tls::config(address.roots.as_deref()).map_err(Error::Broken)?;
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| Error::Broken("its name is none that a certificate can have".to_owned()))?;
    let mut server = server.over(|stream| {
        let link = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(link, stream)) as Box<dyn Wire>)
    })?;
    server.authenticate(address, &greeting, Secrecy::Encrypted)?;
    Ok(server)
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Plain,
    Encrypted,
}

/// What went wrong with the server.
#[derive(Debug)]
enum Error {
    /// It says no.
    Refused { code: u16, message: String },
    /// It is not there, or does not speak as it should.
    Broken(String),
}

impl Error {
    fn why(self) -> String {
        match self {
            Self::Refused { code, message } => format!("refuses ({code}): {message}"),
            Self::Broken(why) => format!("cannot be reached: {why}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("the connection is gone".to_owned()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::Broken("it has not answered for a long time".to_owned())
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// A connection.
struct Server<W> {
    wire: W,
    sequence: u8,
    packet: Vec<u8>,
}

/// What a server says of itself.
struct Greeting {
    capabilities: u32,
    challenge: Vec<u8>,
    method: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields { rest: packet };
        match fields.byte() {
            Some(10) => {}
            Some(0xff) => return Err(fields.refusal()),
            _ => return Err(broken()),
        }
        let read = |fields: &mut Fields<'_>| {
            fields.until_nul()?;
            fields.take(4)?;
            let mut challenge = fields.take(8)?.to_vec();
            fields.take(1)?;
            let low = fields.take(2)?;
            fields.take(3)?;
            let high = fields.take(2)?;
            let capabilities = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
            let length = usize::from(fields.byte()?);
            fields.take(10)?;
            let second = fields.take(length.saturating_sub(8).max(13))?;
            challenge.extend_from_slice(&second[..12]);
            let method = String::from_utf8_lossy(fields.until_nul().unwrap_or_default()).into_owned();
            Some(Self { capabilities, challenge, method })
        };
        read(&mut fields).ok_or_else(broken)
    }
}

impl<W: Read + Write> Server<W> {
    fn over<V>(self, to: impl FnOnce(W) -> io::Result<V>) -> Result<Server<V>, Error> {
        Ok(Server { wire: to(self.wire)?, sequence: self.sequence, packet: self.packet })
    }

    fn authenticate(
        &mut self,
        address: &Address,
        greeting: &Greeting,
        secrecy: Secrecy,
    ) -> Result<(), Error> {
        let password = address.password.as_bytes();
        let tls = if secrecy == Secrecy::Encrypted { WITH_TLS } else { 0 };
        // What nobody here knows is asked for once more by a method that is known.
        let proof = proof(&greeting.method, password, &greeting.challenge).unwrap_or_default();
        let mut response = response_head(tls);
        response.extend_from_slice(address.user.as_bytes());
        response.push(0);
        response.push(proof.len() as u8);
        response.extend_from_slice(&proof);
        for text in [&address.database, &greeting.method] {
            response.extend_from_slice(text.as_bytes());
            response.push(0);
        }
        self.send(&response)?;
        loop {
            let mut answer = Fields { rest: self.receive()? };
            match answer.byte() {
                Some(0) => return Ok(()),
                Some(0xff) => return Err(answer.refusal()),
                Some(0xfe) => {
                    let method = String::from_utf8_lossy(answer.until_nul().ok_or_else(broken)?).into_owned();
                    let challenge = answer.rest.strip_suffix(b"\0").unwrap_or(answer.rest).to_vec();
                    let proof = self::proof(&method, password, &challenge).ok_or_else(|| {
                        Error::Broken(format!("this user signs in by `{method}`, which nothing here speaks"))
                    })?;
                    self.send(&proof)?;
                }
                // `caching_sha2_password`: known, or not yet.
                Some(1) => match answer.byte() {
                    Some(3) => {}
                    Some(4) if secrecy == Secrecy::Encrypted => {
                        let text = Zeroizing::new([password, b"\0"].concat());
                        self.send(&text)?;
                    }
                    Some(4) => {
                        let why = "it wants the password itself, which only goes over an encrypted connection: \
                                   say `ssl-mode=VERIFY_IDENTITY`";
                        return Err(Error::Broken(why.to_owned()));
                    }
                    _ => return Err(broken()),
                },
                _ => return Err(broken()),
            }
        }
    }

    /// Runs a statement that gives no rows.
    fn run(&mut self, statement: &str) -> Result<(), Error> {
        self.rows(statement, |_| Ok(()))
    }

    fn tables(&mut self, database: &str) -> Result<Vec<Listed>, Error> {
        let mut tables: Vec<Listed> = Vec::new();
        let statement = format!("{TABLES} '{}' ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION", escaped(database));
        self.rows(&statement, |values| {
            let text = |column: usize| {
                String::from_utf8_lossy(values.get(column).copied().flatten().unwrap_or_default())
                    .into_owned()
            };
            let (table, name, kind, is_key) =
                (text(0), text(1), text(2).to_ascii_lowercase(), text(3) == "PRI");
            let holds_text = HOLDS_TEXT.iter().any(|word| kind.contains(word));
            if tables.last().is_none_or(|last| last.name != table) {
                tables.push(Listed { name: table, columns: Vec::new(), key: Vec::new(), holds_text: false });
            }
            if let Some(listed) = tables.last_mut() {
                listed.holds_text |= holds_text;
                if is_key {
                    listed.key.push(name.clone());
                }
                if holds_text || is_key || name == "company_id" {
                    listed.columns.push(name);
                }
            }
            Ok(())
        })?;
        tables.retain(|table| table.holds_text);
        Ok(tables)
    }

    fn table(&mut self, listed: &Listed, out: &mut RowsOut<'_>) -> Result<(), Error> {
        let columns: Vec<String> = listed.columns.iter().map(|name| quoted(name)).collect();
        let statement = format!("SELECT {} FROM {}", columns.join(", "), quoted(&listed.name));
        let table = Rc::new(Table::new(&listed.name, &listed.columns, &listed.key));
        let (mut rows, mut number) = (Rows::without_lines(), 0);
        self.run(BEGIN)?;
        let done = self.rows(&statement, |values| {
            number += 1;
            if u64::is_multiple_of(number, CHECK_EVERY) {
                out.check()?;
            }
            rows.begin(&table, Number { line: 0, row: number });
            for (column, value) in values.iter().enumerate() {
                if let Some(value) = value {
                    rows.cell_text(column, value, out);
                }
            }
            rows.end(out);
            Ok(())
        });
        rows.finish(out);
        match done {
            Ok(()) => self.run("ROLLBACK"),
            // Where the server has refused, the transaction ends all the same.
            Err(Error::Refused { code, message }) => {
                self.run("ROLLBACK").and(Err(Error::Refused { code, message }))
            }
            Err(error) => Err(error),
        }
    }

    /// Runs a statement and hands out its rows, one after the other.
    fn rows(
        &mut self,
        statement: &str,
        mut on_row: impl FnMut(&[Option<&[u8]>]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.sequence = 0;
        self.send(&[&[QUERY], statement.as_bytes()].concat())?;
        let mut head = Fields { rest: self.receive()? };
        let columns = match head.rest.first() {
            Some(0) => return Ok(()),
            Some(0xff) => return Err(head.skipped(1).refusal()),
            _ => head.length().ok_or_else(broken)?,
        };
        let columns =
            usize::try_from(columns).ok().filter(|count| *count <= MOST_COLUMNS).ok_or_else(broken)?;
        for _ in 0..=columns {
            self.receive()?;
        }
        loop {
            let packet = self.receive()?;
            match packet.first() {
                Some(0xfe) if packet.len() < 9 => return Ok(()),
                Some(0xff) => return Err(Fields { rest: packet }.skipped(1).refusal()),
                _ => {}
            }
            let mut fields = Fields { rest: packet };
            let mut values = Vec::with_capacity(columns);
            for _ in 0..columns {
                values.push(match fields.rest.first() {
                    Some(0xfb) => {
                        fields.byte();
                        None
                    }
                    _ => {
                        let length = fields.length().and_then(|length| usize::try_from(length).ok());
                        Some(length.and_then(|length| fields.take(length)).ok_or_else(broken)?)
                    }
                });
            }
            on_row(&values)?;
        }
    }

    /// Receives a packet, of which the long ones come in several.
    fn receive(&mut self) -> Result<&[u8], Error> {
        self.packet.clear();
        loop {
            let mut head = [0; 4];
            self.wire.read_exact(&mut head)?;
            let length = u64::from(u32::from_le_bytes([head[0], head[1], head[2], 0]));
            self.sequence = head[3].wrapping_add(1);
            let read = (&mut self.wire).take(length).read_to_end(&mut self.packet)?;
            if (read as u64) < length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if length < FULL_PACKET {
                return Ok(&self.packet);
            }
        }
    }

    /// Sends a packet; nothing that is sent is long.
    fn send(&mut self, content: &[u8]) -> Result<(), Error> {
        let length = (content.len() as u32).to_le_bytes();
        let packet = Zeroizing::new([&[length[0], length[1], length[2], self.sequence], content].concat());
        self.sequence = self.sequence.wrapping_add(1);
        self.wire.write_all(&packet)?;
        Ok(self.wire.flush()?)
    }
}

/// A table of the database.
struct Listed {
    name: String,
    columns: Vec<String>,
    key: Vec<String>,
    holds_text: bool,
}

/// What a packet is made of.
struct Fields<'p> {
    rest: &'p [u8],
}

impl<'p> Fields<'p> {
    fn take(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn skipped(mut self, count: usize) -> Self {
        self.take(count);
        self
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn until_nul(&mut self) -> Option<&'p [u8]> {
        let end = memchr::memchr(0, self.rest)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }

    /// A length: one byte, or a mark and two, three or eight.
    fn length(&mut self) -> Option<u64> {
        let size = match self.byte()? {
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            0xfb | 0xff => return None,
            small => return Some(small.into()),
        };
        Some(self.take(size)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// What stands behind the mark of an error.
    fn refusal(mut self) -> Error {
        let code = self.take(2).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
        let message = match self.rest.strip_prefix(b"#") {
            Some(rest) => rest.get(5..).unwrap_or_default(),
            None => self.rest,
        };
        Error::Refused { code, message: String::from_utf8_lossy(message).into_owned() }
    }
}

/// Proves that one knows a password, without telling it.
fn proof(method: &str, password: &[u8], challenge: &[u8]) -> Option<Vec<u8>> {
    let hash = |algorithm: &'static digest::Algorithm, parts: &[&[u8]]| {
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        Zeroizing::new(context.finish().as_ref().to_vec())
    };
    let mixed = |one: &[u8], other: &[u8]| one.iter().zip(other).map(|(one, other)| one ^ other).collect();
    match method {
        "mysql_native_password" | "caching_sha2_password" if password.is_empty() => Some(Vec::new()),
        "mysql_native_password" => {
            let sha1 = |parts: &[&[u8]]| hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts);
            let once = sha1(&[password]);
            Some(mixed(&once, &sha1(&[challenge, &sha1(&[&once])])))
        }
        "caching_sha2_password" => {
            let sha256 = |parts: &[&[u8]]| hash(&digest::SHA256, parts);
            let once = sha256(&[password]);
            Some(mixed(&once, &sha256(&[&sha256(&[&once]), challenge])))
        }
        _ => None,
    }
}

/// The beginning of what a client answers to the greeting.
fn response_head(tls: u32) -> Vec<u8> {
    let mut head = (CAPABILITIES | tls).to_le_bytes().to_vec();
    head.extend_from_slice(&LARGEST_PACKET.to_le_bytes());
    head.push(UTF8MB4);
    head.extend_from_slice(&[0; 23]);
    head
}

fn refused(code: u16) -> &'static str {
    match code {
        1142 | 1143 | 1044 => "may not be read by this user",
        1969 | 3024 | 1317 => "took longer than ten minutes and was read only in part",
        1205 => "is locked by somebody else and was not read",
        _ => "could not be read to its end: the server refuses",
    }
}

fn broken() -> Error {
    Error::Broken("it does not speak as MySQL does".to_owned())
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

const SHAPE: &str = "a MySQL address is `mysql://USER:PASSWORD@HOST:PORT/DATABASE`";
/// Servers that are there answer within a second or two.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longer than a table may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(660);
/// Nothing is written whatever is asked, and nobody waits for us.
const SESSION: [&str; 4] = [
    "SET SESSION TRANSACTION READ ONLY",
    "SET SESSION lock_wait_timeout = 5",
    "SET SESSION max_execution_time = 600000",
    "SET SESSION max_statement_time = 600",
];
const BEGIN: &str = "START TRANSACTION READ ONLY";
const TABLES: &str = "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_KEY FROM information_schema.COLUMNS c \
    JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME \
    WHERE t.TABLE_TYPE = 'BASE TABLE' AND c.TABLE_SCHEMA =";
/// Types of columns that a key could stand in.
const HOLDS_TEXT: [&str; 6] = ["char", "text", "blob", "binary", "json", "inet"];

/// Protocol 4.1, with a database, a method of signing in, and long passwords.
const CAPABILITIES: u32 = 1 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19;
const WITH_TLS: u32 = 1 << 11;
const QUERY: u8 = 3;
const UTF8MB4: u8 = 45;
/// The largest that there is.
const LARGEST_PACKET: u32 = 1 << 30;
const FULL_PACKET: u64 = (1 << 24) - 1;
/// As many as a table can have.
const MOST_COLUMNS: usize = 4096;
const CHECK_EVERY: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_is_shown_of_them() {
        for (text, expected) in [
            ("mysql://shop:hunter2@127.0.0.1/shop", Ok(("mysql://127.0.0.1:3306/shop", false))),
            ("mysql://shop:hunter%402@db.example:99/shop", Ok(("mysql://db.example:99/shop", true))),
            ("mariadb://shop@[::1]:1/shop?ssl-mode=verify_identity", Ok(("mysql://[::1]:1/shop", true))),
            ("mysql://shop@db/shop?ssl-mode=DISABLED", Ok(("mysql://db:3306/shop", false))),
            ("mysql://shop:hunter2@db/shop?ssl-mode=PREFERRED", Err("`VERIFY_IDENTITY` or `DISABLED`")),
            ("mysql://shop:hunter2@db/", Err("a MySQL address is")),
            ("mysql://shop:hunter2@db:x/shop", Err("a MySQL address is")),
            ("postgres://shop:hunter2@db/shop", Err("a MySQL address is")),
        ] {
            match (Address::parse(text), expected) {
                (Ok(address), Ok((shown, encrypted))) => {
                    assert_eq!(
                        (address.shown().as_str(), address.is_encrypted),
                        (shown, encrypted),
                        "{text}"
                    );
                }
                (Err(error), Err(part)) => {
                    assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
                }
                (found, _) => panic!("{text}: {:?}", found.map(|address| address.shown())),
            }
        }
    }

    /// Says what it was told to say, whatever it hears.
    struct Script<'s>(&'s [u8]);

    impl Read for Script<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn results_and_refusals() {
        let packet = |content: &[u8]| [&[content.len() as u8, 0, 0, 1], content].concat();
        let end = packet(&[0xfe, 0, 0, 2, 0]);
        let two = [
            packet(&[2]),
            packet(b"def1"),
            packet(b"def2"),
            end.clone(),
            packet(b"\x01a\xfb"),
            packet(b"\x00\x02bc"),
            end,
        ]
        .concat();
        let run = |script: &[u8]| {
            let mut server = Server { wire: Script(script), sequence: 0, packet: Vec::new() };
            let mut rows = Vec::new();
            let done = server.rows("x", |values| {
                rows.push(values.iter().map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>());
                Ok(())
            });
            (rows, done.err().map(Error::why))
        };
        let (rows, error) = run(&two);
        assert_eq!(rows, [vec![Some(b"a".to_vec()), None], vec![Some(Vec::new()), Some(b"bc".to_vec())]]);
        assert_eq!(error, None);
        assert_eq!(run(&packet(b"\xff\x76\x04#42000no")).1.unwrap(), "refuses (1142): no");
        // Wherever it breaks off, that is said.
        for length in 0..two.len() {
            assert!(run(&two[..length]).1.is_some(), "{length}");
        }
    }
}
