//! Clocks that jump, by seconds and by years, forwards and back, also while the vault is closed: what has ended stays
//! ended, and nothing ends early or late around the days on which calendars go wrong.

use jiff::{SignedDuration, Timestamp};
use keymoat_crypto::SecretBytes;
use keymoat_vault::{Caller, Clock, NewGrant, NewToken};

use crate::cluster;
use crate::common::*;

#[tokio::test]
async fn what_has_ended_stays_ended_however_the_clock_jumps() {
    let mut tried = 0;
    for start in STARTS {
        let mut desk = at(start).await;
        let ended = Ended::new(&desk).await;
        let mut highest = desk.vault.now();
        for (number, jump) in JUMPS.iter().enumerate() {
            // Where the clock stands, not where it would have gone: each jump is from the true time.
            desk.clock.forward(*jump);
            if number % 2 == 0 {
                desk = desk.reopened().await;
            }
            tried += ended.refused(&desk, &format!("{start}, {jump:#}")).await;
            assert!(desk.vault.now() >= highest, "{start}, {jump:#}: time ran back");
            highest = desk.vault.now();
            desk.clock.forward(-*jump);
            tried += ended.refused(&desk, &format!("{start}, back from {jump:#}")).await;
        }
        // What is made now lasts as long as it should, whatever the clock showed in between.
        lasts_a_minute(&desk, start).await;
        let report = desk.vault.verify(&desk.owner().await).await.unwrap();
        assert!(report.problems.is_empty(), "{start}: {:?}", report.problems);
    }
    println!("FIGURE clocks: 0 of {tried} attempts with something that had ended were allowed");
}

#[tokio::test]
async fn a_minute_is_a_minute_on_every_odd_day() {
    for start in STARTS {
        lasts_a_minute(&at(start).await, start).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_on_one_node_has_ended_on_one_whose_clock_is_behind() {
    let cluster = match cluster::Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIP postgres clocks: {why}"),
    };
    let address = || keymoat_vault::Address::parse(&cluster.url()).unwrap();
    let desk = Desk::new_at(Some(address())).await;
    let (other, behind) = desk.node(address());
    let owner = desk.owner().await;
    let hour = NewToken { ttl: SignedDuration::from_hours(1), ..new_token("os:ana") };
    let token = desk.vault.create_token(&owner, hour).await.unwrap();
    let signs_in = async |vault: &keymoat_vault::Vault| {
        vault.fresh().await.unwrap();
        vault.sign_in_with_token(token.token.text(), desk.origin()).await.is_ok()
    };
    assert!(signs_in(&desk.vault).await && signs_in(&other).await);
    let mut refused = 0;
    for jump in [59, 1, 60, 24 * 60, 365 * 24 * 60] {
        desk.clock.forward(SignedDuration::from_mins(jump));
        // Its record, of a refusal from the second jump on, is what tells the other node how late it is.
        let here = signs_in(&desk.vault).await;
        assert_eq!(here, jump == 59);
        desk.vault.record_system("server", keymoat_core::audit::Action::Start).await.unwrap();
        assert_eq!(signs_in(&other).await, here, "after {jump} minutes");
        assert!(other.now() >= desk.clock.now() && behind.now() < desk.clock.now());
        refused += u64::from(!here);
    }
    assert_eq!(refused, 4);
    other.close().await;
    desk.vault.close().await;
}

async fn at(start: &str) -> Desk {
    let desk = Desk::new().await;
    desk.clock.forward(start.parse::<Timestamp>().unwrap().duration_since(desk.clock.now()));
    desk
}

/// A token from one side of the odd moment to the other.
async fn lasts_a_minute(desk: &Desk, start: &str) {
    let owner = desk.owner().await;
    // Where the clock was set back, time stands until it has caught up.
    let behind = desk.vault.now().duration_since(desk.clock.now());
    desk.clock.forward(behind);
    let minute = NewToken { ttl: SignedDuration::from_mins(1), ..new_token("os:ana") };
    let token = desk.vault.create_token(&owner, minute).await.unwrap();
    let signs_in = async || desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await.is_ok();
    desk.clock.forward(SignedDuration::from_millis(59_999));
    assert!(signs_in().await, "{start}: ended early");
    desk.clock.forward(SignedDuration::from_millis(1));
    assert!(!signs_in().await, "{start}: lasted too long");
}

/// One of each thing that ends, after its end.
struct Ended {
    token: SecretBytes,
    code: SecretBytes,
    vendor: Caller,
    breaker: Caller,
}

impl Ended {
    async fn new(desk: &Desk) -> Self {
        let owner = desk.owner().await;
        desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
        desk.service("shop", READS_STRIPE).await;
        let new = NewToken { ttl: SignedDuration::from_hours(1), ..new_token("shop") };
        let token = desk.vault.create_token(&owner, new).await.unwrap().token.text().duplicate();
        let kind = keymoat_vault::entity::AccountKind::User;
        desk.account(&owner, "vendor", kind, &[], &[]).await.unwrap();
        desk.vault.create_grant(&owner, new_grant("vendor", READS_STRIPE, 2)).await.unwrap();
        let vendor = desk.sign_in("vendor").await;
        let code = desk.vault.create_sign_in_code(&owner, &name("admin")).await.unwrap();
        let issued = desk.vault.sign_in_with_code(code.text(), desk.origin()).await.unwrap();
        let breaker = desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap();
        desk.clock.forward(SignedDuration::from_hours(2));
        let glass = NewGrant { break_glass: true, ..new_grant("admin", READS_STRIPE, 1) };
        let glass = desk.vault.create_grant(&breaker, glass).await.unwrap();
        desk.vault.approve_grant(&owner, glass.id).await.unwrap();
        desk.reveal(&breaker, "prod/stripe").await.unwrap();
        let code = desk.vault.create_sign_in_code(&owner, &name("admin")).await.unwrap();
        desk.clock.forward(SignedDuration::from_hours(1));
        let ended = Self { token, code: code.text().duplicate(), vendor, breaker };
        ended.refused(desk, "at its end").await;
        ended
    }

    /// Tries everything, and says how much that was.
    async fn refused(&self, desk: &Desk, when: &str) -> usize {
        let allowed = [
            ("the token", desk.vault.sign_in_with_token(&self.token, desk.origin()).await.is_ok()),
            ("the code", desk.vault.sign_in_with_code(&self.code, desk.origin()).await.is_ok()),
            ("the grant", desk.reveal(&self.vendor, "prod/stripe").await.is_ok()),
            ("break-glass", desk.reveal(&self.breaker, "prod/stripe").await.is_ok()),
        ];
        for (what, is_allowed) in allowed {
            assert!(!is_allowed, "{what} is good again ({when})");
        }
        allowed.len()
    }
}

/// Half a minute before something odd.
const STARTS: [&str; 7] = [
    "2026-03-29T00:59:30Z", // summer time begins in Europe
    "2026-11-01T05:59:30Z", // and ends in New York
    "2026-12-31T23:59:30Z",
    "2028-02-28T23:59:30Z", // a leap day
    "2028-02-29T23:59:30Z",
    "2038-01-19T03:13:37Z", // seconds no longer fit 31 bits
    "2100-02-28T23:59:30Z", // no leap day
];

/// Back first: after a jump of years ahead the credentials of those who try have ended as well.
const JUMPS: [SignedDuration; 14] = [
    SignedDuration::from_millis(-1),
    SignedDuration::from_secs(-1),
    SignedDuration::from_mins(-1),
    SignedDuration::from_hours(-1),
    SignedDuration::from_hours(-3),
    SignedDuration::from_hours(-24),
    SignedDuration::from_hours(-24 * 31),
    SignedDuration::from_hours(-24 * 366),
    SignedDuration::from_hours(-24 * 3653),
    SignedDuration::from_secs(1),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24 * 31),
    SignedDuration::from_hours(24 * 366),
    SignedDuration::from_hours(24 * 3653),
];
