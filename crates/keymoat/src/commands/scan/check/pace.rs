//! When a host is asked: about one key at a time, with a pause behind each, and no more once it says that it is too much.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keymoat_detect::Request;
use keymoat_scan::report::Liveness;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::call::Reply;
use super::{Ask, Id, TOO_MANY, said_by};

/// Asks everything, several hosts at a time; `send` sends one request.
pub async fn ask_all<S, F>(asks: Vec<Ask>, send: S) -> HashMap<Id, Liveness>
where
    S: Fn(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Reply, String>> + Send,
{
    let hosts = Arc::new(Hosts::default());
    let mut tasks = JoinSet::new();
    for ask in asks {
        let (hosts, send) = (Arc::clone(&hosts), send.clone());
        tasks.spawn(async move {
            let liveness = ask_about(&ask, &hosts, &send).await;
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

async fn ask_about<S, F>(ask: &Ask, hosts: &Hosts, send: &S) -> Liveness
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
        if let Some(pause) = turn.pause.take() {
            pause.await;
        }
        let reply = send(request).await;
        turn.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
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
    Liveness::Dead
}

/// The hosts that are asked, by authority.
#[derive(Default)]
struct Hosts(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Turn>>>>);

/// Who holds it may ask the host.
#[derive(Default)]
struct Turn {
    /// What is left of the pause behind the last one.
    pause: Option<Pin<Box<Sleep>>>,
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
