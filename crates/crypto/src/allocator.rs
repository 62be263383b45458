//! A global allocator that overwrites memory before giving it back.
//!
//! The safety net under `Sensitive`: copies made by libraries, by growing buffers and by formatting are
//! zeroed when they are freed. It does not touch the stack, and does not lock memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// The system's allocator, zeroing each block when it is freed or moved.
pub struct ZeroingAllocator;

// SAFETY: every block comes from `System` with the layout the caller gave and goes back to it with that
// layout; in between nothing is written outside the block.
unsafe impl GlobalAlloc for ZeroingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has `layout.size()` bytes, and its owner has given it up.
        unsafe { erase(block, layout.size()) };
        // SAFETY: the caller gives the layout with which `System` allocated the block.
        unsafe { System.dealloc(block, layout) }
    }

    /// Always moves: `System.realloc` may free the old block without overwriting it.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size == layout.size() {
            return block;
        }
        // SAFETY: the caller promises a size that is not zero and does not overflow at this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_layout` has a size that is not zero.
        let new_block = unsafe { System.alloc(new_layout) };
        if new_block.is_null() {
            return new_block;
        }
        // SAFETY: both blocks are at least this long, and do not overlap since both are alive.
        unsafe { ptr::copy_nonoverlapping(block, new_block, layout.size().min(new_size)) };
        // SAFETY: the caller gives up `block`, which has `layout`.
        unsafe { self.dealloc(block, layout) };
        new_block
    }
}

/// Overwrites `len` bytes in a way that the compiler may not leave out.
///
/// # Safety
/// `block` is valid for writes of `len` bytes.
unsafe fn erase(block: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller's promise; `explicit_bzero` is a `memset` that is never optimised away.
    unsafe {
        libc::explicit_bzero(block.cast(), len);
    }
    #[cfg(not(target_os = "linux"))]
    for offset in 0..len {
        // SAFETY: the caller's promise; volatile writes are never optimised away.
        unsafe { block.add(offset).write_volatile(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(size: usize) -> (*mut u8, Layout) {
        let layout = Layout::from_size_align(size, 16).unwrap();
        // SAFETY: the size is not zero; the block is filled within its bounds.
        let block = unsafe { ZeroingAllocator.alloc(layout) };
        assert!(!block.is_null());
        // SAFETY: as above.
        unsafe { ptr::write_bytes(block, 0x5a, size) };
        (block, layout)
    }

    #[test]
    fn erases_every_byte() {
        for len in [0usize, 1, 7, 64, 4097] {
            let mut buffer = vec![0x5au8; len + 2];
            // SAFETY: the range lies inside `buffer`.
            unsafe { erase(buffer.as_mut_ptr().add(1), len) };
            assert_eq!((buffer[0], buffer[len + 1]), (0x5a, 0x5a));
            assert!(buffer[1..=len].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn reallocation_keeps_the_content() {
        for (old, new) in [(64, 128), (128, 64), (64, 64), (1, 100_000), (100_000, 1)] {
            let (block, layout) = filled(old);
            // SAFETY: `block` was allocated with `layout`, and the new size is not zero.
            let moved = unsafe { ZeroingAllocator.realloc(block, layout, new) };
            // SAFETY: the first min(old, new) bytes were copied.
            let kept = unsafe { std::slice::from_raw_parts(moved, old.min(new)) };
            assert!(kept.iter().all(|b| *b == 0x5a));
            let new_layout = Layout::from_size_align(new, 16).unwrap();
            // SAFETY: allocated by this allocator with this layout.
            unsafe { ZeroingAllocator.dealloc(moved, new_layout) };
        }
    }

    #[test]
    fn zeroed_memory_is_zero() {
        let layout = Layout::from_size_align(256, 16).unwrap();
        // SAFETY: the size is not zero; read and freed within its bounds.
        unsafe {
            let block = ZeroingAllocator.alloc_zeroed(layout);
            assert!(std::slice::from_raw_parts(block, 256).iter().all(|b| *b == 0));
            ZeroingAllocator.dealloc(block, layout);
        }
    }
}
