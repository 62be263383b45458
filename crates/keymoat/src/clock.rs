//! The system's clock: the one place that asks it for the date.

use jiff::Timestamp;
use keymoat_vault::Clock;

/// The system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time enters the program")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
