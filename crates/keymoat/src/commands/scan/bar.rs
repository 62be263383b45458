//! How far a scan is: a bar on a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use keymoat_scan::{Phase, Progress};

/// A bar that is seen where a person reads stderr, and nowhere else.
pub struct Bar(ProgressBar);

impl Bar {
    /// One at the beginning.
    pub fn new() -> Self {
        Self(ProgressBar::new(0))
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, phase: Phase, total: u64) {
        let words = match phase {
            Phase::Listing => "listing",
            Phase::Searching => "searching",
            Phase::Tracing => "tracing what was found",
        };
        let template = match total {
            0 => "{msg} {human_pos}",
            _ => "{msg} {wide_bar} {human_pos} of {human_len}, {eta} to go",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.reset();
        self.0.set_message(words);
        self.0.set_length(total);
    }

    fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }
}
