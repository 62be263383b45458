//! Saying what a presented key is good for.
//!
//! The presented text is parsed, digested and forgotten: it is in no record, no log and no error. What is asked of it
//! and what is kept of it goes to `keymoat_core::issued::check`; this gathers the one and does what the other says.

use std::net::IpAddr;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText, ReasonCode};
use keymoat_core::issued::{
    Asked, Code, Credits, Held, HeldScope, KeyFacts, LimitTimes, Limits, OwnerInactive, OwnerState,
    Presented, ScopeQuery, Verdict, check,
};
use keymoat_core::names::{Environment, RoleName, SpaceName};
use keymoat_core::policy::{Capability, Resource};
use keymoat_crypto::{SecretBytes, Token, TokenDigest, TokenKind};
use keymoat_store::{Draft, Kind};

use super::manage::stored_key;
use super::rows::{IssuedKey, KeyAudit, KeyCredits, Revocation, RevocationReason};
use super::{KeySpace, KnownKey, SPACES, place_resource};
use crate::desk::{About, Deed, Rights, SUPPRESSED_BEFORE, system_resource};
use crate::entity::Entity as _;
use crate::refusals::Source;
use crate::{Caller, Origin, Vault, VaultError};

/// What is asked of a presented key.
#[derive(Debug)]
pub struct KeyQuestion {
    /// The key.
    pub key: SecretBytes,
    /// Only if it is of this space.
    pub space: Option<SpaceName>,
    /// Only if it is for this environment.
    pub environment: Option<Environment>,
    /// What it must give.
    pub scopes: Option<ScopeQuery>,
    /// How many credits a good answer costs.
    pub cost: u64,
    /// Where whoever presented it came from, as far as that is known for certain.
    pub client: Option<IpAddr>,
}

/// Who asks what a key is good for.
#[derive(Debug, Clone, Copy)]
pub enum Verifier<'a> {
    /// Somebody who is signed in, and has to have `match` on the keys of the place.
    Caller(&'a Caller),
    /// The holder himself, or a proxy on his behalf: whoever has the key may ask about it.
    Holder(&'a Origin),
}

/// What became of a presented key.
#[derive(Debug, Clone)]
pub struct KeyVerdict {
    /// Why, or why not.
    pub code: Code,
    /// What is known of it, unless it is unknown to who asks.
    pub key: Option<Arc<KnownKey>>,
    /// Credits left after this.
    pub credits: Option<u64>,
    /// What is left of its limits after this.
    pub limits: Vec<LimitLeft>,
    /// In how many seconds it is worth trying again.
    pub retry_after_secs: Option<u64>,
}

/// What is left of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitLeft {
    /// The limit, as it was written.
    pub limit: String,
    /// Uses left at once.
    pub remaining: u64,
    /// In how many seconds all of it is there again.
    pub reset_secs: u64,
}

impl KeyVerdict {
    /// Whether the key is good for what was asked.
    pub fn is_valid(&self) -> bool {
        self.code == Code::Valid
    }

    fn of_nobody(code: Code) -> Self {
        Self { code, key: None, credits: None, limits: Vec::new(), retry_after_secs: None }
    }
}

impl Vault {
    /// Says what a presented key is good for, and charges it. A caller who may not verify keys of its place is told
    /// that there is no such key.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused) for who says where a client came from and may not; those of the store,
    /// when the answer has to be written down first and cannot be.
    pub async fn verify_key(
        &self,
        verifier: &Verifier<'_>,
        question: KeyQuestion,
    ) -> Result<KeyVerdict, VaultError> {
        let Ok(token) = issued_token(&question.key) else {
            return self.unknown(verifier, &question, Code::Malformed).await;
        };
        let Some(found) = self.find_presented(verifier, &token, &question) else {
            return self.unknown(verifier, &question, Code::NotFound).await;
        };
        self.note_key_pepper(&found.key, &token);
        if !found.is_for_verifier || !found.is_at(&question) {
            return self.unknown(verifier, &question, Code::NotFound).await;
        }
        if question.client.is_some() {
            self.check_may_say_client(verifier, &found).await?;
        }
        let decided = match found.key.has_credits && question.cost > 0 {
            true => self.decide_and_pay(verifier, &found, &question).await?,
            false => self.decide(&found, &question),
        };
        self.write_down(verifier, &found, &question, &decided).await?;
        Ok(self.verdict(found, decided))
    }

    /// Tells the holder of a key what it is. Nothing is asked of it, and nothing charged.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`](crate::Code::NotSignedIn), with the same words for whatever is not a key of this vault.
    pub async fn key_whoami(&self, text: &SecretBytes, origin: &Origin) -> Result<KeyVerdict, VaultError> {
        let found = self.found_by_holder(text, origin).await?;
        let limits = self.key_uses().of(found.key.lineage).limit_times(found.key.lineage);
        let now = self.now();
        let (no_limits, none_used) = (Limits::default(), LimitTimes::default());
        let facts = KeyFacts {
            limits: &no_limits,
            limit_times: &none_used,
            credits: None,
            ..found.facts(&none_used, None)
        };
        let asked =
            Asked { now, space: None, address: origin.address, query: None, cost: 0, limit_costs: &[] };
        let verdict = check(&Presented::Key(facts), &asked);
        let decided =
            Decided { verdict, limit_times: limits, credits: found.credits.map(|it| it.refilled(now)) };
        Ok(self.verdict(found, decided))
    }

    /// Ends the key that is presented. Whoever has found it needs nothing else.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`](crate::Code::NotSignedIn) for whatever is not a key of this vault; those of the store.
    pub async fn self_revoke_key(
        &self,
        text: &SecretBytes,
        reason: RevocationReason,
        origin: &Origin,
    ) -> Result<(), VaultError> {
        let found = self.found_by_holder(text, origin).await?;
        let id = found.key.id;
        let deed = Deed::done(Action::KeyRevoke, &found.resource()?)
            .detail("key", AuditText::new(&id.to_string()))
            .detail("by", AuditText::new(BY_HOLDER));
        let (draft, now) = (self.anonymous_draft(origin, deed), self.now());
        self.store()
            .run_tx("self_revoke_key", move |tx| {
                let mut key = stored_key(tx, id)?;
                let revocation = Revocation { at: now, by: BY_HOLDER.to_owned(), reason };
                key.revoked.get_or_insert(revocation);
                tx.put(IssuedKey::KIND, &key.key(), &key.body(), None)?;
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(())
    }

    async fn found_by_holder(&self, text: &SecretBytes, origin: &Origin) -> Result<Found, VaultError> {
        let question = KeyQuestion {
            key: text.duplicate(),
            space: None,
            environment: None,
            scopes: None,
            cost: 0,
            client: None,
        };
        let token = issued_token(text).ok();
        let found = token.and_then(|token| self.find_presented(&Verifier::Holder(origin), &token, &question));
        match found {
            Some(found) => Ok(found),
            None => {
                self.refuse_sign_in(origin, ReasonCode::BadCredentials).await?;
                Err(crate::VaultError::new(
                    crate::Code::NotSignedIn,
                    "what was presented is no issued key of this vault",
                ))
            }
        }
    }

    /// Everything in memory about a presented key, in one look.
    fn find_presented(
        &self,
        verifier: &Verifier<'_>,
        token: &Token,
        question: &KeyQuestion,
    ) -> Option<Found> {
        let digests: Vec<TokenDigest> = self.keyring().token_digests(token);
        self.state(|state| {
            let key = digests.iter().find_map(|digest| state.issued.by_digest(digest))?;
            let space = state.issued.space(&key.place.space)?;
            let roles = key
                .terms
                .roles
                .iter()
                .filter_map(|role| Some((role.clone(), space.roles.get(role)?.as_slice().into())));
            let is_for_verifier = match verifier {
                Verifier::Holder(_) => true,
                Verifier::Caller(caller) => {
                    let resource = place_resource(&key.place.space, &key.place.environment).ok()?;
                    let rights = Rights::of_caller(state, caller).uncounted();
                    rights.decide(&self.request(caller, Capability::Match, &resource)).is_allowed()
                }
            };
            Some(Found {
                roles: roles.collect(),
                owner: state.issued.owner_state(&key.owner, &state.accounts),
                owner_inactive: space.owner_inactive_for(key.place.company.as_ref()),
                credits: if key.has_credits { state.issued.credits(key.lineage) } else { None },
                address: match verifier {
                    Verifier::Holder(origin) => question.client.or(origin.address),
                    Verifier::Caller(_) => question.client,
                },
                is_for_verifier,
                space: Arc::clone(space),
                key: Arc::clone(key),
            })
        })
    }

    /// Decides, and charges what the key's limits cost, in one critical section.
    fn decide(&self, found: &Found, question: &KeyQuestion) -> Decided {
        let now = self.now();
        let mut part = self.key_uses().of(found.key.lineage);
        let times = part.limit_times(found.key.lineage);
        let facts = found.facts(&times, found.credits.as_ref());
        let verdict = check(&Presented::Key(facts), &found.asked(question, now));
        if let Some(charge) = verdict.charge {
            part.set_limit_times(found.key.lineage, charge.limit_times);
        }
        part.count(&found.key, verdict.code, found.address, now);
        let limit_times = verdict.charge.map_or(times, |charge| charge.limit_times);
        Decided { verdict, limit_times, credits: found.credits.map(|credits| credits.refilled(now)) }
    }

    /// Decides where credits are spent: in the transaction that writes down what is left of them. Only the writer sees
    /// every node's spending, so no credit is spent twice, and none that was answered for is lost.
    async fn decide_and_pay(
        &self,
        verifier: &Verifier<'_>,
        found: &Found,
        question: &KeyQuestion,
    ) -> Result<Decided, VaultError> {
        let now = self.now();
        // What is wrong whatever is left to pay with needs no transaction.
        let times = self.key_uses().of(found.key.lineage).limit_times(found.key.lineage);
        let seen =
            check(&Presented::Key(found.facts(&times, found.credits.as_ref())), &found.asked(question, now));
        if seen.charge.is_none() {
            self.key_uses().of(found.key.lineage).count(&found.key, seen.code, found.address, now);
            let credits = found.credits.map(|credits| credits.refilled(now));
            return Ok(Decided { verdict: seen, limit_times: times, credits });
        }
        let draft = self.verify_draft(verifier, found, None)?;
        let (vault, payer, owned) = (self.clone(), found.clone(), OwnedQuestion::of(question));
        // How far the limits were used before this charged them: a transaction that is tried again charges them once.
        let mut charged_from = None;
        let (decided, _) = self
            .store()
            .run_tx("spend_credits", move |tx| {
                let lineage = payer.key.lineage;
                let row = tx.row(Kind::KeyCredits, &lineage.to_string())?;
                let credits = row.map(|row| KeyCredits::parse(&row)).transpose()?.map(|row| row.credits());
                let mut part = vault.key_uses().of(lineage);
                let times = charged_from.unwrap_or_else(|| part.limit_times(lineage));
                // A key that was said to have credits and has none left of them in the store has none.
                let credits = credits.unwrap_or(Credits::new(0, None, now));
                let verdict =
                    check(&Presented::Key(payer.facts(&times, Some(&credits))), &owned.asked(&payer, now));
                if let Some(charge) = verdict.charge {
                    if charged_from.replace(times).is_none() {
                        part.set_limit_times(lineage, charge.limit_times);
                    }
                    let left = KeyCredits::of(lineage, charge.credits.unwrap_or(credits));
                    tx.put_count(KeyCredits::KIND, &left.key(), &left.body())?;
                    tx.append(draft.clone());
                }
                let limit_times = verdict.charge.map_or(times, |charge| charge.limit_times);
                let credits = verdict.charge.and_then(|charge| charge.credits).unwrap_or(credits);
                Ok::<_, VaultError>(Decided { verdict, limit_times, credits: Some(credits) })
            })
            .await?;
        self.key_uses().of(found.key.lineage).count(&found.key, decided.verdict.code, found.address, now);
        Ok(decided)
    }

    /// Writes down what has to be on the disk before the answer leaves.
    async fn write_down(
        &self,
        verifier: &Verifier<'_>,
        found: &Found,
        question: &KeyQuestion,
        decided: &Decided,
    ) -> Result<(), VaultError> {
        let is_paid = found.key.has_credits && question.cost > 0;
        if decided.verdict.is_valid() {
            // What was paid for has its record in the transaction that took the credits.
            if found.space.audit == KeyAudit::Each && !is_paid {
                self.store().append(self.verify_draft(verifier, found, None)?, None).await?;
            }
            return Ok(());
        }
        let Some(counted) = self.refusals().admit(Source::Key(found.key.id), self.now()) else {
            return Ok(());
        };
        let draft = self.verify_draft(verifier, found, Some((decided.verdict.code, counted)))?;
        self.store().append(draft, None).await?;
        Ok(())
    }

    /// Answers about what is no key, or none for who asks; the first of a minute and source are on record.
    async fn unknown(
        &self,
        verifier: &Verifier<'_>,
        question: &KeyQuestion,
        code: Code,
    ) -> Result<KeyVerdict, VaultError> {
        let source = match (verifier, question.client) {
            (_, Some(client)) => Source::of(Some(client)),
            (Verifier::Caller(caller), None) => Source::Principal(caller.principal),
            (Verifier::Holder(origin), None) => Source::of(origin.address),
        };
        if let Some(counted) = self.refusals().admit(source, self.now()) {
            let deed =
                Deed::refused(Action::KeyVerify, About::from(&system_resource(SPACES)?), reason_of(code));
            let deed = with_suppressed(deed.detail("code", AuditText::new(code.as_str())), counted);
            self.store().append(self.verifier_draft(verifier, deed), None).await?;
        }
        Ok(KeyVerdict::of_nobody(code))
    }

    /// Refuses a caller who says where a client came from and may not: he could say what a key's list wants to hear.
    async fn check_may_say_client(&self, verifier: &Verifier<'_>, found: &Found) -> Result<(), VaultError> {
        let Verifier::Caller(caller) = verifier else { return Ok(()) };
        let resource = found.resource()?;
        let client = Resource { path: format!("{}/{CLIENT}", resource.path).parse()?, ..resource };
        if self.may_uncounted(caller, Capability::Match, &client) {
            return Ok(());
        }
        let deed = Deed::refused(Action::KeyVerify, &client, ReasonCode::NoRule);
        self.record_refusal(caller, deed, None).await?;
        Err(VaultError::new(
            crate::Code::Refused,
            format!("`{}` may verify keys, and may not say where their clients come from", caller.name),
        )
        .hint(format!("leave `client_ip` out, or ask an administrator for `match` on `sys/{}`", client.path)))
    }

    fn verify_draft(
        &self,
        verifier: &Verifier<'_>,
        found: &Found,
        refused: Option<(Code, u64)>,
    ) -> Result<Draft, VaultError> {
        let resource = found.resource()?;
        let deed = match refused {
            None => Deed::done(Action::KeyVerify, &resource),
            Some((code, counted)) => {
                let deed = Deed::refused(Action::KeyVerify, &resource, reason_of(code));
                with_suppressed(deed.detail("code", AuditText::new(code.as_str())), counted)
            }
        };
        let deed = deed.detail("key", AuditText::new(&found.key.id.to_string()));
        Ok(self.verifier_draft(verifier, deed))
    }

    fn verifier_draft(&self, verifier: &Verifier<'_>, deed: Deed) -> Draft {
        match verifier {
            Verifier::Caller(caller) => self.draft(caller, deed, None),
            Verifier::Holder(origin) => self.anonymous_draft(origin, deed),
        }
    }

    fn verdict(&self, found: Found, decided: Decided) -> KeyVerdict {
        let now = self.now();
        let left = found.key.terms.limits.as_slice().iter().enumerate().map(|(place, limit)| {
            let left = limit.left(decided.limit_times.of(place), now);
            LimitLeft {
                limit: limit.to_string(),
                remaining: u64::from(left.remaining),
                reset_secs: seconds_up(left.reset),
            }
        });
        KeyVerdict {
            code: decided.verdict.code,
            limits: left.collect(),
            credits: decided.credits.map(|credits| credits.remaining),
            retry_after_secs: decided.verdict.retry_after.map(seconds_up),
            key: Some(found.key),
        }
    }
}

/// A presented key that is known, with all that decides about it.
#[derive(Clone)]
struct Found {
    key: Arc<KnownKey>,
    space: Arc<KeySpace>,
    roles: Vec<(RoleName, Arc<[HeldScope]>)>,
    owner: OwnerState,
    owner_inactive: OwnerInactive,
    credits: Option<Credits>,
    address: Option<IpAddr>,
    is_for_verifier: bool,
}

/// What was decided, and how much is left after it.
struct Decided {
    verdict: Verdict,
    limit_times: LimitTimes,
    credits: Option<Credits>,
}

/// What is asked of a key, without the key.
struct OwnedQuestion {
    space: Option<SpaceName>,
    scopes: Option<ScopeQuery>,
    cost: u64,
}

impl OwnedQuestion {
    fn of(question: &KeyQuestion) -> Self {
        Self { space: question.space.clone(), scopes: question.scopes.clone(), cost: question.cost }
    }

    fn asked<'a>(&'a self, found: &Found, now: jiff::Timestamp) -> Asked<'a> {
        Asked {
            now,
            space: self.space.as_ref(),
            address: found.address,
            query: self.scopes.as_ref(),
            cost: self.cost,
            limit_costs: &[],
        }
    }
}

impl Found {
    fn facts<'a>(&'a self, limit_times: &'a LimitTimes, credits: Option<&'a Credits>) -> KeyFacts<'a> {
        KeyFacts {
            space: &self.key.place.space,
            is_for_verifier: self.is_for_verifier,
            state: self.key.state,
            not_before: self.key.not_before,
            expires_at: self.key.expires_at,
            owner: self.owner,
            owner_inactive: self.owner_inactive,
            addresses: &self.key.terms.networks,
            held: Held { scopes: &self.key.terms.scopes, roles: &self.roles, groups: &self.key.terms.groups },
            limits: &self.key.terms.limits,
            limit_times,
            credits,
        }
    }

    fn asked<'a>(&self, question: &'a KeyQuestion, now: jiff::Timestamp) -> Asked<'a> {
        Asked {
            now,
            space: question.space.as_ref(),
            address: self.address,
            query: question.scopes.as_ref(),
            cost: question.cost,
            limit_costs: &[],
        }
    }

    /// Whether it is where the question says.
    fn is_at(&self, question: &KeyQuestion) -> bool {
        let place = &self.key.place;
        question.environment.as_ref().is_none_or(|name| *name == place.environment)
            && question.space.as_ref().is_none_or(|space| *space == place.space)
    }

    fn resource(&self) -> Result<Resource, VaultError> {
        place_resource(&self.key.place.space, &self.key.place.environment)
    }
}

/// The text as an issued key; a token of Keymoat's own is none.
fn issued_token(text: &SecretBytes) -> Result<Token, ()> {
    let token = Token::parse(text).map_err(|_| ())?;
    match token.kind() {
        TokenKind::Issued { .. } => Ok(token),
        TokenKind::ServiceAccount | TokenKind::Administrator => Err(()),
    }
}

fn with_suppressed(deed: Deed, counted: u64) -> Deed {
    match counted {
        0 => deed,
        counted => deed.detail(SUPPRESSED_BEFORE, AuditText::new(&counted.to_string())),
    }
}

/// Why, as records have it.
fn reason_of(code: Code) -> ReasonCode {
    match code {
        Code::Valid | Code::Malformed | Code::NotFound => ReasonCode::BadCredentials,
        Code::Revoked => ReasonCode::Revoked,
        Code::Disabled | Code::OwnerInactive | Code::IpNotAllowed => ReasonCode::ConditionFailed,
        Code::NotYetValid => ReasonCode::Delayed,
        Code::Expired => ReasonCode::Expired,
        Code::InsufficientPermissions => ReasonCode::NoRule,
        Code::RateLimited => ReasonCode::RateLimited,
        Code::UsageExceeded => ReasonCode::OverBudget,
    }
}

/// Who waits too short is refused again.
fn seconds_up(span: std::time::Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Who revoked a key with the key itself.
const BY_HOLDER: &str = "its holder";
/// What follows the place in the resource of which `match` lets a verifier say where clients come from.
const CLIENT: &str = "client-address";
