//! How far a scan is: a bar on a terminal, and the wish to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use keymoat_scan::{Phase, Progress};

/// A bar that is seen where a person reads stderr, and nowhere else.
pub struct Bar {
    bar: ProgressBar,
    is_stopped: AtomicBool,
}

impl Bar {
    /// One at the beginning.
    pub fn new() -> Self {
        Self { bar: ProgressBar::new(0), is_stopped: AtomicBool::new(false) }
    }

    /// Asks the scan to stop.
    pub fn cancel(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the scan was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, phase: Phase, total: u64) {
        let words = match phase {
            Phase::Listing => "listing",
            Phase::Searching => "searching",
            Phase::Tracing => "tracing what was found",
        };
        let template = if total > 0 { "{msg} {wide_bar} {human_pos} of {human_len}, {eta} to go" } else { "{msg} {human_pos}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset();
        self.bar.set_message(words);
        self.bar.set_length(total);
    }

    fn advance(&self, steps: u64) {
        self.bar.inc(steps);
    }

    fn is_cancelled(&self) -> bool {
        self.is_stopped()
    }
}
