//! How many requests from the network are worked on at once, and how much of their bodies is held. More is refused at
//! once with 503, before anything is spent on it: a queue that grows serves nobody in time.
//!
//! Who waits for something other than this server (a client's body, a change that has not happened) gives up his turn
//! meanwhile. Health checks and the socket of this machine need none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What there is room for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Room {
    requests: Arc<Semaphore>,
    body_kib: Arc<Semaphore>,
    refused: Refused,
}

/// How many requests were refused for want of room. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Refused(Arc<AtomicU64>);

impl Refused {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts what is not there.
    fn unless<T>(&self, room: Option<T>) -> Option<T> {
        if room.is_none() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        room
    }
}

/// The turn of a request, among its extensions.
#[derive(Clone)]
pub(crate) struct Turn {
    room: Room,
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

/// Room for a body; it is free again when this is dropped.
pub(crate) struct Space {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(requests: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            body_kib: Arc::new(Semaphore::new(BODIES_KIB)),
            refused: Refused::default(),
        }
    }

    /// A turn, when there is one.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let permit = self.refused.unless(Arc::clone(&self.requests).try_acquire_owned().ok())?;
        Some(Turn { room: self.clone(), permit: Arc::new(Mutex::new(Some(permit))) })
    }

    /// How many were refused, now and later.
    pub(crate) fn refused(&self) -> Refused {
        self.refused.clone()
    }
}

impl Turn {
    /// Gives the turn up while waiting for somebody else.
    pub(crate) fn give_up(&self) {
        self.slot(|slot| drop(slot.take()));
    }

    /// Takes it again; false when there is none.
    pub(crate) fn take_again(&self) -> bool {
        let permit = self.room.refused.unless(Arc::clone(&self.room.requests).try_acquire_owned().ok());
        let has_one = permit.is_some();
        self.slot(|slot| *slot = permit);
        has_one
    }

    /// Room for a body of so many bytes; small ones always have it.
    pub(crate) fn space(&self, bytes: u64) -> Option<Space> {
        if bytes <= SMALL_BODY_BYTES {
            return Some(Space { _permit: None });
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let permit = Arc::clone(&self.room.body_kib).try_acquire_many_owned(kib).ok();
        let permit = self.room.refused.unless(permit)?;
        Some(Space { _permit: Some(permit) })
    }

    fn slot(&self, change: impl FnOnce(&mut Option<OwnedSemaphorePermit>)) {
        change(&mut self.permit.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Of all bodies that are larger than small ones: 64 of the largest at once.
const BODIES_KIB: usize = 64 * 1024;
/// Nearly every request; as many as there are connections fit into memory.
const SMALL_BODY_BYTES: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_given_up_and_taken_again() {
        let room = Room::new(1);
        let turn = room.turn().unwrap();
        assert!(room.turn().is_none());
        turn.give_up();
        let other = room.turn().unwrap();
        assert!(!turn.take_again());
        drop(other);
        assert!(turn.take_again());
        assert!(room.turn().is_none());
        drop(turn);
        assert!(room.turn().is_some());
        assert_eq!(room.refused().count(), 3);
    }

    #[test]
    fn large_bodies_share_room_and_small_ones_need_none() {
        let room = Room::new(1);
        let turn = room.turn().unwrap();
        let mut held = Vec::new();
        while let Some(space) = turn.space(1024 * 1024) {
            held.push(space);
        }
        assert_eq!(held.len(), 64);
        assert!(turn.space(SMALL_BODY_BYTES).is_some() && turn.space(SMALL_BODY_BYTES + 1).is_none());
        assert_eq!(room.refused().count(), 2);
        held.pop();
        assert!(turn.space(SMALL_BODY_BYTES + 1).is_some());
    }
}
