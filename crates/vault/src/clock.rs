//! Time as the vault sees it: an argument, and never running backwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Where the time comes from: the system's clock in the binary, a made-up one in tests.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that never shows less than it has shown, nor less than the audit log's newest event: what has expired
/// stays expired when somebody turns the clock back.
#[derive(Clone)]
pub(crate) struct HighWater {
    clock: Arc<dyn Clock>,
    highest_ms: Arc<AtomicI64>,
}

impl HighWater {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, highest_ms: Arc::new(AtomicI64::new(0)) }
    }

    /// The time now, to the millisecond.
    pub(crate) fn now(&self) -> Timestamp {
        let now_ms = self.clock.now().as_millisecond();
        let highest_ms = self.highest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms);
        Timestamp::from_millisecond(highest_ms).unwrap_or(Timestamp::MAX)
    }

    /// What the clock itself says, for telling people when it disagrees.
    pub(crate) fn unchecked_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Never again shows less than this.
    pub(crate) fn raise_to(&self, time: Timestamp) {
        self.highest_ms.fetch_max(time.as_millisecond(), Ordering::Relaxed);
    }
}
