//! Memory for long-lived keys, and what can be switched off in the process around it.
//!
//! Keys sit in an arena that is locked into RAM (never swapped), left out of core dumps and wiped in
//! forked children. What the system refuses is done without and reported by [`memory_protection`]; keys
//! still work in plain memory. It does not defend against a debugger running as root, nor against the
//! short-lived copies that a cipher makes on the stack; the keyed states of HMAC and Ed25519 live in ordinary
//! memory, which their library overwrites when it frees them.

use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use crate::keys::KEY_LEN;

/// What the key arena has obtained from the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryProtection {
    /// Every page of the arena is locked into RAM.
    pub locked: bool,
    /// Every page of the arena is left out of core dumps (`MADV_DONTDUMP`).
    pub excluded_from_dumps: bool,
    /// Every page of the arena reads as zeroes in a forked child (`MADV_WIPEONFORK`).
    pub wiped_on_fork: bool,
    /// Size of the arena in bytes.
    pub arena_bytes: usize,
    /// Keys alive in the arena.
    pub keys_in_arena: usize,
    /// Keys alive in plain memory because the arena was full or refused.
    pub keys_in_plain_memory: usize,
}

/// What [`harden_process`] obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessProtection {
    /// Whether other processes of the same user may read this one's memory; `false` is the good case.
    pub dumpable: bool,
    /// Whether the size of core dumps is limited to zero, also for children.
    pub core_dumps_disabled: bool,
}

/// Reports how the keys alive now are protected.
pub fn memory_protection() -> MemoryProtection {
    let arena = arena();
    let all = |f: fn(&Block) -> bool| !arena.blocks.is_empty() && arena.blocks.iter().all(f);
    MemoryProtection {
        locked: all(|b| b.locked),
        excluded_from_dumps: all(|b| b.excluded_from_dumps),
        wiped_on_fork: all(|b| b.wiped_on_fork),
        arena_bytes: arena.blocks.len() * BLOCK_LEN,
        keys_in_arena: arena.blocks.iter().map(Block::used).sum(),
        keys_in_plain_memory: arena.plain,
    }
}

/// Makes the process unreadable to others and unable to dump core; says what worked, fails at nothing.
pub fn harden_process() -> ProcessProtection {
    ProcessProtection { dumpable: !refuse_dumpable(), core_dumps_disabled: refuse_core_dumps() }
}

/// The bytes of one key, in the arena where possible, zeroed when dropped.
pub(crate) struct Locked(Slot);

enum Slot {
    Arena(NonNull<[u8; KEY_LEN]>),
    Plain(Box<[u8; KEY_LEN]>),
}

impl Locked {
    /// Takes memory and lets `init` write the key in place, so that no copy of it is left on the stack.
    pub(crate) fn init(init: impl FnOnce(&mut [u8; KEY_LEN])) -> Self {
        let mut locked = Self(arena().take());
        match &mut locked.0 {
            // SAFETY: the arena gave this slot to `locked` alone; it is aligned, readable and writable for
            // KEY_LEN bytes and stays mapped for the life of the process.
            Slot::Arena(slot) => init(unsafe { slot.as_mut() }),
            Slot::Plain(bytes) => init(bytes),
        }
        locked
    }

    /// Copies a key into locked memory.
    pub(crate) fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        Self::init(|slot| slot.copy_from_slice(bytes))
    }

    /// Lends the key.
    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        match &self.0 {
            // SAFETY: as in `init`; only shared references exist while `self` is borrowed.
            Slot::Arena(slot) => f(unsafe { slot.as_ref() }),
            Slot::Plain(bytes) => f(bytes),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        match &mut self.0 {
            Slot::Arena(slot) => {
                // SAFETY: as in `init`; `self` is being dropped, so nobody else refers to the slot.
                unsafe { slot.as_mut() }.zeroize();
                arena().give_back(*slot);
            }
            Slot::Plain(bytes) => {
                bytes.zeroize();
                arena().plain -= 1;
            }
        }
    }
}

// SAFETY: a slot belongs to exactly one `Locked`, is written only through `&mut` (in `init` and `drop`), and
// the memory is not tied to a thread.
unsafe impl Send for Locked {}
// SAFETY: `&Locked` gives shared reads only.
unsafe impl Sync for Locked {}

struct Arena {
    blocks: Vec<Block>,
    /// Keys in plain memory.
    plain: usize,
}

struct Block {
    base: NonNull<u8>,
    /// One bit per slot, set when taken.
    taken: [u64; SLOTS / 64],
    locked: bool,
    excluded_from_dumps: bool,
    wiped_on_fork: bool,
}

// SAFETY: a block is plain memory owned by the arena, reached only under its mutex.
unsafe impl Send for Block {}

static ARENA: Mutex<Arena> = Mutex::new(Arena { blocks: Vec::new(), plain: 0 });

fn arena() -> MutexGuard<'static, Arena> {
    // A panic between two lines of bookkeeping leaves at worst a slot that is never given out again.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    fn take(&mut self) -> Slot {
        if let Some(slot) = self.blocks.iter_mut().find_map(Block::take) {
            return Slot::Arena(slot);
        }
        if self.blocks.len() < MAX_BLOCKS
            && let Some(mut block) = Block::map()
        {
            let slot = block.take().expect("a new block has free slots");
            self.blocks.push(block);
            return Slot::Arena(slot);
        }
        self.plain += 1;
        Slot::Plain(Box::new([0; KEY_LEN]))
    }

    fn give_back(&mut self, slot: NonNull<[u8; KEY_LEN]>) {
        let address = slot.as_ptr() as usize;
        let block = self
            .blocks
            .iter_mut()
            .find(|b| (b.base.as_ptr() as usize..b.base.as_ptr() as usize + BLOCK_LEN).contains(&address))
            .expect("a slot lies in the block it was taken from");
        let index = (address - block.base.as_ptr() as usize) / KEY_LEN;
        block.taken[index / 64] &= !(1 << (index % 64));
    }
}

impl Block {
    fn take(&mut self) -> Option<NonNull<[u8; KEY_LEN]>> {
        let word = self.taken.iter().position(|bits| *bits != u64::MAX)?;
        let bit = self.taken[word].trailing_ones() as usize;
        self.taken[word] |= 1 << bit;
        // SAFETY: word * 64 + bit < SLOTS, so the slot lies wholly inside the block's mapping.
        Some(unsafe { self.base.add((word * 64 + bit) * KEY_LEN) }.cast())
    }

    fn used(&self) -> usize {
        self.taken.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    #[cfg(unix)]
    fn map() -> Option<Self> {
        // SAFETY: an anonymous private mapping at an address the kernel chooses touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BLOCK_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        Some(Self {
            base: NonNull::new(base.cast())?,
            taken: [0; SLOTS / 64],
            // SAFETY: the range is the mapping just made.
            locked: unsafe { libc::mlock(base, BLOCK_LEN) } == 0,
            excluded_from_dumps: advise(base, Advice::DontDump),
            wiped_on_fork: advise(base, Advice::WipeOnFork),
        })
    }

    #[cfg(not(unix))]
    fn map() -> Option<Self> {
        None
    }
}

#[derive(Clone, Copy)]
enum Advice {
    DontDump,
    WipeOnFork,
}

#[cfg(target_os = "linux")]
fn advise(base: *mut libc::c_void, advice: Advice) -> bool {
    let advice = match advice {
        Advice::DontDump => libc::MADV_DONTDUMP,
        Advice::WipeOnFork => libc::MADV_WIPEONFORK,
    };
    // SAFETY: the range is a whole mapping of ours, and neither advice changes its content in this process.
    unsafe { libc::madvise(base, BLOCK_LEN, advice) == 0 }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn advise(_base: *mut libc::c_void, _advice: Advice) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn refuse_dumpable() -> bool {
    // SAFETY: PR_SET_DUMPABLE and PR_GET_DUMPABLE take no pointers.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
            && libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_dumpable() -> bool {
    false
}

#[cfg(unix)]
fn refuse_core_dumps() -> bool {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid rlimit that outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) == 0 }
}

#[cfg(not(unix))]
fn refuse_core_dumps() -> bool {
    false
}

/// Bytes per block: 2,048 keys, and no more than the 64 KiB that old systems let an ordinary user lock in
/// all; the arena grows block by block, so that a small instance does not pin memory it has no use for.
const BLOCK_LEN: usize = 64 * 1024;
/// Blocks at most: 1 MiB of locked memory, 32,768 keys; further keys live in plain memory.
const MAX_BLOCKS: usize = 16;
const SLOTS: usize = BLOCK_LEN / KEY_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_overlap_and_slots_are_zeroed_and_reused() {
        let keys: Vec<Locked> = (0..5000u32)
            .map(|i| {
                Locked::init(|slot| {
                    slot.chunks_exact_mut(4).for_each(|c| c.copy_from_slice(&i.to_le_bytes()))
                })
            })
            .collect();
        for (i, key) in keys.iter().enumerate() {
            let expected = (i as u32).to_le_bytes();
            key.expose(|bytes| assert!(bytes.chunks_exact(4).all(|c| c == expected)));
        }
        let before = memory_protection();
        assert!(before.keys_in_arena + before.keys_in_plain_memory >= 5000);
        drop(keys);
        let again: Vec<Locked> =
            (0..5000).map(|_| Locked::init(|slot| assert_eq!(*slot, [0; KEY_LEN]))).collect();
        drop(again);
    }

    #[test]
    fn a_full_arena_falls_back_to_plain_memory() {
        let mut arena = Arena { blocks: Vec::new(), plain: 0 };
        let total = SLOTS * MAX_BLOCKS;
        let plain = (0..total + 3).filter(|_| matches!(arena.take(), Slot::Plain(_))).count();
        assert!(plain >= 3);
        assert_eq!(arena.plain, plain);
        assert_eq!(arena.blocks.iter().map(Block::used).sum::<usize>() + plain, total + 3);
        for block in arena.blocks {
            // SAFETY: the mapping was made above and no slot of it is referred to any more.
            unsafe { libc::munmap(block.base.as_ptr().cast(), BLOCK_LEN) };
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forked_child_sees_zeroes() {
        let key = Locked::copy_of(&[7; KEY_LEN]);
        if !memory_protection().wiped_on_fork {
            return;
        }
        let Slot::Arena(slot) = &key.0 else { return };
        // SAFETY: the child calls nothing but `_exit`, which is allowed after a fork of a threaded process.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: reads a mapped slot and leaves.
            unsafe { libc::_exit(i32::from(slot.as_ref().iter().any(|b| *b != 0))) };
        }
        let mut status = 0;
        // SAFETY: waits for the child forked above, with a valid place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        key.expose(|bytes| assert_eq!(*bytes, [7; KEY_LEN]));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_hardened() {
        assert_eq!(harden_process(), ProcessProtection { dumpable: false, core_dumps_disabled: true });
    }
}
