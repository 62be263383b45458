//! What a file is, by its first bytes and, where these do not tell, by its name.

use super::packed::Packing;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Packed(Packing),
    Zip,
    Tar,
    Pdf,
    Mail,
    Mailbox,
    Notebook,
    PythonCode,
    /// Text of two bytes a character.
    Utf16 {
        big_endian: bool,
    },
    Sqlite,
    SqlDump,
    PostgresArchive,
    /// Text of an office document.
    OfficeXml,
    /// An archive that nothing here opens, with the name of its format.
    Foreign(&'static str),
    /// Text, or bytes that are searched as they are.
    Plain,
}

impl Kind {
    pub fn of(name: &str, head: &[u8]) -> Self {
        Self::by_content(head).or_else(|| Self::by_name(name, head)).unwrap_or(Self::Plain)
    }

    fn by_content(head: &[u8]) -> Option<Self> {
        if let Some(packing) = Packing::of(head) {
            return Some(Self::Packed(packing));
        }
        let magic: &[(&[u8], Self)] = &[
            (b"PK\x03\x04", Self::Zip),
            (b"%PDF-", Self::Pdf),
            (b"SQLite format 3\0", Self::Sqlite),
            (b"PGDMP", Self::PostgresArchive),
            (b"\xff\xfe", Self::Utf16 { big_endian: false }),
            (b"\xfe\xff", Self::Utf16 { big_endian: true }),
            (b"7z\xbc\xaf\x27\x1c", Self::Foreign("7z")),
            (b"Rar!\x1a\x07", Self::Foreign("rar")),
            (b"\xed\xab\xee\xdb", Self::Foreign("rpm")),
            (b"\x1f\x9d", Self::Foreign("compress")),
            (b"!<arch>\n", Self::Foreign("ar")),
            (b"MSCF\0\0\0\0", Self::Foreign("cab")),
            (b"xar!\0", Self::Foreign("xar")),
            (b"LZIP\x01", Self::Foreign("lzip")),
            (b"hsqs", Self::Foreign("squashfs")),
        ];
        let by_magic = magic.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, kind)| *kind);
        by_magic
            .or_else(|| super::tar::is_header(head).then_some(Self::Tar))
            .or_else(|| is_python_code(head).then_some(Self::PythonCode))
            .or_else(|| utf16_without_mark(head))
            .or_else(|| crate::dump::looks_like_sql(head).then_some(Self::SqlDump))
    }

    fn by_name(name: &str, head: &[u8]) -> Option<Self> {
        if super::office::is_text(name) {
            return Some(Self::OfficeXml);
        }
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "eml" => Some(Self::Mail),
            "mbox" | "mbx" => Some(Self::Mailbox),
            "ipynb" => Some(Self::Notebook),
            "pyc" | "pyo" if head.get(2..4) == Some(b"\r\n") => Some(Self::PythonCode),
            "sql" => Some(Self::SqlDump),
            _ if super::mail::is_mailbox(head) => Some(Self::Mailbox),
            _ if super::mail::is_mail(head) => Some(Self::Mail),
            _ => None,
        }
    }
}

/// Code objects of Python 3.7 and later, whose files say in four bytes how they are to be compared with their source.
fn is_python_code(head: &[u8]) -> bool {
    let is_code = |byte: &u8| matches!(byte & 0x7f, b'c');
    head.get(2..4) == Some(b"\r\n") && head.get(5..8) == Some(&[0; 3]) && head.get(16).is_some_and(is_code)
}

/// Every second byte of Western text in UTF-16 is zero, and none of the others.
fn utf16_without_mark(head: &[u8]) -> Option<Kind> {
    let head = &head[..head.len().min(512) & !1];
    if head.len() < 16 || memchr::memchr(0, head).is_none() {
        return None;
    }
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let most = head.len() / 2 * 9 / 10;
    match () {
        () if odd >= most && even == 0 => Some(Kind::Utf16 { big_endian: false }),
        () if even >= most && odd == 0 => Some(Kind::Utf16 { big_endian: true }),
        () => None,
    }
}
