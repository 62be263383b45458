//! Whether the server that holds the database answers.
//!
//! Whoever cannot be heard for [`CUT_OFF_AFTER`] may have missed that somebody was shut out, so nothing that might have
//! been revoked is served any more. Every read that needs a record needs the server anyway.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is known of the way to the server.
#[derive(Debug)]
pub(crate) struct Contact(Mutex<State>);

#[derive(Debug)]
struct State {
    heard: Instant,
    /// When it was last tried in vain, and what was said.
    lost: Option<(Instant, String)>,
}

impl Contact {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { heard: now, lost: None }))
    }

    pub(crate) fn heard(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost.take().is_some() {
            tracing::info!("the database is back");
        }
        state.heard = now;
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

    /// Whether the server was not heard for so long that somebody may have been shut out unnoticed.
    pub(crate) fn is_cut_off(&self, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(state.heard) >= CUT_OFF_AFTER
    }
}

/// Requests that come meanwhile are told at once instead of each waiting for a new connection.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// After this long without a word from the server a node no longer speaks for the vault.
pub(crate) const CUT_OFF_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_lost_and_found() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let contact = Contact::new(start);
        assert_eq!((contact.problem(), contact.is_cut_off(at(4_999))), (None, false));
        assert!(contact.is_cut_off(at(5_000)));
        contact.lost("gone", at(5_000));
        assert_eq!(contact.is_too_early(at(5_100)).as_deref(), Some("gone"));
        assert_eq!(contact.is_too_early(at(5_200)), None);
        assert_eq!(contact.problem().as_deref(), Some("gone"));
        contact.heard(at(6_000));
        assert_eq!((contact.problem(), contact.is_cut_off(at(10_999))), (None, false));
        assert!(contact.is_cut_off(at(11_000)));
    }
}
