//! A place as a report tells it.

use std::collections::HashSet;

use keymoat_detect::Encoding;

use super::order::Reach;
use crate::place::{CommitRef, Inside, Place, Source, Standing};
use crate::rows::Cell;

/// A place as a report tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// How far the value has got by standing here; the worst sorts first.
    pub reach: Reach,
    /// The path, or whatever names the place. Safe to print.
    pub path: String,
    /// The line, from 1; 0 where lines mean nothing.
    pub line: u64,
    /// The column in bytes, from 1; 0 where columns mean nothing.
    pub column: u64,
    /// The form that the value has here.
    pub encoding: Encoding,
    /// The branch or tag, where it stands at the tip of one.
    pub branch: Option<String>,
    /// How many versions of the file have it.
    pub versions: u32,
    /// The oldest commit with it.
    pub first: Option<Commit>,
    /// The newest commit with it.
    pub last: Option<Commit>,
    /// The newest blob with it.
    pub blob: Option<String>,
    /// The members of archives and the like that lead to it, from the outermost.
    pub members: Vec<String>,
    /// The cell of a table.
    pub cell: Option<Cell>,
    /// What people call that cell: `Odoo › System Parameters › …`.
    pub known_as: Option<String>,
}

/// A commit as a report tells it. Safe to print.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// Who wrote it.
    pub author: String,
    /// When it was written, in seconds since 1970.
    pub date: i64,
    /// The first line of its message.
    pub title: String,
}

impl Spot {
    /// `shop/settings.py:12`, `backup.zip › shop.sql › Odoo › System Parameters › `stripe.secret_key``.
    pub fn place(&self) -> String {
        let place = self.place_in_file();
        match self.line {
            0 => place,
            line => format!("{place}:{line}"),
        }
    }

    /// The same without the line.
    pub fn place_in_file(&self) -> String {
        let path = if self.path.is_empty() { "(no path)" } else { &self.path };
        let mut place = path.to_owned();
        for member in &self.members {
            place.push_str(STEP);
            place.push_str(member);
        }
        if let Some(cell) = &self.cell {
            let stands = format!("{}.{}, {}", cell.table, cell.column, cell.row);
            match &self.known_as {
                Some(known) => place.push_str(&format!("{STEP}{known} [{stands}]")),
                None => place.push_str(&format!("{STEP}{stands}")),
            }
        }
        place
    }

    /// How far it has got, in words: `still in HEAD`, `at the tip of next`.
    pub fn standing(&self) -> String {
        match &self.branch {
            Some(branch) => format!("still at the tip of {branch}"),
            None => self.reach.words().to_owned(),
        }
    }
}

/// Puts places in order, what is worst and then oldest first, each once: a file as it is and the same file in `HEAD` are one place.
pub(super) fn settle(spots: &mut Vec<Spot>) {
    spots.sort();
    spots.dedup();
    let in_head: HashSet<String> =
        spots.iter().filter(|spot| spot.reach == Reach::Head).map(Spot::place_in_file).collect();
    spots.retain(|spot| spot.reach != Reach::File || !in_head.contains(&spot.place_in_file()));
    spots.sort_by_key(|spot| (spot.reach, spot.first.as_ref().map_or(i64::MAX, |first| first.date)));
}

/// A place, told from its target on where there are several.
pub(super) fn of(place: &Place, within: Option<&str>) -> Spot {
    let path = match within {
        Some(target) if is_relative(&place.source, target) => {
            format!("{}/{}", target.trim_end_matches('/'), place.source.path())
        }
        _ => place.source.path().to_owned(),
    };
    let mut spot = Spot {
        reach: Reach::File,
        path: printable(&path),
        line: place.line,
        column: place.column,
        encoding: place.encoding,
        branch: None,
        versions: 1,
        first: None,
        last: None,
        blob: None,
        members: Vec::new(),
        cell: None,
        known_as: None,
    };
    fill(&mut spot, &place.source);
    spot
}

fn fill(spot: &mut Spot, source: &Source) {
    match source {
        Source::File(_) => {}
        Source::Staged(_) => spot.reach = Reach::Staged,
        Source::Stream(_) | Source::Database(_) => spot.reach = Reach::Data,
        Source::Inside(inside) => {
            fill(spot, &inside.of);
            fill_inside(spot, inside);
        }
        Source::History(historic) => {
            spot.reach = reach(&historic.standing);
            if let Standing::Tip(branch) = &historic.standing {
                spot.branch = Some(printable(branch));
            }
            spot.versions = historic.versions;
            spot.first = historic.first.as_ref().map(commit);
            spot.last = historic.last.as_ref().map(commit);
            spot.blob = Some(historic.blob.clone());
        }
    }
}

fn fill_inside(spot: &mut Spot, inside: &Inside) {
    spot.members = inside.members.iter().map(|member| printable(member)).collect();
    spot.known_as = inside.known_as.as_deref().map(printable);
    spot.cell = inside.cell.as_ref().map(|cell| Cell {
        table: printable(&cell.table),
        column: printable(&cell.column),
        row: printable(&cell.row),
        company: cell.company.as_deref().map(printable),
        setting: cell.setting.as_deref().map(printable),
    });
    if spot.cell.is_some() && spot.reach == Reach::File {
        spot.reach = Reach::Data;
    }
}

/// Whether a place is told from its target on. A file that is the target is told by its own name, as a stream is.
fn is_relative(source: &Source, target: &str) -> bool {
    match source {
        Source::Stream(_) | Source::Database(_) => false,
        Source::Inside(inside) => is_relative(&inside.of, target),
        Source::File(path) => path != target,
        Source::Staged(_) | Source::History(_) => true,
    }
}

fn reach(standing: &Standing) -> Reach {
    match standing {
        Standing::Head => Reach::Head,
        Standing::Tip(_) => Reach::Tip,
        Standing::History => Reach::History,
        Standing::Stash => Reach::Stash,
        Standing::Reflog => Reach::Reflog,
        Standing::Unreachable => Reach::Unreachable,
    }
}

fn commit(commit: &CommitRef) -> Commit {
    Commit {
        id: printable(&commit.id),
        author: printable(&commit.author),
        date: commit.authored,
        title: printable(&commit.title),
    }
}

/// Text from elsewhere without what moves a cursor, turns a line around or ends it.
pub(crate) fn printable(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect()
}

/// Leads from a thing to what is in it.
const STEP: &str = " › ";
