//! Signals that reach Keymoat while a program runs under it. It says who sent each: what a terminal sends goes to the
//! whole foreground group, so the program has it already; what a process sends to Keymoat alone has to be passed on.
//!
//! They are read from a descriptor (signalfd(2)), which tells the sender and which Linux alone has.

use nix::sys::signal::Signal;

use crate::error::CliError;

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub signal: Signal,
    /// Whether the terminal sent it.
    pub is_from_terminal: bool,
}

#[cfg(target_os = "linux")]
mod imp {
    use std::sync::OnceLock;

    use nix::errno::Errno;
    use nix::sys::signal::SigSet;
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::sync::mpsc;

    use super::*;

    /// Takes the signals out of every thread's way. Must be called before there is a second thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn hold_back() -> Result<(), CliError> {
        let before = SigSet::thread_get_mask().map_err(wrong)?;
        BEFORE.get_or_init(|| before);
        passed_on().thread_block().map_err(wrong)
    }

    /// Does something that takes over this thread's mask of signals, as starting a program does, with the mask that was
    /// there before. What comes meanwhile is heard all the same: [`Signals`] has a handler for it.
    ///
    /// # Errors
    /// When the system refuses; then nothing is done.
    pub fn as_before<R>(work: impl FnOnce() -> R) -> Result<R, CliError> {
        let before = BEFORE.get().copied().unwrap_or_else(SigSet::empty);
        before.thread_set_mask().map_err(wrong)?;
        let result = work();
        passed_on().thread_block().map_err(wrong)?;
        Ok(result)
    }

    /// The signals that were held back.
    pub struct Signals {
        heard: mpsc::UnboundedReceiver<Heard>,
    }

    impl Signals {
        /// Begins to read them.
        ///
        /// # Errors
        /// When the system refuses.
        pub fn listen() -> Result<Self, CliError> {
            let descriptor = SignalFd::with_flags(&passed_on(), SfdFlags::SFD_CLOEXEC).map_err(wrong)?;
            let (heard, receiver) = mpsc::unbounded_channel();
            for held in PASSED_ON {
                let mut caught = signal(SignalKind::from_raw(held as i32)).map_err(wrong)?;
                let heard = heard.clone();
                // Only while a program is being started: it cannot have it from the terminal yet.
                tokio::spawn(async move {
                    while caught.recv().await.is_some() {
                        if heard.send(Heard { signal: held, is_from_terminal: false }).is_err() {
                            return;
                        }
                    }
                });
            }
            // A thread of its own that ends with the program: reading blocks until there is a signal.
            let listener = move || while pass_next(&descriptor, &heard) {};
            std::thread::Builder::new().name("signals".to_owned()).spawn(listener).map_err(wrong)?;
            Ok(Self { heard: receiver })
        }

        /// The next one.
        pub async fn next(&mut self) -> Heard {
            match self.heard.recv().await {
                Some(heard) => heard,
                // Reading has failed for good; the program's end is waited for all the same.
                None => std::future::pending().await,
            }
        }
    }

    /// Whether there may be another one.
    fn pass_next(descriptor: &SignalFd, heard: &mpsc::UnboundedSender<Heard>) -> bool {
        let info = match descriptor.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => return true,
            Err(_) => return false,
        };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        let Some(signal) = signal else { return true };
        // signal.h(0P): what a process sends has a code of at most 0.
        heard.send(Heard { signal, is_from_terminal: info.ssi_code > 0 }).is_ok()
    }

    fn passed_on() -> SigSet {
        PASSED_ON.into_iter().collect()
    }

    fn wrong(error: impl std::fmt::Display) -> CliError {
        CliError::new(format!("cannot listen for signals: {error}"))
    }

    /// The mask that this process was started with.
    static BEFORE: OnceLock<SigSet> = OnceLock::new();
    /// What people, shells and service managers send to a program. SIGSTOP and SIGKILL cannot be passed on.
    const PASSED_ON: [Signal; 9] = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGTSTP,
        Signal::SIGCONT,
    ];
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::*;

    /// Does nothing here.
    ///
    /// # Errors
    /// Always.
    pub fn hold_back() -> Result<(), CliError> {
        Err(CliError::new("`run --watch` needs Linux"))
    }

    /// Does it.
    ///
    /// # Errors
    /// None here.
    pub fn as_before<R>(work: impl FnOnce() -> R) -> Result<R, CliError> {
        Ok(work())
    }

    /// None here.
    pub struct Signals;

    impl Signals {
        /// Does nothing here.
        ///
        /// # Errors
        /// Always.
        pub fn listen() -> Result<Self, CliError> {
            hold_back().map(|()| Self)
        }

        /// None comes.
        pub async fn next(&mut self) -> Heard {
            std::future::pending().await
        }
    }
}

pub use imp::{Signals, as_before, hold_back};
