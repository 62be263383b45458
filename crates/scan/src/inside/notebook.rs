//! Notebooks of Jupyter: what was written into their cells, and what came out. Of a notebook one cell's text is in memory
//! at a time, beside its bytes.

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Unpack;

impl Unpack<'_> {
    pub(super) fn notebook(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        // Before anything is handed on, so that what is broken is searched once, as it is.
        if serde_json::from_slice::<IgnoredAny>(&bytes).is_err() {
            self.trouble("is no notebook and was searched as it is");
            return self.plain(&mut bytes.as_slice());
        }
        let mut reader = Reader { unpack: self, cell: 0, failed: None };
        let part = Part { reader: &mut reader, level: Level::Notebook };
        // It is JSON, so only what is handed on can fail.
        let _ = part.deserialize(&mut serde_json::Deserializer::from_slice(&bytes));
        match (reader.failed, reader.cell) {
            (Some(error), _) => Err(error),
            // JSON of another kind that is called so.
            (None, 0) => self.plain(&mut bytes.as_slice()),
            (None, _) => Ok(()),
        }
    }
}

/// What goes on while a notebook is read.
struct Reader<'u, 'a> {
    unpack: &'u mut Unpack<'a>,
    /// Number of the cell that is read.
    cell: usize,
    /// Why handing on a text ended it.
    failed: Option<io::Error>,
}

impl Reader<'_, '_> {
    /// Hands on a text; `false` ends the reading.
    fn hand_on(&mut self, text: &str, of: Of) -> bool {
        let name = match of {
            Of::Cell => format!("cell {}", self.cell),
            Of::Output => format!("cell {}, output", self.cell),
            Of::Notebook => String::new(),
        };
        let done = match of {
            _ if text.is_empty() => Ok(()),
            Of::Notebook => self.unpack.plain(&mut text.as_bytes()),
            Of::Cell | Of::Output => self.unpack.within(&name, |unpack| unpack.plain(&mut text.as_bytes())),
        };
        self.failed = done.err();
        self.failed.is_none()
    }
}

/// What a text belongs to.
#[derive(Clone, Copy)]
enum Of {
    Notebook,
    Cell,
    Output,
}

/// Where in a notebook a value stands.
#[derive(Clone, Copy)]
enum Level {
    Notebook,
    /// Before version 4 of the format cells stood in worksheets.
    Sheets,
    Sheet,
    Cells,
    Cell,
}

/// What is done with a member of an object.
enum Member {
    Look(Level),
    Read(Of),
    Pass,
}

impl Level {
    fn member(self, name: &str) -> Member {
        match (self, name) {
            (Self::Notebook | Self::Sheet, "cells") => Member::Look(Self::Cells),
            (Self::Notebook, "worksheets") => Member::Look(Self::Sheets),
            (Self::Notebook, "metadata") => Member::Read(Of::Notebook),
            (Self::Cell, "source" | "input") => Member::Read(Of::Cell),
            (Self::Cell, "outputs") => Member::Read(Of::Output),
            _ => Member::Pass,
        }
    }

    fn element(self) -> Option<Self> {
        match self {
            Self::Sheets => Some(Self::Sheet),
            Self::Cells => Some(Self::Cell),
            Self::Notebook | Self::Sheet | Self::Cell => None,
        }
    }
}

/// A value of a notebook at some level.
struct Part<'r, 'u, 'a> {
    reader: &'r mut Reader<'u, 'a>,
    level: Level,
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a notebook")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match self.level.member(&name) {
                Member::Look(level) => map.next_value_seed(Part { reader: &mut *self.reader, level })?,
                Member::Read(of) => {
                    let mut text = String::new();
                    map.next_value_seed(Strings { text: &mut text })?;
                    if !self.reader.hand_on(&text, of) {
                        return Err(M::Error::custom("ended"));
                    }
                }
                Member::Pass => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        let Some(level) = self.level.element() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        loop {
            if matches!(level, Level::Cell) {
                self.reader.cell += 1;
            }
            if seq.next_element_seed(Part { reader: &mut *self.reader, level })?.is_none() {
                // It was counted and is not there.
                self.reader.cell -= usize::from(matches!(level, Level::Cell));
                return Ok(());
            }
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// All strings in a value, written one behind the other; a list of lines is one text. Pictures are left out.
struct Strings<'t> {
    text: &'t mut String,
}

/// Says whether the value was a string.
impl<'de> DeserializeSeed<'de> for Strings<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strings<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, line: &str) -> Result<bool, E> {
        self.text.push_str(line);
        Ok(true)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<bool, S::Error> {
        while let Some(is_string) = seq.next_element_seed(Strings { text: &mut *self.text })? {
            if !is_string && !self.text.is_empty() {
                self.text.push('\n');
            }
        }
        Ok(false)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match is_left_out(&name) {
                true => drop(map.next_value::<IgnoredAny>()?),
                false => {
                    map.next_value_seed(Strings { text: &mut *self.text })?;
                    self.text.push('\n');
                }
            }
        }
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

fn is_left_out(member: &str) -> bool {
    let is_picture = member.starts_with("image/") && member != "image/svg+xml";
    is_picture || matches!(member, "output_type" | "name")
}
