//! Damage to the files of a vault: flipped bits, pages put back, and whoever edits the log.
//!
//! A flip is content when the rows that SQLite reads differ afterwards, or cannot be read. Anything else (free pages,
//! the unused end of a page, frames of the log that are out of date, one of the two slots of the checkpoint file) is
//! read by nobody, or is what the other slot is for.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use keymoat_core::checkpoint::{Checkpoint, note_text};
use keymoat_crypto::InstanceKey;
use keymoat_store::database_in;
use keymoat_vault::{BackupFile, Durability};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::deeds::{Told, put, reveal, work};
use crate::exam::{Findings, examine_values};
use crate::kill::back_up;
use crate::place::Place;
use crate::{Dice, Failure};

/// A vault with a past: copies of it at several times, to be damaged.
pub struct Specimen {
    /// As it was closed earlier.
    older: Place,
    /// As it was closed last.
    closed: Place,
    /// As it stood on the disk while it was open.
    running: Place,
    backup: PathBuf,
    scratch: PathBuf,
    seed: u64,
}

/// What became of a piece of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was named, or the vault was not opened.
    Noticed,
    /// Nothing that is read was touched.
    Harmless,
    /// It changed something, and nobody said so.
    Unnoticed(String),
    /// A value was given out that nobody had written.
    Wrong(String),
}

/// Ways of editing the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tampering {
    /// A record is changed.
    Edit,
    /// A record is removed.
    Delete,
    /// The newest records are removed.
    Truncate,
    /// Two records change places.
    Reorder,
    /// A record is there twice.
    Duplicate,
    /// A record is put between others.
    Insert,
    /// The database is put back to an older copy.
    OlderCopy,
    /// An older copy went on in another way.
    Fork,
    /// A record is changed, and the checkpoint signed with another key.
    SignAnew,
}

impl Tampering {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Edit,
        Self::Delete,
        Self::Truncate,
        Self::Reorder,
        Self::Duplicate,
        Self::Insert,
        Self::OlderCopy,
        Self::Fork,
        Self::SignAnew,
    ];
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edit => "edited",
            Self::Delete => "deleted",
            Self::Truncate => "truncated",
            Self::Reorder => "reordered",
            Self::Duplicate => "duplicated",
            Self::Insert => "inserted",
            Self::OlderCopy => "older copy",
            Self::Fork => "forked",
            Self::SignAnew => "signed anew",
        })
    }
}

impl Specimen {
    /// Makes a vault in a directory and lets it live for a while.
    ///
    /// # Errors
    /// When it does not work with nothing in its way.
    pub async fn make(scratch: &Path, seed: u64) -> Result<Self, Failure> {
        let place = Place::new(&scratch.join("specimen"), Durability::Disk)?;
        let nobody = Told::new(|_| ());
        let vault = place.open_or_make().await?;
        work(&place, &vault, seed, DEEDS_EACH, &nobody).await?;
        vault.close().await;
        // Whoever looks at copies need not wait for the disk.
        let mut copied = place.clone();
        copied.durability = Durability::Os;
        let older = copied.copy(&scratch.join("older"))?;
        let vault = place.open_or_make().await?;
        work(&place, &vault, seed + 1, DEEDS_EACH, &nobody).await?;
        let backup = scratch.join("backup");
        back_up(&vault, &backup).await?;
        write_once(&vault).await?;
        let running = copied.copy(&scratch.join("running"))?;
        vault.close().await;
        Ok(Self { older, closed: copied, running, backup, scratch: scratch.to_owned(), seed })
    }

    /// Flips one bit of one of the files, as its number says.
    ///
    /// # Errors
    /// When the files cannot be copied.
    pub async fn flip(&self, number: u64) -> Result<Outcome, Failure> {
        let mut dice = Dice::of_case(self.seed, number);
        if dice.chance(15) {
            return self.flip_backup(&mut dice);
        }
        let whole = if dice.chance(50) { &self.closed } else { &self.running };
        let mut files = whole.files()?;
        // A log that was taken over is empty, and has no bit to flip.
        files.retain(|file| fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0));
        let file = &files[dice.below(files.len() as u64) as usize];
        let name = file.strip_prefix(whole.dir()).unwrap_or(file).to_owned();
        let bit = dice.below(8 * fs::metadata(file).map_err(|e| Failure::file(file, &e))?.len());
        self.damaged(whole, &format!("flip-{number}"), by_anybody, |copy| flip(&copy.dir().join(&name), bit))
            .await
    }

    fn flip_backup(&self, dice: &mut Dice) -> Result<Outcome, Failure> {
        let wrong = |e: std::io::Error| Failure::file(&self.backup, &e);
        let mut bytes = fs::read(&self.backup).map_err(wrong)?;
        let bit = dice.below(8 * bytes.len() as u64) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verified = BackupFile::open(std::io::Cursor::new(bytes))
            .and_then(|mut backup| backup.verify(&self.closed.offer()));
        Ok(match verified {
            Err(_) => Outcome::Noticed,
            Ok(_) => Outcome::Unnoticed(format!("bit {bit} of the backup")),
        })
    }

    /// Puts one page of the database back to what it was earlier, as its number says.
    ///
    /// # Errors
    /// When the files cannot be copied.
    pub async fn roll_back_page(&self, number: u64) -> Result<Outcome, Failure> {
        let mut dice = Dice::of_case(self.seed, number);
        let read = |place: &Place| {
            let path = database_in(&place.data());
            fs::read(&path).map_err(|e| Failure::file(&path, &e))
        };
        let (old, new) = (read(&self.older)?, read(&self.closed)?);
        let differ: Vec<usize> = (0..old.len() / PAGE_BYTES)
            .filter(|page| old[page * PAGE_BYTES..][..PAGE_BYTES] != new[page * PAGE_BYTES..][..PAGE_BYTES])
            .collect();
        let page = differ[dice.below(differ.len() as u64) as usize];
        let back = &old[page * PAGE_BYTES..][..PAGE_BYTES];
        self.damaged(&self.closed, &format!("page-{number}"), by_anybody, |copy| {
            overwrite(&database_in(&copy.data()), (page * PAGE_BYTES) as u64, back)
        })
        .await
    }

    /// Edits the log in one way, at a place that the number says.
    ///
    /// # Errors
    /// When the files cannot be copied or edited.
    pub async fn tamper(&self, how: Tampering, number: u64) -> Result<Outcome, Failure> {
        let name = format!("tampered-{number}");
        match how {
            Tampering::OlderCopy => {
                self.damaged(&self.closed, &name, by_the_start, |copy| put_database(&self.older, copy)).await
            }
            Tampering::Fork => {
                let fork = self.fork(&format!("fork-{number}"), number).await?;
                let outcome =
                    self.damaged(&self.closed, &name, by_the_start, |copy| put_database(&fork, copy)).await;
                remove(&fork)?;
                outcome
            }
            how => {
                self.damaged(&self.closed, &name, by_anybody, |copy| {
                    let connection = Connection::open(database_in(&copy.data()))?;
                    edit(&connection, how, &mut Dice::of_case(self.seed, number))?;
                    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
                    Ok(())
                })
                .await
            }
        }
    }

    /// The older copy, gone on with by somebody who has the keys, up to the length of the true one.
    async fn fork(&self, name: &str, number: u64) -> Result<Place, Failure> {
        let fork = self.older.copy(&self.scratch.join(name))?;
        let length = |place: &Place| -> Result<u64, Failure> {
            let connection = Connection::open(database_in(&place.data()))?;
            Ok(connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))?)
        };
        let (here, there) = (length(&fork)?, length(&self.closed)?);
        let vault = fork.open_or_make().await?;
        for _ in here..there + number % 3 {
            reveal(&vault, 0, None).await?;
        }
        vault.close().await;
        Ok(fork)
    }

    /// Damages a copy and looks at it.
    async fn damaged(
        &self,
        whole: &Place,
        name: &str,
        is_noticed: fn(&Findings) -> bool,
        damage: impl Fn(&Place) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        let copy = whole.copy(&self.scratch.join(name))?;
        damage(&copy)?;
        let findings = examine_values(&copy).await;
        remove(&copy)?;
        let wrong = findings.wrong.first();
        if wrong.is_none() && is_noticed(&findings) {
            return Ok(Outcome::Noticed);
        }
        // Opening and looking has changed the copy; a fresh one is compared, and stays when something is wrong.
        let copy = whole.copy(&self.scratch.join(name))?;
        damage(&copy)?;
        if let Some(wrong) = wrong {
            return Ok(Outcome::Wrong(format!("{wrong} in `{}`", copy.dir().display())));
        }
        let compared = copy.copy(&self.scratch.join(format!("{name}-compared")))?;
        let is_same = matches!((rows(&compared), rows(whole)), (Ok(copy), Ok(whole)) if copy == whole);
        remove(&compared)?;
        if !is_same {
            return Ok(Outcome::Unnoticed(format!("what was done in `{}`", copy.dir().display())));
        }
        remove(&copy)?;
        Ok(Outcome::Harmless)
    }
}

/// Whether a start or a verification tells. A value that is merely gone is not that.
fn by_anybody(findings: &Findings) -> bool {
    !(findings.refused.is_empty() && findings.unverified.is_empty() && findings.stuck.is_empty())
}

/// Whether the start tells already: a whole database of another time is not served.
fn by_the_start(findings: &Findings) -> bool {
    !findings.refused.is_empty()
}

/// Waits until everything is under the checkpoint outside: that of a change is synced before it is acknowledged.
async fn write_once(vault: &keymoat_vault::Vault) -> Result<(), Failure> {
    let me = Place::owner(vault).await?;
    let (_, current) = reveal(vault, 0, None).await?;
    put(vault, &me, 0, current.version + 1).await?;
    Ok(())
}

fn flip(path: &Path, bit: u64) -> Result<(), Failure> {
    let wrong = |e: std::io::Error| Failure::file(path, &e);
    let mut byte = [0];
    File::open(path).and_then(|file| file.read_exact_at(&mut byte, bit / 8)).map_err(wrong)?;
    overwrite(path, bit / 8, &[byte[0] ^ (1 << (bit % 8))])
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.write_all_at(bytes, at)).map_err(|e| Failure::file(path, &e))
}

fn put_database(of: &Place, into: &Place) -> Result<(), Failure> {
    let (from, to) = (database_in(&of.data()), database_in(&into.data()));
    fs::copy(&from, &to).map(|_| ()).map_err(|e| Failure::file(&to, &e))
}

fn remove(place: &Place) -> Result<(), Failure> {
    fs::remove_dir_all(place.dir()).map_err(|e| Failure::file(place.dir(), &e))
}

/// Every row of every table, as SQLite reads it.
fn rows(place: &Place) -> Result<Vec<String>, Failure> {
    let connection = Connection::open(database_in(&place.data()))?;
    let mut rows = Vec::new();
    for table in ["sqlite_schema", "state", "events", "tiles", "checkpoint"] {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
        let columns = statement.column_count();
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let cells = (0..columns).map(|n| row.get_ref(n).map(|cell| format!("{cell:?}")));
            rows.push(cells.collect::<rusqlite::Result<Vec<_>>>()?.join("|"));
        }
    }
    Ok(rows)
}

fn edit(connection: &Connection, how: Tampering, dice: &mut Dice) -> Result<(), Failure> {
    let length: u64 = connection.query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0))?;
    // The first and the last record are tried as often as all others together.
    let seq = match dice.below(3) {
        0 => 0,
        1 => length - 2,
        _ => dice.below(length - 1),
    };
    match how {
        Tampering::Edit => edit_record(connection, seq, dice)?,
        Tampering::SignAnew => {
            edit_record(connection, seq, dice)?;
            sign_anew(connection)?;
        }
        Tampering::Delete => run(connection, "DELETE FROM events WHERE seq = ?1", seq)?,
        Tampering::Truncate => run(connection, "DELETE FROM events WHERE seq > ?1", seq)?,
        Tampering::Reorder => {
            run(connection, "UPDATE events SET seq = -1 WHERE seq = ?1", seq)?;
            run(connection, "UPDATE events SET seq = ?1 WHERE seq = ?1 + 1", seq)?;
            run(connection, "UPDATE events SET seq = ?1 + 1 WHERE seq = -1", seq)?;
        }
        Tampering::Duplicate => insert(connection, seq, length)?,
        Tampering::Insert => {
            run(connection, "UPDATE events SET seq = -seq WHERE seq > ?1", seq)?;
            connection.execute("UPDATE events SET seq = 1 - seq WHERE seq < 0", [])?;
            insert(connection, seq, seq + 1)?;
        }
        Tampering::OlderCopy | Tampering::Fork => {}
    }
    Ok(())
}

fn run(connection: &Connection, sql: &str, seq: u64) -> Result<(), Failure> {
    connection.execute(sql, [seq])?;
    Ok(())
}

/// Puts a copy of record `seq` at `at`.
fn insert(connection: &Connection, seq: u64, at: u64) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO events SELECT ?2, time, actor, environment, path, record, personal FROM events WHERE seq = ?1",
        [seq, at],
    )?;
    Ok(())
}

fn edit_record(connection: &Connection, seq: u64, dice: &mut Dice) -> Result<(), Failure> {
    let mut record: Vec<u8> =
        connection.query_row("SELECT record FROM events WHERE seq = ?1", [seq], |row| row.get(0))?;
    let at = dice.below(record.len() as u64) as usize;
    record[at] ^= 1 << dice.below(8);
    connection.execute("UPDATE events SET record = ?1 WHERE seq = ?2", params![record, seq])?;
    Ok(())
}

/// Signs the checkpoint of the database with the key of somebody else.
fn sign_anew(connection: &Connection) -> Result<(), Failure> {
    let note: Option<String> =
        connection.query_row("SELECT note FROM checkpoint", [], |row| row.get(0)).optional()?;
    let Some((checkpoint, _)) = note.and_then(|note| Checkpoint::parse(&note).ok()) else { return Ok(()) };
    let (signer, body) = (InstanceKey::generate().audit_signer(1), checkpoint.body());
    let key_id = signer.verifying_key().key_id(checkpoint.origin());
    let Ok(note) = note_text(&body, checkpoint.origin(), key_id, &signer.sign(body.as_bytes())) else {
        return Ok(());
    };
    connection.execute("UPDATE checkpoint SET note = ?1", [note])?;
    Ok(())
}

/// SQLite's own default, which the store keeps.
const PAGE_BYTES: usize = 4096;
const DEEDS_EACH: u64 = 40;
