//! Hearing of what other nodes have changed: the server tells (`LISTEN`), and whoever hears nothing looks by himself.
//!
//! Either way the writer is asked to go on from what is there; a word of the server is never taken for more than that.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Address;
use crate::db::postgres::{CONNECT_WITHIN, io};
use crate::writer::Job;

/// Begins to listen and to look, until nobody takes jobs any more.
pub(crate) fn start(address: &Address, jobs: &mpsc::Sender<Job>) {
    let ask = Ask { jobs: jobs.downgrade(), is_asked: Arc::default() };
    io().spawn(look(ask.clone()));
    if address.notifies() {
        io().spawn(listen(address.clone(), ask));
    }
}

/// The statement that tells the other nodes of a change.
pub(crate) const TELL: &str = "NOTIFY keymoat_changed";

/// Asks the writer to follow, unless it has been asked and has not come to it.
#[derive(Clone)]
struct Ask {
    jobs: mpsc::WeakSender<Job>,
    is_asked: Arc<AtomicBool>,
}

impl Ask {
    /// `false` when there is no writer any more.
    fn follow(&self) -> bool {
        let Some(jobs) = self.jobs.upgrade() else { return false };
        if self.is_asked.swap(true, Ordering::Relaxed) {
            return true;
        }
        let job = Job::Follow(Asked { is_asked: Arc::clone(&self.is_asked) });
        // In a full queue there is work that follows anyway.
        !matches!(jobs.try_send(job), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

/// A question that is on its way; it may be asked again when it was taken, or this is dropped.
pub(crate) struct Asked {
    is_asked: Arc<AtomicBool>,
}

impl Asked {
    /// Lets it be asked again: what is committed from here on is another question.
    pub(crate) fn taken(self) {
        drop(self);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.is_asked.store(false, Ordering::Relaxed);
    }
}

async fn look(ask: Ask) {
    while ask.follow() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn listen(address: Address, ask: Ask) {
    while ask.jobs.upgrade().is_some() {
        if let Err(error) = hear(&address, &ask).await {
            tracing::debug!(%error, "the server does not tell of changes");
        }
        tokio::time::sleep(LISTEN_AGAIN_AFTER).await;
    }
}

type Link = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

async fn connect(
    address: &Address,
) -> Result<(tokio_postgres::Client, Link), Box<dyn std::error::Error + Send + Sync>> {
    let mut last = "the address names no host".into();
    for config in address.hosts() {
        match tokio::time::timeout(CONNECT_WITHIN, config.connect(address.tls()?)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = error.into(),
            Err(late) => last = late.into(),
        }
    }
    Err(last)
}

/// Listens until the connection ends or the writer has gone.
async fn hear(address: &Address, ask: &Ask) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, mut link) = connect(address).await?;
    let (heard, mut words) = mpsc::unbounded_channel();
    let link = io().spawn(async move {
        while let Some(message) = poll_fn(|cx| link.poll_message(cx)).await {
            if matches!(message?, AsyncMessage::Notification(_)) && heard.send(()).is_err() {
                break;
            }
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    client.batch_execute("LISTEN keymoat_changed").await?;
    loop {
        tokio::select! {
            word = words.recv() => match word {
                Some(()) if ask.follow() => {}
                _ => break,
            },
            () = tokio::time::sleep(LISTEN_AGAIN_AFTER) => {
                if ask.jobs.upgrade().is_none() {
                    break;
                }
            }
        }
    }
    link.abort();
    Ok(())
}

/// How long another node's change may stay unseen when nobody tells of it: a quarter of what is promised.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
