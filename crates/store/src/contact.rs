//! Whether the server that holds the database answers, and why not.
//!
//! Nothing is given out without a record, so a node whose server does not answer gives nothing out; this only says so,
//! and keeps requests from each waiting for a connection that is not there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is known of the way to the server.
#[derive(Debug, Default)]
pub(crate) struct Contact(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When it was last tried in vain, and what was said.
    lost: Option<(Instant, String)>,
}

impl Contact {
    pub(crate) fn heard(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost.take().is_some() {
            tracing::info!("the database is back");
        }
    }

    pub(crate) fn lost(&self, why: &str, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost.is_none() {
            tracing::error!(%why, "the database cannot be reached");
        }
        state.lost = Some((now, why.to_owned()));
    }

    /// Why it is not tried again yet; nothing when it is time to.
    pub(crate) fn is_too_early(&self, now: Instant) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tried, why) = state.lost.as_ref()?;
        (now.saturating_duration_since(*tried) < TRY_AGAIN_AFTER).then(|| why.clone())
    }

    /// Why nothing can be written down now, when that is so.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lost.as_ref().map(|(_, why)| why.clone())
    }
}

/// Requests that come meanwhile are told at once instead of each waiting for a new connection.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_lost_and_found() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let contact = Contact::default();
        assert_eq!((contact.problem(), contact.is_too_early(at(0))), (None, None));
        contact.lost("gone", at(5_000));
        assert_eq!(contact.is_too_early(at(5_100)).as_deref(), Some("gone"));
        assert_eq!(contact.is_too_early(at(5_200)), None);
        assert_eq!(contact.problem().as_deref(), Some("gone"));
        contact.heard();
        assert_eq!(contact.problem(), None);
    }
}
