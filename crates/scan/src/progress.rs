//! How far a scan is, for whoever draws it.

/// What a scan is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding out what there is.
    Listing,
    /// Searching; the total is in objects or files.
    Searching,
    /// Finding out where in the history something stands; the total is in commits.
    Tracing,
}

/// Hears how far a scan is, from all its threads.
pub trait Progress: Sync {
    /// A phase begins, with so many steps.
    fn begin(&self, _phase: Phase, _total: u64) {}
    /// So many steps more are done.
    fn advance(&self, _steps: u64) {}
    /// Whether the scan should stop; what was found so far is given back.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody looks.
impl Progress for () {}
