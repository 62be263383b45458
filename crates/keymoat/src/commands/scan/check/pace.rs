//! When a host is asked: about one key at a time, with a pause behind each, and no more once it says that it is too much.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keymoat_detect::Request;
use keymoat_scan::report::Liveness;
use tokio::task::JoinSet;

use super::call::Reply;
use super::{Ask, Id, TOO_MANY, said_by};

/// The pause behind each request to a host.
pub fn pause() -> Pause {
    Box::pin(tokio::time::sleep(PAUSE))
}

/// Ends when a host may be asked again; it runs from when it was made.
pub type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Asks everything, several hosts at a time; `send` sends one request.
pub async fn ask_all<S, F>(asks: Vec<Ask>, send: S, pause: fn() -> Pause) -> HashMap<Id, Liveness>
where
    S: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Reply, String>> + Send,
{
    let hosts = Arc::new(Hosts::default());
    let mut tasks = JoinSet::new();
    for ask in asks {
        let (hosts, send) = (Arc::clone(&hosts), send.clone());
        tasks.spawn(async move {
            let liveness = ask_about(&ask, &hosts, &send, pause).await;
            (ask.id.clone(), liveness)
        });
    }
    let mut answers = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        // A task that broke off leaves its key unknown.
        answers.extend(done.ok());
    }
    answers
}

async fn ask_about<S, F>(ask: &Ask, hosts: &Hosts, send: &S, pause: fn() -> Pause) -> Liveness
where
    S: Fn(Request) -> F,
    F: Future<Output = Result<Reply, String>>,
{
    let requests = match ask.requests() {
        Ok(requests) => requests,
        Err(error) => return Liveness::Unknown { why: error.to_string() },
    };
    for request in requests {
        let host = hosts.host(&request.authority());
        let mut turn = host.lock().await;
        if turn.is_too_much {
            return Liveness::Unknown { why: said_by(TOO_MANY) };
        }
        if let Some(left) = turn.pause.take() {
            left.await;
        }
        let reply = send(request).await;
        turn.pause = Some(pause());
        match reply {
            Err(why) => return Liveness::Unknown { why },
            Ok(reply) => {
                turn.is_too_much |= reply.status == TOO_MANY;
                if let Some(liveness) = ask.read(&reply) {
                    return liveness;
                }
            }
        }
    }
    match ask.is_unsure {
        true => Liveness::Unknown {
            why: "it does not go with what stands nearest to it, and more stands near it".to_owned(),
        },
        false => Liveness::Dead,
    }
}

/// The hosts that are asked, by authority.
#[derive(Default)]
struct Hosts(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Turn>>>>);

/// Who holds it may ask the host.
#[derive(Default)]
struct Turn {
    /// What is left of the pause behind the last one.
    pause: Option<Pause>,
    /// The host has said that it is asked too often.
    is_too_much: bool,
}

impl Hosts {
    fn host(&self, authority: &str) -> Arc<tokio::sync::Mutex<Turn>> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(authority.to_owned()).or_default())
    }
}

/// At most five a second. Who allows fewer says so, and is left alone then.
const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use keymoat_crypto::SecretBytes;
    use keymoat_detect::{Catalogue, Question};
    use keymoat_scan::Fingerprint;

    use super::*;

    fn ask(provider: &str, field: &str, number: u8) -> Ask {
        let provider = Catalogue::builtin().provider(provider).unwrap();
        let key = provider.keys.iter().find(|key| key.field == field).unwrap();
        let values = [field, "client_id"].map(|name| (name.to_owned(), SecretBytes::from_slice(b"made-up")));
        Ask {
            id: (provider.id.clone(), Fingerprint::from_bytes([number; 32])),
            question: Question::about(provider, key).unwrap(),
            mode: key.mode,
            values: values.into(),
            is_unsure: false,
        }
    }

    fn reply(status: u16) -> Result<Reply, String> {
        Ok(Reply { status, headers: http::HeaderMap::new(), body: b"{}".to_vec() })
    }

    #[tokio::test]
    async fn a_host_is_asked_about_one_key_at_a_time_with_a_pause_behind_each() {
        static PAUSES: AtomicUsize = AtomicUsize::new(0);
        static BUSY: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);
        let asks = (0..5).map(|number| ask("stripe", "secret_key", number));
        let asks = asks.chain((5..8).map(|number| ask("github", "token", number))).collect();
        let send = |request: Request| async move {
            let host = request.authority();
            let before = {
                let mut busy = BUSY.lock().unwrap();
                // What was sent to this host before, each of which has its pause behind it.
                let sent = busy.entry(host.clone()).or_default();
                *sent += 1;
                *sent
            };
            tokio::task::yield_now().await;
            let now = BUSY.lock().unwrap()[&host];
            assert_eq!(before, now, "two at once at {host}");
            reply(200)
        };
        let pause = || -> Pause {
            Box::pin(async {
                tokio::task::yield_now().await;
                PAUSES.fetch_add(1, Ordering::SeqCst);
            })
        };
        let answers = ask_all(asks, send, pause).await;
        assert_eq!(answers.len(), 8);
        assert!(answers.values().all(|answer| *answer == Liveness::Active { account: None }), "{answers:?}");
        // Before each but the first of a host.
        assert_eq!(PAUSES.load(Ordering::SeqCst), 4 + 2);
    }

    #[tokio::test]
    async fn who_says_that_it_is_too_much_is_left_alone() {
        static SENT: AtomicUsize = AtomicUsize::new(0);
        let asks = (0..4).map(|number| ask("stripe", "secret_key", number)).collect();
        let send = |_| async {
            SENT.fetch_add(1, Ordering::SeqCst);
            reply(TOO_MANY)
        };
        let answers = ask_all(asks, send, || Box::pin(async {})).await;
        assert!(
            answers.values().all(|answer| answer.why().is_some_and(|why| why.contains("429"))),
            "{answers:?}"
        );
        assert_eq!(SENT.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_key_is_dead_when_no_address_knows_it() {
        let check = async |live: Result<u16, &'static str>,
                           test: Result<u16, &'static str>,
                           expected: &str| {
            let send = move |request: Request| async move {
                let said = if request.host.contains("sandbox") { test } else { live };
                reply(said?)
            };
            let answers = ask_all(vec![ask("paypal", "client_secret", 0)], send, || Box::pin(async {})).await;
            assert_eq!(answers.into_values().next().unwrap().to_string(), expected);
        };
        check(Ok(200), Err("not asked"), "active").await;
        check(Ok(401), Ok(200), "active").await;
        check(Ok(401), Ok(401), "dead").await;
        check(Ok(401), Err("no answer within 10 s"), "unknown: no answer within 10 s").await;
        check(Ok(503), Ok(401), "unknown: it answered 503: it has trouble of its own").await;
    }
}
