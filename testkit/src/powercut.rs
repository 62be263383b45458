//! Power cuts: one run of a vault is recorded, then the power goes at any step of it, as often as one likes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keymoat_vault::Durability;

use crate::deeds::{Deed, Told, work};
use crate::disk::Recording;
use crate::exam::{Findings, examine};
use crate::place::Place;
use crate::vfs::{DiskManners, Recorder, acknowledged};
use crate::{Dice, Failure};

/// A recorded run of a vault: making it, working on it, closing and opening it.
pub struct PowerCuts {
    place: Place,
    recording: Recording,
    deeds: Vec<Deed>,
    seed: u64,
    scratch: PathBuf,
}

/// One state of the disk after a power cut.
pub struct CrashState {
    /// Its number: with the recording's seed it says everything.
    pub number: u64,
    /// Before which step the power went.
    pub cut: usize,
    /// The vault's files.
    pub place: Place,
    /// What was acknowledged until then.
    pub acknowledged: Vec<Deed>,
}

impl PowerCuts {
    /// Records a run in a directory, whose content is of no use afterwards.
    ///
    /// # Errors
    /// When the vault does not work with nothing in its way.
    pub async fn record(
        scratch: &Path,
        seed: u64,
        durability: Durability,
        manners: DiskManners,
    ) -> Result<Self, Failure> {
        let place = Place::new(&scratch.join("recorded"), durability)?;
        let deeds = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&deeds);
        let told = Told::new(move |deed| {
            let mut deeds = heard.lock().unwrap_or_else(PoisonError::into_inner);
            deeds.push(deed);
            acknowledged(deeds.len() - 1);
        });
        let recorder = Recorder::start(place.dir(), manners)?;
        for session in 0..SESSIONS {
            let vault = place.open_or_make().await?;
            work(&place, &vault, seed.wrapping_add(session), DEEDS_EACH, &told).await?;
            vault.close().await;
        }
        let recording = recorder.finish();
        fs::remove_dir_all(place.dir()).map_err(|e| Failure::file(place.dir(), &e))?;
        let deeds = std::mem::take(&mut *deeds.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Self { place, recording, deeds, seed, scratch: scratch.to_owned() })
    }

    /// How many steps were recorded.
    pub fn steps(&self) -> usize {
        self.recording.steps.len()
    }

    /// How many deeds were acknowledged.
    pub fn deeds(&self) -> usize {
        self.deeds.len()
    }

    /// The files as the power cut of this number leaves them, in a directory of their own.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn state(&self, number: u64) -> Result<CrashState, Failure> {
        let mut dice = Dice::of_case(self.seed, number);
        let cut = dice.below(self.recording.steps.len() as u64 + 1) as usize;
        let dir = self.scratch.join(format!("state-{number}"));
        let mut place = self.place.elsewhere(&dir)?;
        // Whoever looks need not wait for the true disk.
        place.durability = Durability::Os;
        for (name, content) in self.recording.after_power_cut(cut, &mut dice) {
            let path = dir.join(name);
            fs::write(&path, content).map_err(|e| Failure::file(&path, &e))?;
        }
        let acknowledged = self
            .recording
            .acknowledged_before(cut)
            .filter_map(|deed| self.deeds.get(deed).cloned())
            .collect();
        Ok(CrashState { number, cut, place, acknowledged })
    }

    /// Lets the power cut of this number happen, and looks. A state with findings stays on the disk as it was before
    /// anybody opened it, with what was acknowledged beside it.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn try_state(&self, number: u64) -> Result<Findings, Failure> {
        let state = self.state(number)?;
        let findings = examine(&state.place, &state.acknowledged).await;
        let dir = state.place.dir();
        fs::remove_dir_all(dir).map_err(|e| Failure::file(dir, &e))?;
        if !findings.is_clean() {
            self.state(number)?.keep(self.seed, &findings)?;
        }
        Ok(findings)
    }
}

impl CrashState {
    /// Leaves beside the files what was acknowledged, so that they can be examined again.
    fn keep(&self, seed: u64, findings: &Findings) -> Result<(), Failure> {
        let mut text = format!("# seed {seed}, state {}, before step {}\n", self.number, self.cut);
        findings.sentences().for_each(|sentence| text.push_str(&format!("# {sentence}\n")));
        self.acknowledged.iter().for_each(|deed| text.push_str(&format!("{deed}\n")));
        let path = self.place.dir().join(ACKNOWLEDGED);
        fs::write(&path, text).map_err(|e| Failure::file(&path, &e))
    }
}

/// Looks at a kept state again. It is changed by that.
///
/// # Errors
/// When there is no kept state in the directory.
pub async fn examine_kept(dir: &Path, durability: Durability) -> Result<Findings, Failure> {
    let place = Place::left_in(dir, durability)?;
    let path = dir.join(ACKNOWLEDGED);
    let text = fs::read_to_string(&path).map_err(|e| Failure::file(&path, &e))?;
    let deeds: Vec<Deed> = text.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(examine(&place, &deeds).await)
}

const ACKNOWLEDGED: &str = "acknowledged";
/// The vault is made in the first; the next ones begin with opening what is there.
const SESSIONS: u64 = 3;
/// Enough for the log to be folded into the database a few times.
const DEEDS_EACH: u64 = 20;
