//! SQLite's view of the disk with a recorder in between: every write, truncation, sync and removal, in order.
//!
//! It stands over the default VFS and changes nothing of what that one does; the index of a write-ahead log, which is
//! shared memory and lost with the power, goes past it. Steps on files that are not SQLite's come from
//! `keymoat_store::watch_files`. One recording runs at a time in a process.
#![allow(unsafe_code, reason = "a VFS of SQLite is a table of C functions")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use keymoat_store::FileStep;
use rusqlite::ffi;

use crate::Failure;
use crate::disk::{Recording, Step};

/// A recording that runs; at its end the program goes on unrecorded.
pub struct Recorder {
    _alone: MutexGuard<'static, ()>,
}

/// How the disk under the recorder behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskManners {
    /// It does what it is told.
    Honest,
    /// It says that write-ahead logs are synced, and does not sync them.
    LiesAboutLogs,
    /// It does what it is told until the step of this number; there the process is killed.
    KillsAt(usize),
}

impl Recorder {
    /// Records what happens to the files below `root` from here on.
    ///
    /// # Errors
    /// When SQLite does not take the VFS.
    pub fn start(root: &Path, manners: DiskManners) -> Result<Self, Failure> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        keymoat_store::watch_files(outside_step);
        let root = root.canonicalize().map_err(|e| Failure::file(root, &e))?;
        *watch() = Some(Watch { root, manners, recording: Recording::default() });
        Ok(Self { _alone: alone })
    }

    /// Ends the recording and gives it.
    pub fn finish(self) -> Recording {
        watch().take().map(|watch| watch.recording).unwrap_or_default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(watch().take());
    }
}

/// Notes in the running recording that somebody was told of the deed of this number.
pub fn acknowledged(deed: usize) {
    if let Some(watch) = watch().as_mut() {
        watch.note(Step::Acknowledged(deed));
    }
}

struct Watch {
    root: PathBuf,
    manners: DiskManners,
    recording: Recording,
}

impl Watch {
    fn file(&mut self, path: &Path) -> Option<usize> {
        let name = path.strip_prefix(&self.root).ok()?;
        let files = &mut self.recording.files;
        Some(files.iter().position(|file| file == name).unwrap_or_else(|| {
            files.push(name.to_owned());
            files.len() - 1
        }))
    }

    fn note(&mut self, step: Step) {
        if let DiskManners::KillsAt(count) = self.manners
            && self.recording.steps.len() == count
        {
            kill_this_process();
        }
        let lies = self.manners == DiskManners::LiesAboutLogs;
        match step {
            Step::Synced(file) if lies && self.recording.is_log(file) => {}
            step => self.recording.steps.push(step),
        }
    }
}

fn kill_this_process() {
    let me = rustix::process::getpid();
    // Nothing is left to be told when it fails; it does not, for one's own process.
    let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
}

static ALONE: Mutex<()> = Mutex::new(());
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

fn watch() -> MutexGuard<'static, Option<Watch>> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a step on the file that a path or an open file stands for.
fn note(path: &Path, step: impl FnOnce(usize) -> Step) {
    if let Some(watch) = watch().as_mut()
        && let Some(file) = watch.file(path)
    {
        watch.note(step(file));
    }
}

fn outside_step(path: &Path, step: FileStep<'_>) {
    // The recording knows files by where they are, whatever link leads there.
    let Ok(path) = path.canonicalize() else { return };
    note(&path, |file| match step {
        FileStep::Opened => Step::Opened(file),
        FileStep::Listed => Step::Listed(file),
        FileStep::Wrote(at, bytes) => Step::Wrote { file, at, bytes: bytes.to_vec() },
        FileStep::Synced => Step::Synced(file),
    });
}

/// The VFS that was the default one, and our copy of it.
struct Registered {
    below: *mut ffi::sqlite3_vfs,
    /// Where in the memory of an open file what we add begins.
    extra_at: usize,
}

// SAFETY: `below` points to a VFS of SQLite itself, which lives as long as the process and is never written to.
unsafe impl Send for Registered {}
// SAFETY: as above; its functions may be called from any thread.
unsafe impl Sync for Registered {}

static REGISTERED: OnceLock<Option<Registered>> = OnceLock::new();

fn install() -> Result<(), Failure> {
    REGISTERED.get_or_init(register).as_ref().map(|_| ()).ok_or(Failure::NoRecorder)
}

fn registered() -> &'static Registered {
    REGISTERED.get().and_then(Option::as_ref).expect("our functions are called through what was registered")
}

fn register() -> Option<Registered> {
    // SAFETY: a null name asks for the default VFS; SQLite initialises itself.
    let below = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    // SAFETY: SQLite gives null or a VFS that lives as long as the process.
    let copied = unsafe { below.as_ref() }?;
    let own = std::mem::size_of::<Extra>();
    let extra_at = usize::try_from(copied.szOsFile).ok()?.next_multiple_of(std::mem::align_of::<Extra>());
    let ours = ffi::sqlite3_vfs {
        szOsFile: c_int::try_from(extra_at + own).ok()?,
        pNext: std::ptr::null_mut(),
        zName: c"keymoat-recorder".as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        ..*copied
    };
    let ours = Box::leak(Box::new(ours));
    // SAFETY: `ours` is never freed, and its functions are those of the VFS below or follow the same contract.
    let code = unsafe { ffi::sqlite3_vfs_register(ours, 1) };
    (code == ffi::SQLITE_OK).then_some(Registered { below, extra_at })
}

/// What stands behind the VFS's own part in the memory of an open file.
struct Extra {
    /// The functions of the VFS below for this file.
    below: *const ffi::sqlite3_io_methods,
    /// The same with ours in place of some; freed when the file is closed.
    ours: *mut ffi::sqlite3_io_methods,
    /// Its path; freed when the file is closed.
    path: *mut PathBuf,
    /// Whether its first sync also syncs its directory, as SQLite does for logs that it made.
    lists: bool,
}

/// What we added to an open file.
///
/// # Safety
/// `file` must have been opened by [`open`] and not been closed.
unsafe fn extra<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Extra {
    // SAFETY: SQLite gave `szOsFile` bytes for the file, and `open` has filled those from `extra_at` on; SQLite uses
    // a file from one thread at a time, and no reference outlives the function that asked for it.
    unsafe { &mut *file.cast::<u8>().add(registered().extra_at).cast::<Extra>() }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let below = registered().below;
    // SAFETY: `below` is SQLite's own VFS, which has this function.
    let Some(open_below) = (unsafe { (*below).xOpen }) else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the arguments are SQLite's, and `file` is larger than the VFS below asks for.
    let code = unsafe { open_below(below, name, file, flags, out_flags) };
    // SAFETY: `file` is SQLite's memory for it; the VFS below has set its functions when it is open.
    let methods = unsafe { (*file).pMethods };
    if code != ffi::SQLITE_OK || methods.is_null() || name.is_null() {
        return code;
    }
    // SAFETY: SQLite's names end with a zero and live as long as the file is open.
    let path = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    note(&path, Step::Opened);
    // SAFETY: an open file's functions are a table that lives as long as the file.
    let mut ours = unsafe { *methods };
    ours.xClose = Some(close);
    ours.xWrite = Some(write);
    ours.xTruncate = Some(truncate);
    ours.xSync = Some(sync);
    let is_log = flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
    let extra = Extra {
        below: methods,
        ours: Box::into_raw(Box::new(ours)),
        path: Box::into_raw(Box::new(path)),
        lists: is_log && flags & ffi::SQLITE_OPEN_CREATE != 0,
    };
    // SAFETY: the memory from `extra_at` on is ours and large enough, see `register`; the table lives until `close`.
    unsafe {
        (*file).pMethods = extra.ours;
        file.cast::<u8>().add(registered().extra_at).cast::<Extra>().write(extra);
    }
    code
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what `open` has opened, once; the boxes come from `Box::into_raw` there.
    unsafe {
        let Extra { below, ours, path, .. } = *extra(file);
        (*file).pMethods = below;
        drop(Box::from_raw(ours));
        drop(Box::from_raw(path));
        (*below).xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls it on a file that `open` has opened, with `count` readable bytes.
    unsafe {
        let extra = extra(file);
        if let (Ok(at), Ok(count)) = (u64::try_from(at), usize::try_from(count)) {
            let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), count);
            note(&*extra.path, |file| Step::Wrote { file, at, bytes: bytes.to_vec() });
        }
        (*extra.below).xWrite.map_or(ffi::SQLITE_IOERR, |write| write(file, bytes, count, at))
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls it on a file that `open` has opened.
    unsafe {
        let extra = extra(file);
        let to = u64::try_from(size).unwrap_or(0);
        note(&*extra.path, |file| Step::Truncated { file, to });
        (*extra.below).xTruncate.map_or(ffi::SQLITE_IOERR, |truncate| truncate(file, size))
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite calls it on a file that `open` has opened.
    unsafe {
        let extra = extra(file);
        let code = (*extra.below).xSync.map_or(ffi::SQLITE_IOERR, |sync| sync(file, flags));
        if code == ffi::SQLITE_OK {
            note(&*extra.path, Step::Synced);
            if std::mem::take(&mut extra.lists) {
                note(&*extra.path, Step::Listed);
            }
        }
        code
    }
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let below = registered().below;
    // SAFETY: `below` is SQLite's own VFS; the arguments are SQLite's.
    let code = unsafe { (*below).xDelete.map_or(ffi::SQLITE_IOERR, |delete| delete(below, name, sync_dir)) };
    if code == ffi::SQLITE_OK && !name.is_null() {
        // SAFETY: SQLite's names end with a zero.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
        note(path, Step::Removed);
        if sync_dir != 0 {
            note(path, Step::Listed);
        }
    }
    code
}
