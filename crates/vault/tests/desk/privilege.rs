//! Whatever a limited principal does, neither he nor an account that he controls may ever do more than he could.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use keymoat_core::id::GrantId;
use keymoat_core::names::Scope;
use keymoat_core::policy::{Capability, Policy, Resource, Rule};
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{AccountChange, Caller, NewAccount, NewGrant, VaultError};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::common::*;

#[derive(Debug, Clone)]
enum Call {
    PutPolicy {
        name: usize,
        rules: Vec<usize>,
    },
    DeletePolicy {
        name: usize,
    },
    CreateAccount {
        name: usize,
        is_group: bool,
        policies: Vec<usize>,
        groups: Vec<usize>,
    },
    UpdateAccount {
        name: usize,
        policies: Option<Vec<usize>>,
        groups: Option<Vec<usize>>,
        active: Option<bool>,
    },
    DeleteAccount {
        name: usize,
    },
    Leave {
        name: usize,
    },
    CreateToken {
        name: usize,
    },
    Grant {
        name: usize,
        rule: usize,
        hours: i64,
        uses: Option<u32>,
        break_glass: bool,
    },
    Approve {
        which: usize,
    },
    Revoke {
        which: usize,
    },
    /// Goes on as somebody whose token he has.
    Become {
        which: usize,
    },
    Wait {
        mins: i64,
    },
}

/// The names that calls are about: himself, others with more, and such as he may make.
const NAMES: [&str; 8] = ["limited", "tester", "boss", "team", "denied", "made1", "made2", "made3"];
const POLICIES: [&str; 8] =
    ["limited", "tester", "team", "denied", "administrator", "owner", "mine1", "mine2"];
const RULES: [&str; 8] = [
    r#"{"capabilities":["reveal"],"environments":["staging"],"paths":["shop/**"]}"#,
    r#"{"capabilities":["reveal"],"environments":["staging"],"paths":["**"]}"#,
    r#"{"capabilities":["reveal"],"environments":["*"],"paths":["**"]}"#,
    r#"{"capabilities":["reveal","write"],"environments":["staging"],"paths":["shop/secret"]}"#,
    r#"{"effect":"deny","capabilities":["reveal"],"environments":["staging"],"paths":["shop/secret"]}"#,
    r#"{"capabilities":["write","delete","grant"],"environments":["sys"],"paths":["accounts/**"]}"#,
    r#"{"capabilities":["write","delete","grant"],"environments":["sys"],"paths":["**"]}"#,
    r#"{"capabilities":["inspect"],"environments":["prod"],"paths":["shop/**"]}"#,
];
const LIMITED: &str = r#"[
    {"capabilities":["write","delete","grant"],"environments":["sys"],
     "paths":["accounts/**","policies/**","tokens/**","grants/**"]},
    {"capabilities":["list","reveal"],"environments":["staging"],"paths":["shop/**"]}]"#;

fn call() -> impl Strategy<Value = Call> {
    let name = 0..NAMES.len();
    let names = || prop::collection::vec(0..NAMES.len(), 0..3);
    let policies = || prop::collection::vec(0..POLICIES.len(), 0..3);
    let rules = prop::collection::vec(0..RULES.len(), 0..3);
    prop_oneof![
        3 => (0..POLICIES.len(), rules).prop_map(|(name, rules)| Call::PutPolicy { name, rules }),
        1 => (0..POLICIES.len()).prop_map(|name| Call::DeletePolicy { name }),
        3 => (name.clone(), any::<bool>(), policies(), names())
            .prop_map(|(name, is_group, policies, groups)| Call::CreateAccount { name, is_group, policies, groups }),
        4 => (name.clone(), prop::option::of(policies()), prop::option::of(names()), prop::option::of(any::<bool>()))
            .prop_map(|(name, policies, groups, active)| Call::UpdateAccount { name, policies, groups, active }),
        1 => name.clone().prop_map(|name| Call::DeleteAccount { name }),
        1 => name.clone().prop_map(|name| Call::Leave { name }),
        3 => name.clone().prop_map(|name| Call::CreateToken { name }),
        3 => (name, 0..RULES.len(), 1..200i64, prop::option::of(1..3u32), any::<bool>())
            .prop_map(|(name, rule, hours, uses, break_glass)| Call::Grant { name, rule, hours, uses, break_glass }),
        2 => (0..2usize).prop_map(|which| Call::Approve { which }),
        1 => (0..2usize).prop_map(|which| Call::Revoke { which }),
        2 => (0..8usize).prop_map(|which| Call::Become { which }),
        1 => (1..180i64).prop_map(|mins| Call::Wait { mins }),
    ]
}

/// Who is under the limited principal's control, as callers.
struct Play<'a> {
    desk: &'a Desk,
    callers: Vec<Caller>,
    me: usize,
    grants: Vec<GrantId>,
}

impl Play<'_> {
    async fn make(&mut self, call: &Call) -> Result<(), VaultError> {
        let (vault, me) = (&self.desk.vault, self.callers[self.me].clone());
        let account = |at: &usize| name(NAMES[*at]);
        let policies = |them: &[usize]| them.iter().map(|at| POLICIES[*at].parse().unwrap()).collect();
        let groups = |them: &[usize]| them.iter().map(|at| name(NAMES[*at])).collect::<BTreeSet<_>>();
        let rule = |at: &usize| serde_json::from_str::<Rule>(RULES[*at]).unwrap();
        match call {
            Call::PutPolicy { name, rules } => {
                let rules = rules.iter().map(rule).collect();
                let policy =
                    Policy { name: POLICIES[*name].parse().unwrap(), description: String::new(), rules };
                vault.put_policy(&me, policy).await.map(|_| ())
            }
            Call::DeletePolicy { name } => vault.delete_policy(&me, &POLICIES[*name].parse().unwrap()).await,
            Call::CreateAccount { name, is_group, policies: held, groups: of } => {
                let kind = if *is_group { AccountKind::Group } else { AccountKind::User };
                let new = NewAccount {
                    name: account(name),
                    kind,
                    description: String::new(),
                    policies: policies(held),
                    groups: groups(of),
                };
                vault.create_account(&me, new).await.map(|_| ())
            }
            Call::UpdateAccount { name, policies: held, groups: of, active } => {
                let change = AccountChange {
                    description: None,
                    policies: held.as_deref().map(policies),
                    groups: of.as_deref().map(groups),
                    active: *active,
                };
                vault.update_account(&me, &account(name), change).await.map(|_| ())
            }
            Call::DeleteAccount { name } => vault.delete_account(&me, &account(name)).await,
            Call::Leave { name } => vault.leave(&me, &account(name)).await.map(|_| ()),
            Call::CreateToken { name } => {
                let token = self.desk.token_by(&me, NAMES[*name]).await?;
                self.callers.push(vault.sign_in_with_token(token.token.text(), self.desk.origin()).await?);
                Ok(())
            }
            Call::Grant { name, rule: which, hours, uses, break_glass } => {
                let rules = vec![rule(which)];
                let new = NewGrant {
                    rules,
                    uses: *uses,
                    break_glass: *break_glass,
                    ..new_grant(NAMES[*name], "[]", *hours)
                };
                self.grants.push(vault.create_grant(&me, new).await?.id);
                Ok(())
            }
            Call::Approve { which } => match self.grants.iter().rev().nth(*which) {
                Some(id) => vault.approve_grant(&me, *id).await.map(|_| ()),
                None => Ok(()),
            },
            Call::Revoke { which } => match self.grants.iter().rev().nth(*which) {
                Some(id) => vault.revoke_grant(&me, *id).await.map(|_| ()),
                None => Ok(()),
            },
            Call::Become { which } => {
                self.me = *which % self.callers.len();
                Ok(())
            }
            Call::Wait { mins } => {
                self.desk.clock.forward(SignedDuration::from_mins(*mins));
                Ok(())
            }
        }
    }
}

/// Every capability on resources that tell the rules apart.
fn probes() -> Vec<(Capability, Resource)> {
    let places = [
        ("staging", "shop/a"),
        ("staging", "shop/secret"),
        ("staging", "other"),
        ("prod", "shop/a"),
        ("prod", "b"),
    ];
    let parts = ["accounts/x", "policies/x", "tokens/x", "grants/x", "audit", "environments/x", "keys"];
    let secrets = places.map(|(environment, path)| (Scope::Environment(environment.parse().unwrap()), path));
    let parts = parts.map(|path| (Scope::System, path));
    let resources = secrets.into_iter().chain(parts);
    let resources = resources.map(|(scope, path)| Resource {
        scope,
        company: None,
        path: path.parse().unwrap(),
        field: None,
    });
    resources
        .flat_map(|resource| Capability::ALL.iter().map(move |capability| (*capability, resource.clone())))
        .collect()
}

/// What an account may do of the probes, as a set of numbers.
async fn may(desk: &Desk, account: &Caller, probes: &[(Capability, Resource)]) -> BTreeSet<usize> {
    let mut allowed = BTreeSet::new();
    for (number, (capability, resource)) in probes.iter().enumerate() {
        // Everybody may ask about himself, and it leaves no record.
        let Ok(explained) = desk.vault.explain(account, &account.name, *capability, resource).await else {
            continue;
        };
        if explained.decision.is_allowed() {
            allowed.insert(number);
        }
    }
    allowed
}

async fn furnished() -> Desk {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for (name, rules) in
        [("limited", LIMITED), ("tester", RULES[2]), ("team", RULES[0]), ("denied", RULES[4])]
    {
        let rules = if rules.starts_with('[') { rules.to_owned() } else { format!("[{rules}]") };
        desk.policy(&owner, name, &rules).await.unwrap();
    }
    desk.account(&owner, "team", AccountKind::Group, &["team"], &[]).await.unwrap();
    desk.account(&owner, "denied", AccountKind::Group, &["denied"], &[]).await.unwrap();
    desk.account(&owner, "limited", AccountKind::User, &["limited"], &["denied"]).await.unwrap();
    desk.account(&owner, "tester", AccountKind::User, &["tester"], &["denied"]).await.unwrap();
    desk.account(&owner, "boss", AccountKind::User, &["administrator"], &[]).await.unwrap();
    desk
}

/// Gives the limited principal and an account that he made what he began with, where he has lost it, so that later
/// calls are worth something.
async fn set_up_again(desk: &Desk, play: &mut Play<'_>) {
    let owner = desk.owner().await;
    desk.policy(&owner, "limited", LIMITED).await.unwrap();
    for account in ["limited", "made1"] {
        let whole = AccountChange {
            policies: Some(["limited".parse().unwrap()].into()),
            groups: Some([name("denied")].into()),
            active: Some(true),
            description: None,
        };
        let mut given = desk.vault.update_account(&owner, &name(account), whole).await.map(|_| ());
        if given.is_err() {
            drop(desk.vault.delete_account(&owner, &name(account)).await);
            given = desk.account(&owner, account, AccountKind::User, &["limited"], &["denied"]).await;
        }
        // The group may be gone by then; so is the denial, and what it held down must not come back.
        if given.is_ok() {
            play.callers.push(desk.sign_in(account).await);
        }
    }
    play.me = play.callers.len().saturating_sub(2);
}

#[test]
fn no_sequence_of_calls_raises_what_a_limited_principal_may_do() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sequences = prop::collection::vec(call(), 1..=8);
    let probes = probes();
    let (mut done, mut allowed_calls) = (0, 0);
    runtime.block_on(async {
        for _ in 0..SEQUENCES / IN_ONE_VAULT {
            let desk = furnished().await;
            let mut watched = Vec::new();
            for account in ["tester", "boss"] {
                let caller = desk.sign_in(account).await;
                watched.push((may(&desk, &caller, &probes).await, caller));
            }
            let mut play =
                Play { desk: &desk, callers: vec![desk.sign_in("limited").await], me: 0, grants: Vec::new() };
            let limit = may(&desk, &play.callers[0], &probes).await;
            assert!(!limit.is_empty() && limit.len() < probes.len());
            // One sequence goes on where the last ended, so that long ones are tried too.
            for _ in 0..IN_ONE_VAULT {
                set_up_again(&desk, &mut play).await;
                let calls = sequences.new_tree(&mut runner).unwrap().current();
                for call in &calls {
                    allowed_calls += usize::from(play.make(call).await.is_ok());
                }
                let mut seen = BTreeSet::new();
                for caller in play.callers.iter().rev().filter(|caller| seen.insert(caller.principal)) {
                    let now = may(&desk, caller, &probes).await;
                    let more: Vec<_> = now.difference(&limit).map(|number| &probes[*number]).collect();
                    assert!(more.is_empty(), "`{}` may {more:?} after {calls:?}", caller.name);
                }
                // Others get no more than they had or the limited principal has himself.
                for (before, caller) in &watched {
                    let now = may(&desk, caller, &probes).await;
                    let more: Vec<_> = now
                        .iter()
                        .filter(|number| !before.contains(number) && !limit.contains(number))
                        .collect();
                    assert!(more.is_empty(), "`{}` may {more:?} after {calls:?}", caller.name);
                }
                done += 1;
            }
        }
    });
    assert_eq!(done, SEQUENCES);
    println!("FIGURE privilege: 0 of {done} sequences raised anybody");
    assert!(allowed_calls > SEQUENCES, "{allowed_calls} calls were allowed: the sequences try something");
}

const SEQUENCES: usize = 2000;
const IN_ONE_VAULT: usize = 10;
