//! What is good once is good once, however many ask at the same moment: 64 tasks at each of 1,000 things,
//! or of as many times that as `SINGLE_USE_TIMES` says.

use std::sync::Arc;

use jiff::SignedDuration;
use keymoat_vault::{Attempt, Code, NewGrant, NewToken, Put, Wanted};
use tokio::task::JoinSet;

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_that_ask_at_once_exactly_one_gets_it() {
    let desk = Desk::new().await;
    let times = times();
    let mut tried = 0;
    tried += tokens(&desk, 400 * times).await;
    tried += codes(&desk, 400 * times).await;
    tried += idempotency_keys(&desk, 150 * times).await;
    tried += grants(&desk, 30 * times).await;
    tried += expected_versions(&desk, 20 * times).await;
    println!("FIGURE single-use: 0 of {tried} things were given twice or to nobody");
}

/// A long run is for a command, not for every run of the tests.
#[allow(clippy::disallowed_methods, reason = "only this test knows the variable")]
fn times() -> usize {
    std::env::var("SINGLE_USE_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Lets [`ASKING`] tasks ask for each of the things, for a few things at a time so that a commit has many to serve, and
/// expects one winner each.
async fn race<T, F>(what: &str, things: Vec<T>, ask: impl Fn(Arc<T>) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let things: Vec<Arc<T>> = things.into_iter().map(Arc::new).collect();
    for (number, some) in things.chunks(AT_A_TIME).enumerate() {
        let mut tasks = JoinSet::new();
        for _ in 0..ASKING {
            for (at, thing) in some.iter().enumerate() {
                let asked = ask(Arc::clone(thing));
                tasks.spawn(async move { (at, asked.await) });
            }
        }
        let mut winners = vec![0; some.len()];
        tasks.join_all().await.into_iter().filter(|(_, won)| *won).for_each(|(at, _)| winners[at] += 1);
        assert!(winners.iter().all(|winners| *winners == 1), "{what}, part {number}: {winners:?}");
    }
    things.len()
}

/// All that many tasks make.
async fn made<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    tries: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut tasks = JoinSet::new();
    (0..tries).for_each(|number| drop(tasks.spawn(make(number))));
    tasks.join_all().await
}

async fn tokens(desk: &Desk, tries: usize) -> usize {
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    let tokens = made(tries, |_| {
        let (vault, owner) = (desk.vault.clone(), owner.clone());
        async move {
            let once = NewToken { uses: Some(1), ..new_token("shop") };
            vault.create_token(&owner, once).await.unwrap().token
        }
    });
    race("tokens for one use", tokens.await, |token| {
        let (vault, origin) = (desk.vault.clone(), desk.origin());
        async move { vault.sign_in_with_token(token.text(), origin).await.is_ok() }
    })
    .await
}

async fn codes(desk: &Desk, tries: usize) -> usize {
    let owner = desk.owner().await;
    let codes = made(tries, |_| {
        let (vault, owner) = (desk.vault.clone(), owner.clone());
        async move { vault.create_sign_in_code(&owner, &name("admin")).await.unwrap() }
    });
    race("sign-in codes", codes.await, |code| {
        let (vault, origin) = (desk.vault.clone(), desk.origin());
        async move { vault.sign_in_with_code(code.text(), origin).await.is_ok() }
    })
    .await
}

async fn idempotency_keys(desk: &Desk, tries: usize) -> usize {
    let owner = desk.owner().await;
    let keys = (0..tries).map(|number| format!("once-{number}")).collect();
    race("idempotency keys", keys, |key| {
        let (vault, owner) = (desk.vault.clone(), owner.clone());
        async move {
            let claimed = vault.claim(&owner, &key, &[b"request"], &needs_write("prod/stripe")).await;
            matches!(claimed, Ok(Attempt::First))
        }
    })
    .await
}

async fn expected_versions(desk: &Desk, tries: usize) -> usize {
    let owner = desk.owner().await;
    let paths = (0..tries).map(|number| format!("prod/expected/n{number}")).collect();
    race("writes with an expected version", paths, |path| {
        let (vault, owner) = (desk.vault.clone(), owner.clone());
        async move {
            match vault.put(&owner, Put { expected: Some(0), ..put(&path, "made up") }).await {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.code, Code::Conflict, "{error}");
                    false
                }
            }
        }
    })
    .await
}

async fn grants(desk: &Desk, tries: usize) -> usize {
    let owner = desk.owner().await;
    desk.put(&owner, "prod/granted", "made up").await.unwrap();
    let rules = r#"[{"capabilities":["reveal"],"environments":["prod"],"paths":["granted"]}]"#;
    let mut vendors = Vec::new();
    for number in 0..tries {
        let vendor = format!("vendor{number}");
        desk.account(&owner, &vendor, keymoat_vault::entity::AccountKind::User, &[], &[]).await.unwrap();
        let grant = NewGrant { uses: Some(1), ..new_grant(&vendor, rules, 2) };
        desk.vault.create_grant(&owner, grant).await.unwrap();
        vendors.push(desk.sign_in(&vendor).await);
    }
    desk.clock.forward(SignedDuration::from_mins(1));
    race("grants for one use", vendors, |vendor| {
        let vault = desk.vault.clone();
        async move { vault.reveal(&vendor, &secret("prod/granted"), None, &Wanted::default(), None).await.is_ok() }
    })
    .await
}

const ASKING: usize = 64;
const AT_A_TIME: usize = 50;
