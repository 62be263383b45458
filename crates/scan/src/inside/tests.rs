//! Limits, rows of any length, and what becomes of changed and cut files; which containers are opened is tested in
//! `tests/containers.rs`.

use std::io::Write as _;

use super::*;
use crate::rows::Cell;

/// Writes down what it hears.
#[derive(Default)]
struct Heard {
    texts: Vec<(String, Vec<u8>)>,
    cells: Vec<(Cell, String)>,
    /// Of values between tables line and column.
    between: Vec<(u64, u64)>,
    troubles: Vec<String>,
    /// The longest text of rows that was held in memory.
    longest: usize,
    /// All texts of rows together.
    handed_out: usize,
}

impl Texts for Heard {
    fn text(&mut self, inside: &[String], text: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        let done = text.read_to_end(&mut bytes);
        self.texts.push((inside.join(" › "), bytes));
        done.map(drop)
    }

    fn rows(&mut self, _inside: &[String], rows: &Rows, region: Range<usize>) {
        self.longest = self.longest.max(rows.text().len());
        self.handed_out += region.len();
        // Stands for the engine: a value is `VALUE` and a digit.
        for at in memchr::memmem::find_iter(rows.text(), b"VALUE") {
            let value = at..at + 6;
            let spot = rows.spot(&value);
            match spot.cell.filter(|_| region.contains(&at)) {
                Some(cell) => {
                    self.cells.push((cell, String::from_utf8_lossy(&rows.text()[value]).into_owned()));
                }
                None if region.contains(&at) => {
                    self.between.extend(spot.line.zip(spot.column));
                }
                None => {}
            }
        }
    }

    fn trouble(&mut self, inside: &[String], why: &str) {
        self.troubles.push(format!("{}: {why}", inside.join(" › ")));
    }
}

fn heard(name: &str, stream: impl Read, limits: Limits) -> Heard {
    let mut heard = Heard::default();
    look_into(name, stream, limits, &mut heard);
    heard
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A zip archive of members that are stored as they are.
fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in members {
        archive.extend_from_slice(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let length = (bytes.len() as u32).to_le_bytes();
        archive.extend([length, length].concat());
        archive.extend((name.len() as u16).to_le_bytes());
        archive.extend_from_slice(&[0, 0]);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(bytes);
    }
    archive.extend_from_slice(b"PK\x05\x06");
    archive
}

/// Small enough that a test reaches them.
const TIGHT: Limits = Limits {
    depth: 3,
    members: 10,
    free: 64 << 10,
    ratio: 10,
    free_in_all: 256 << 10,
    ratio_in_all: 20,
    memory: 64 << 10,
};

#[test]
fn a_bomb_is_named_and_the_rest_goes_on() {
    let bomb = gzip(&vec![b'0'; 8 << 20]);
    let found = heard("a.zip", &zip_of(&[("bomb.gz", &bomb), ("c.env", b"KEY=1")])[..], TIGHT);
    assert_eq!(found.troubles, ["bomb.gz: unpacks to far more than its size and was stopped there"]);
    assert!(found.texts[0].1.len() <= 256 << 10, "{}", found.texts[0].1.len());
    assert_eq!(found.texts[1], ("c.env".to_owned(), b"KEY=1".to_vec()));
}

#[test]
fn what_holds_too_much_altogether_is_stopped() {
    let small = gzip(&vec![b'0'; 60 << 10]);
    let members =
        [("1", &small[..]), ("2", &small), ("3", &small), ("4", &small), ("5", &small), ("6", &small)];
    let found = heard("a.zip", &zip_of(&members)[..], TIGHT);
    assert_eq!(found.troubles, [": holds far more than its size; the rest of it was not looked at"]);
    let read: usize = found.texts.iter().map(|(_, text)| text.len()).sum();
    assert!(read <= 300 << 10, "{read}");
    let many: Vec<(&str, &[u8])> = vec![("x", &b"x"[..]); 20];
    let found = heard("a.zip", &zip_of(&many)[..], TIGHT);
    assert_eq!(found.troubles, [": has too many members; the rest of them was not looked at"]);
    assert_eq!(found.texts.len(), 10);
}

#[test]
fn archives_in_archives_have_an_end() {
    let mut nested = b"KEY=1".to_vec();
    for _ in 0..6 {
        nested = zip_of(&[("n", &nested)]);
    }
    let found = heard("a.zip", &nested[..], TIGHT);
    assert_eq!(found.troubles, ["n › n › n: lies in too many archives and was searched as it is"]);
    assert_eq!(found.texts.len(), 1);
    let large = vec![b'{'; 100 << 10];
    let found = heard("large.ipynb", &large[..], TIGHT);
    assert_eq!((found.troubles.len(), found.texts[0].1.len()), (1, 100 << 10));
}

#[test]
fn notebooks_are_read_cell_by_cell() {
    let check = |notebook: &str, expected: &[(&str, &str)]| {
        let found = heard("a.ipynb", notebook.as_bytes(), Limits::default());
        let texts: Vec<(&str, String)> = found
            .texts
            .iter()
            .map(|(name, text)| (name.as_str(), String::from_utf8_lossy(text).trim().to_owned()))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let expected: Vec<(&str, String)> =
            expected.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        assert_eq!(texts, expected, "{notebook}");
    };
    check(
        r#"{"cells": [{"source": ["KEY=1\n", "KEY=2"], "outputs": [{"text": "KEY=3"}]}, {"source": "KEY=4"}]}"#,
        &[("cell 1", "KEY=1\nKEY=2"), ("cell 1, output", "KEY=3"), ("cell 2", "KEY=4")],
    );
    check(
        r#"{"metadata": {"a": "KEY=1", "n": [1, 2.5, null]}, "worksheets": [{"cells": [{"input": "KEY=2"}]}]}"#,
        &[("", "KEY=1"), ("cell 1", "KEY=2")],
    );
    // Pictures say nothing.
    check(
        r#"{"cells": [{"outputs": [{"data": {"image/png": "KEY=1", "text/plain": ["KEY=2"]}, "n": [[true]]}]}]}"#,
        &[("cell 1, output", "KEY=2")],
    );
    // Something else than a notebook has.
    check(
        r#"{"cells": [7, "KEY=1", null, [{"source": "KEY=2"}], {"source": "KEY=3"}], "other": {"cells": [{"source": "KEY=4"}]}}"#,
        &[("cell 5", "KEY=3")],
    );
    // None at all, and what is cut off.
    for other in [
        r#"{"cells": {"source": "KEY=1"}, "metadata": 7}"#,
        r#"["KEY=1"]"#,
        r#"{"cells": [{"source": "KEY=1"}"#,
    ] {
        check(other, &[("", other)]);
    }
}

#[test]
fn a_row_of_any_length_keeps_its_name() {
    let long = "x".repeat(3 << 20);
    let copy = format!(
        "COPY t (id, company_id, a, secret) FROM stdin;\n1\t2\t{long} VALUE1 {long}\tVALUE2\n3\t4\ta\\tVALUE3\t\\N\n\\.\n"
    );
    let insert = format!(
        "INSERT INTO `t` (`id`, `company_id`, `a`, `secret`) VALUES (1, 2, '{long} VALUE1 {long}', 'VALUE2'), (3, 4, 'a\\tVALUE3', NULL);\n"
    );
    for dump in [copy, insert] {
        let found = heard("dump.sql", dump.as_bytes(), Limits::default());
        let cells: Vec<String> = found
            .cells
            .iter()
            .map(|(cell, value)| {
                format!("{value} {} {} {}", cell.column, cell.row, cell.company.as_deref().unwrap_or("none"))
            })
            .collect();
        assert_eq!(cells, ["VALUE1 a id 1 2", "VALUE2 secret id 1 2", "VALUE3 a id 3 4"]);
        assert!(found.longest < 2 << 20, "{}", found.longest);
    }
}

#[test]
fn keys_of_rows_are_shown_unless_they_are_keys_themselves() {
    let dump = "COPY t (id, token) FROM stdin;\n7\tVALUE1\nshop_eu\tVALUE2\n9f8a7b6c5d4e3f2a1b0c9d8e\tVALUE3\nVALUE4\tx\n\
                2f1c0d9e-0a1b-4c3d-8e5f-001122334455\tVALUE5\n\\.\n";
    let found = heard("dump.sql", dump.as_bytes(), Limits::default());
    let rows: Vec<&str> = found.cells.iter().map(|(cell, _)| cell.row.as_str()).collect();
    assert_eq!(rows, ["id 7", "id shop_eu", "row 3", "row 4", "id 2f1c0d9e-0a1b-4c3d-8e5f-001122334455"]);
}

/// Gives a few bytes at a time.
struct Dripping<'b>(&'b [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn containers() -> Vec<(String, Vec<u8>)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers");
    let files =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn however_a_stream_is_cut_the_same_comes_out() {
    for (name, bytes) in containers() {
        let whole = heard(&name, &bytes[..], Limits::default());
        for step in [1, 5, 1000] {
            let cut = heard(&name, Dripping(&bytes, step), Limits::default());
            assert_eq!(
                (&cut.texts, &cut.cells, &cut.troubles),
                (&whole.texts, &whole.cells, &whole.troubles),
                "{name} {step}"
            );
        }
    }
}

#[test]
fn damaged_files_do_no_harm() {
    let mut dice = 88172645463325252_u64;
    let mut roll = move |below: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice % below.max(1) as u64) as usize
    };
    for (name, bytes) in containers() {
        for _ in 0..12 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + roll(4) {
                let at = roll(damaged.len());
                damaged[at] = roll(256) as u8;
            }
            damaged.truncate(damaged.len() - roll(3) * roll(damaged.len()) / 3);
            let found = heard(&name, &damaged[..], TIGHT);
            let read: usize = found.texts.iter().map(|(_, text)| text.len()).sum();
            assert!(read < 4 << 20, "{name}: {read}");
        }
    }
}

#[test]
fn a_chain_of_pages_that_leads_back_into_itself_has_an_end() {
    let (_, mut bytes) = containers().into_iter().find(|(name, _)| name == "wide.db").unwrap();
    let is_overflow = |page: &[u8]| page[4..].iter().all(|byte| *byte == b'x');
    let page = bytes.chunks(512).position(is_overflow).unwrap();
    let number = (page as u32 + 1).to_be_bytes();
    bytes[page * 512..][..4].copy_from_slice(&number);
    let found = heard("wide.db", &bytes[..], Limits::default());
    assert_eq!(found.troubles, [": is a damaged SQLite file; its bytes were searched as they are, too"]);
}

#[test]
fn places_between_tables_have_line_and_column() {
    let long = "x".repeat(3 << 20);
    let insert = "INSERT INTO t VALUES (1, 'VALUE9');";
    let dump = format!("-- VALUE1\n  VALUE2 VALUE3\n{insert} VALUE4\n{insert}\n{long}VALUE5\n\nVALUE6");
    let found = heard("dump.sql", dump.as_bytes(), Limits::default());
    let long = long.len() as u64;
    assert_eq!(found.between, [(1, 4), (2, 3), (2, 10), (3, 37), (5, long + 1), (7, 1)]);
    assert_eq!(found.cells.len(), 2);
}

#[test]
fn statements_that_insert_no_rows_are_text() {
    let statement = "INSERT INTO t SELECT 'VALUE1', a FROM b;\n";
    let wide = (0..900).map(|number| format!("column_{number}")).collect::<Vec<_>>().join(", ");
    let dump = format!("{}INSERT INTO t ({wide}) VALUES ('VALUE2');\n", statement.repeat(20_000));
    let found = heard("dump.sql", dump.as_bytes(), Limits::default());
    assert_eq!((found.between.len(), found.between[19_999]), (20_000, (20_000, 23)));
    assert_eq!((found.cells.len(), found.cells[0].0.column.as_str()), (1, "column_0"));
}

#[test]
fn what_a_file_claims_of_itself_has_a_measure() {
    let name = "token_".repeat(20_000);
    for (what, dump) in [
        ("parentheses", format!("INSERT INTO t VALUES ({}", "(".repeat(4 << 20))),
        ("quotes", format!("INSERT INTO t VALUES ('{}", "''".repeat(2 << 20))),
        ("escapes", format!("INSERT INTO `t` VALUES ('{}", "\\n".repeat(2 << 20))),
        ("cells", format!("COPY t (a) FROM stdin;\n{}", "\t".repeat(4 << 20))),
        (
            "a name",
            format!("CREATE TABLE t ({name} text);\nINSERT INTO t VALUES {};\n", "('a'),".repeat(9000)),
        ),
        ("half statements", "INSERT INTO t (a\nCREATE TABLE t (a\n".repeat(20_000)),
    ] {
        let found = heard("dump.sql", dump.as_bytes(), Limits::default());
        assert!(found.longest < 3 << 20, "{what}: {}", found.longest);
        assert!(found.handed_out < 60 * dump.len(), "{what}: {}", found.handed_out);
    }
    let member = "n".repeat(60_000);
    let found = heard("a.zip", &zip_of(&[(&member, b"KEY=1")])[..], Limits::default());
    assert_eq!(found.texts[0].0.chars().count(), 513);
}

#[test]
fn cells_of_a_page_do_not_overlap() {
    let (_, mut bytes) = containers().into_iter().find(|(name, _)| name == "wide.db").unwrap();
    let count = |page: &[u8]| usize::from(u16::from_be_bytes([page[3], page[4]]));
    let page = bytes.chunks(512).position(|page| page[0] == 13 && count(page) > 20).unwrap();
    let page = &mut bytes[page * 512..][..512];
    // One record of nothing and a text of 377 bytes, and every pointer leads to it.
    let (pointers, record) = (8..8 + 2 * count(page), 100);
    page[pointers].as_chunks_mut::<2>().0.fill((record as u16).to_be_bytes());
    page[record..record + 384].fill(b'x');
    page[record..record + 7].copy_from_slice(&[0x82, 0x7d, 1, 4, 0, 0x85, 0x7f]);
    page[record + 50..][..6].copy_from_slice(b"VALUE1");
    let found = heard("wide.db", &bytes[..], Limits::default());
    assert_eq!((found.cells.len(), found.troubles.len()), (1, 1), "{:?}", found.troubles);
}
