//! The text of office documents: of Word, Excel, PowerPoint (ECMA-376) and OpenDocument.
//!
//! A word that is partly bold stands in several runs, each with tags around it; here it is one word again.

use super::turned::Turn;

/// Whether a member of a zip archive is the text of a document.
pub(super) fn is_text(member: &str) -> bool {
    let of_microsoft = ["word/", "xl/", "ppt/"].iter().any(|dir| member.starts_with(dir));
    member.ends_with(".xml") && (of_microsoft || matches!(member, "content.xml" | "styles.xml" | "meta.xml"))
}

/// Takes the text between tags out of XML. Paragraphs and rows are lines, cells are separated by tabs.
pub(super) struct Xml {
    state: State,
    /// The name of a tag, or an entity, as far as it was read.
    name: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    TagName,
    Tag,
    Quoted(u8),
    Entity,
}

impl Xml {
    pub fn new() -> Self {
        Self { state: State::Text, name: Vec::new() }
    }
}

impl Turn for Xml {
    fn turn(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Text, b'<') => {
                    self.name.clear();
                    State::TagName
                }
                (State::Text, b'&') => {
                    self.name.clear();
                    State::Entity
                }
                (State::Text, _) => {
                    out.push(byte);
                    State::Text
                }
                (State::Entity, b';') => {
                    entity(&self.name, out);
                    State::Text
                }
                (State::Entity, b'<') => {
                    self.name.clear();
                    State::TagName
                }
                (State::TagName | State::Tag, b'>') => {
                    out.extend(separator(&self.name));
                    State::Text
                }
                (State::TagName, b' ' | b'\t' | b'\r' | b'\n') => State::Tag,
                (State::TagName | State::Entity, _) => {
                    if self.name.len() < LONGEST_NAME {
                        self.name.push(byte);
                    }
                    self.state
                }
                (State::Tag, b'"' | b'\'') => State::Quoted(byte),
                (State::Tag, _) => State::Tag,
                (State::Quoted(quote), _) if quote == byte => State::Tag,
                (State::Quoted(quote), _) => State::Quoted(quote),
            };
        }
    }
}

/// What a tag stands for in plain text.
fn separator(tag: &[u8]) -> Option<u8> {
    let closes = tag.first() == Some(&b'/');
    let tag = tag.strip_prefix(b"/").unwrap_or(tag);
    let tag = tag.strip_suffix(b"/").unwrap_or(tag);
    let local = memchr::memrchr(b':', tag).map_or(tag, |colon| &tag[colon + 1..]);
    match (local, closes) {
        (b"p" | b"h" | b"si" | b"row" | b"tr" | b"table-row", true) | (b"br" | b"line-break", false) => {
            Some(b'\n')
        }
        (b"c" | b"tc" | b"table-cell", true) | (b"tab", false) => Some(b'\t'),
        (b"s", false) => Some(b' '),
        _ => None,
    }
}

fn entity(name: &[u8], out: &mut Vec<u8>) {
    let named: &[(&[u8], u8)] =
        &[(b"amp", b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"quot", b'"'), (b"apos", b'\'')];
    if let Some((_, symbol)) = named.iter().find(|(known, _)| *known == name) {
        out.push(*symbol);
        return;
    }
    let digits = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix('#'));
    let code = digits.and_then(|digits| match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    });
    if let Some(symbol) = code.and_then(char::from_u32) {
        out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// No name of a tag that is told from others is longer.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::turned::Turned;
    use super::*;

    fn text_of(xml: &str) -> String {
        let mut text = String::new();
        // Small buffers, so that every state is met at a border.
        let mut reader = Turned::new(std::io::BufReader::with_capacity(3, xml.as_bytes()), Xml::new());
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn runs_are_joined_and_paragraphs_are_lines() {
        for (xml, expected) in [
            (
                "<w:p><w:r><w:t>gh</w:t></w:r><w:r><w:rPr><w:b/></w:rPr><w:t>p_abc</w:t></w:r></w:p><w:p>x</w:p>",
                "ghp_abc\nx\n",
            ),
            ("<si><r><t>a</t></r><r><t>b</t></r></si><si><t>c</t></si>", "ab\nc\n"),
            ("<row><c t=\"inlineStr\"><is><t>a &gt; b</t></is></c><c><v>1</v></c></row>", "a > b\t1\t\n"),
            ("<text:p a='>'>a<text:s/>b<text:tab/>c&#233;&#x41;&unknown;</text:p>", "a b\tcéA\n"),
            ("no tags & no end", "no tags "),
        ] {
            assert_eq!(text_of(xml), expected);
        }
    }
}
