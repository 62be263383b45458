//! Kills: a child process works on a vault and is killed, again and again, at any moment of it.
//!
//! The child says every acknowledgement on a line of its own; what it was doing when it died is known to nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use keymoat_vault::{BackupFile, Durability, SealedVault, Vault, VaultError};

use crate::deeds::{Deed, Told, work};
use crate::exam::{Findings, examine};
use crate::place::Place;
use crate::vfs::{DiskManners, Recorder};
use crate::{Dice, Failure};

/// A vault whose children are killed.
pub struct Kills {
    place: Place,
    acknowledged: Vec<Deed>,
    dice: Dice,
}

impl Kills {
    /// Begins in a directory in which there is nothing yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn in_dir(dir: &Path, seed: u64) -> Result<Self, Failure> {
        let place = Place::new(dir, Durability::Disk)?;
        Ok(Self { place, acknowledged: Vec::new(), dice: Dice::new(seed) })
    }

    /// Where the vault is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How many deeds were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Starts a child that is to call [`live`], and kills it some while after one of its next acknowledgements.
    ///
    /// # Errors
    /// When it cannot be started, or ends by itself.
    pub fn kill_once(&mut self, command: &mut Command) -> Result<(), Failure> {
        let wrong = |e: std::io::Error| Failure::Child(format!("could not be watched: {e}"));
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().map_err(wrong)?;
        let lines =
            BufReader::new(child.stdout.take().ok_or(Failure::Child("is silent".to_owned()))?).lines();
        let (mut left, mut said) = (self.dice.below(ACKNOWLEDGEMENTS_MAX), String::new());
        for line in lines {
            let line = line.map_err(wrong)?;
            match acknowledgement(&line) {
                Some(deed) => self.acknowledged.push(deed),
                None => said = line,
            }
            if left == 0 {
                (0..self.dice.below(MOMENTS)).for_each(|_| std::thread::yield_now());
                child.kill().map_err(wrong)?;
            }
            left = left.wrapping_sub(1);
        }
        let status = child.wait().map_err(wrong)?;
        match status.signal() {
            Some(9) => Ok(()),
            _ => Err(Failure::Child(format!("ended by itself ({status}): {said}"))),
        }
    }

    /// Looks at the vault, and at what was backed up and restored.
    pub async fn examine(&self) -> Findings {
        let mut findings = examine(&self.place, &self.acknowledged).await;
        if let Err(why) = self.examine_copies().await {
            findings.stuck.push(why.to_string());
        }
        findings
    }

    /// The newest backup is whole, and whatever became of a restore can be opened or done again.
    async fn examine_copies(&self) -> Result<(), Failure> {
        let backup = self.acknowledged.iter().rev().find_map(|deed| match deed {
            Deed::BackedUp(name) => Some(self.place.dir().join(name)),
            _ => None,
        });
        let Some(backup) = backup else { return Ok(()) };
        open_backup(&backup)?.verify(&self.place.offer())?;
        let restored = |name: &str| self.acknowledged.contains(&Deed::Restored(name.to_owned()));
        for entry in fs::read_dir(self.place.dir()).map_err(|e| Failure::file(self.place.dir(), &e))? {
            let path = entry.map_err(|e| Failure::file(self.place.dir(), &e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(RESTORED) {
                let there = self.place.elsewhere(&path)?;
                examine_restored(&there, &backup, restored(&name)).await?;
                fs::remove_dir_all(&path).map_err(|e| Failure::file(&path, &e))?;
            }
        }
        Ok(())
    }
}

/// What a child does, for ever: works on the vault, backs it up, restores the backup elsewhere.
///
/// With `kill_at` it kills itself before that step of its files.
///
/// # Errors
/// When the vault refuses something; otherwise it never returns.
pub async fn live(dir: &Path, seed: u64, kill_at: Option<usize>, told: &Told) -> Result<(), Failure> {
    let place = Place::left_in(dir, Durability::Disk)?;
    let _recorder = kill_at.map(|step| Recorder::start(dir, DiskManners::KillsAt(step))).transpose()?;
    let vault = place.open_or_make().await?;
    for turn in 0.. {
        work(&place, &vault, seed.wrapping_add(turn), DEEDS_EACH, told).await?;
        let (backup, restored) = (format!("backup-{seed}-{turn}"), format!("{RESTORED}{seed}-{turn}"));
        back_up(&vault, &dir.join(&backup)).await?;
        told.tell(Deed::BackedUp(backup.clone()));
        if turn % 2 == 1 {
            continue;
        }
        restore(&place.elsewhere(&dir.join(&restored))?, &dir.join(&backup)).await?.close().await;
        told.tell(Deed::Restored(restored));
    }
    Ok(())
}

/// An acknowledgement as a line of a child's output.
pub fn line_of(deed: &Deed) -> String {
    format!("{BEGIN}{deed}{END}")
}

/// What a child acknowledged with a line; a line that a kill has cut short says nothing.
fn acknowledgement(line: &str) -> Option<Deed> {
    // The test runner's own words may stand before the first one.
    let (_, rest) = line.split_once(BEGIN)?;
    rest.strip_suffix(END)?.parse().ok()
}

pub(crate) async fn back_up(vault: &Vault, path: &Path) -> Result<(), Failure> {
    let wrong = |e: std::io::Error| Failure::file(path, &e);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(wrong)?;
    let sink = file.try_clone().map_err(wrong)?;
    let mut sink = std::io::BufWriter::new(sink);
    let me = Place::owner(vault).await?;
    vault.backup(&me, move |piece| sink.write_all(piece).and_then(|()| sink.flush())).await?;
    file.flush().and_then(|()| file.sync_all()).map_err(wrong)
}

async fn restore(to: &Place, backup: &Path) -> Result<Vault, Failure> {
    let file = open_backup(backup)?;
    let (vault, _) = file.restore(&to.data(), &to.offer(), to.surroundings(), None).await?;
    Ok(vault)
}

fn open_backup(path: &Path) -> Result<BackupFile<File>, Failure> {
    let file = File::open(path).map_err(|e| Failure::file(path, &e))?;
    Ok(BackupFile::open(file)?)
}

/// A restore that was acknowledged is there; one that was not is there as a whole or can be done.
async fn examine_restored(there: &Place, backup: &Path, acknowledged: bool) -> Result<(), Failure> {
    let empty = match SealedVault::open(&there.data(), there.durability)? {
        Ok(sealed) => {
            let report = sealed.verify(&there.offer(), there.outside_dir(), |_| {})?;
            if let Some(problem) = report.problems.first() {
                return Err(
                    VaultError::new(keymoat_vault::Code::Damaged, format!("restored: {problem}")).into()
                );
            }
            sealed.unseal(&there.offer(), there.surroundings())?.close().await;
            return Ok(());
        }
        Err(empty) => empty,
    };
    drop(empty);
    if acknowledged {
        return Err(Failure::Child("had restored a backup of which nothing is there".to_owned()));
    }
    restore(there, backup).await?.close().await;
    Ok(())
}

const BEGIN: &str = "ACK ";
const END: &str = " END";
const RESTORED: &str = "restored-";
/// A child is killed after at most so many acknowledgements: a turn and a half.
const ACKNOWLEDGEMENTS_MAX: u64 = 30;
/// How often the processor is given away at most between an acknowledgement and the kill.
const MOMENTS: u64 = 3000;
const DEEDS_EACH: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_acknowledges_nothing() {
        let deed = Deed::Issued("token".to_owned());
        let line = line_of(&deed);
        assert_eq!(acknowledgement(&format!("test x ... {line}")), Some(deed));
        for cut in 0..line.len() {
            assert_eq!(acknowledgement(&line[..cut]), None, "{cut}");
        }
    }
}
