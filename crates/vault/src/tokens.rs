//! Signing in with what a client presents, and the tokens themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText, ReasonCode};
use keymoat_core::id::{PrincipalId, TokenId};
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_core::secret::check_description;
use keymoat_crypto::{Pepper, SecretBytes, SignInCode, Token, TokenDigest, TokenKind};
use keymoat_store::{Kind, StoreError, Tx};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::desk::{About, Deed, Rights, SUPPRESSED_BEFORE, system_resource};
use crate::entity::{Account, AccountKind, Entity as _, SignInCodeEntity, TokenEntity};
use crate::refusals::Source;
use crate::rekey::check_pepper;
use crate::state::{MADE_WITH_MAX, State};
use crate::{Caller, Code, Origin, Vault, VaultError};

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// For whom.
    pub account: AccountName,
    /// What it is for.
    pub description: String,
    /// How long it lasts.
    pub ttl: SignedDuration,
    /// How far it can be renewed, from now; none when it cannot.
    pub renewable_for: Option<SignedDuration>,
    /// How often it can be used; none for any number.
    pub uses: Option<u32>,
    /// Addresses that it is good from; empty for any.
    pub networks: Vec<IpNet>,
}

/// A token that was just made: the only moment at which it can be seen.
#[derive(Debug)]
pub struct IssuedToken {
    /// What is kept of it.
    pub entity: Arc<TokenEntity>,
    /// The token itself.
    pub token: Token,
}

impl Vault {
    /// Finds out whom a presented token belongs to, and counts its use.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`], always with the same words: who presents something wrong learns nothing from it.
    pub async fn sign_in_with_token(&self, text: &SecretBytes, origin: Origin) -> Result<Caller, VaultError> {
        match self.known_token(text, &origin) {
            Ok((account, token)) => {
                if token.uses_left.is_some()
                    && let Err(error) = self.count_use(&account, &token, &origin).await
                {
                    if error.code == Code::NotSignedIn {
                        self.refuse_sign_in(&origin, ReasonCode::Expired).await?;
                    }
                    return Err(error);
                }
                self.note_pepper(&token, text);
                caller_of(&account, Some(token.id), origin)
            }
            Err(reason) => {
                self.refuse_sign_in(&origin, reason).await?;
                Err(not_signed_in())
            }
        }
    }

    /// The account of a user of the operating system that Keymoat runs on. The system says who he is.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`] when he has no account here.
    pub async fn sign_in_os_user(&self, user: &str, origin: Origin) -> Result<Caller, VaultError> {
        let name = AccountName::for_os_user(user)?;
        let account = self.state(|state| state.accounts.get(&name).map(Arc::clone));
        match account.filter(|account| account.active && account.kind == AccountKind::OsUser) {
            Some(account) => caller_of(&account, None, origin),
            None => {
                self.refuse_sign_in(&origin, ReasonCode::BadCredentials).await?;
                Err(VaultError::new(Code::NotSignedIn, format!("the operating-system user `{user}` has no account in this vault"))
                    .hint(format!("sign in with a token (KEYMOAT_TOKEN), or let an administrator run `keymoat account add {name} --kind os-user`")))
            }
        }
    }

    /// Exchanges a one-time code, printed when the vault was made, for a token of an administrator.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`] when the code is wrong, used or too old.
    pub async fn sign_in_with_code(
        &self,
        text: &SecretBytes,
        origin: Origin,
    ) -> Result<IssuedToken, VaultError> {
        let Some((account, code)) = self.known_code(text) else {
            self.refuse_sign_in(&origin, ReasonCode::BadCredentials).await?;
            return Err(VaultError::new(Code::NotSignedIn, "the sign-in code is wrong, used or too old")
                .hint("the user who started the server makes a new one there with: keymoat login --new-code admin"));
        };
        let caller = caller_of(&account, None, origin)?;
        let new = NewToken {
            account: account.name.clone(),
            description: "signed in with a one-time code".to_owned(),
            ttl: ADMINISTRATOR_TTL,
            renewable_for: None,
            uses: None,
            networks: Vec::new(),
        };
        let maker = code.made_with.and_then(|id| self.state(|state| state.tokens.get(&id).map(Arc::clone)));
        if code.made_with.is_some() && maker.is_none() {
            // The token that it was made with has just ended, and the code with it.
            self.refuse_sign_in(&caller.origin, ReasonCode::Revoked).await?;
            return Err(not_signed_in());
        }
        let foreign_since = code.foreign.then(|| self.now());
        let (token, mut entity) =
            self.make_token(&caller, &account, &new, foreign_since, maker.as_deref())?;
        entity.created_by_ids.extend(&code.created_by_ids);
        let deed = Deed::done(Action::SignIn, &system_resource(&format!("accounts/{}", account.name))?);
        let draft = self.draft(&caller, deed, None);
        let stored = entity.clone();
        self.store_for(&caller)
            .run_tx("sign_in_code", move |tx| {
                // Removing it is what makes it good for one use only, however many ask at once.
                if !tx.remove(Kind::SignInCode, &code.digest)? {
                    return Err(not_signed_in());
                }
                check_pepper(tx, stored.pepper)?;
                // A new token takes nothing from anybody, so nobody has to decide again.
                tx.put_count(Kind::Token, &stored.key(), &stored.body())?;
                tx.append(draft.clone());
                Ok(())
            })
            .await?;
        Ok(IssuedToken { entity: Arc::new(entity), token })
    }

    /// Makes a token for an account. Nobody makes one for an account that may do more than he may himself.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Invalid`].
    pub async fn create_token(&self, caller: &Caller, new: NewToken) -> Result<IssuedToken, VaultError> {
        check_new_token(&new)?;
        self.check_no_key([("the description", new.description.as_str())])?;
        self.retry_stale(|| async {
            let resource = system_resource(&format!("tokens/{}", new.account))?;
            let permit =
                self.authorize(caller, Capability::Grant, Action::TokenCreate, resource.clone()).await?;
            let account = match self.actor_named(&new.account).and_then(|account| {
                self.check_within_own_token(caller, Some(&new))?;
                Ok(account)
            }) {
                Ok(account) => account,
                Err(error) => return Err(self.failed(&permit, Action::TokenCreate, error).await),
            };
            if account.id != caller.principal && !self.covers_account(caller, &account) {
                return Err(self.beyond(&permit.caller, Action::TokenCreate, &resource, &account.name).await);
            }
            let foreign_since = self.foreign_since(caller, &account);
            let own = self.own_token(caller);
            let (token, entity) = self.make_token(caller, &account, &new, foreign_since, own.as_deref())?;
            let draft = self.draft(
                caller,
                Deed::done(Action::TokenCreate, &resource),
                Some(permit.decided_by.clone()),
            );
            let (pass, stored) = (permit.pass, entity.clone());
            self.store()
                .run_tx("create_token", move |tx| {
                    pass.enter(tx)?;
                    check_pepper(tx, stored.pepper)?;
                    // A new token takes nothing from anybody, so nobody has to decide again.
                    tx.put_count(Kind::Token, &stored.key(), &stored.body())?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(IssuedToken { entity: Arc::new(entity), token })
        })
        .await
    }

    /// The tokens of an account, or of all; never the tokens themselves.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn list_tokens(
        &self,
        caller: &Caller,
        account: Option<&AccountName>,
    ) -> Result<Vec<Arc<TokenEntity>>, VaultError> {
        let path = account.map_or_else(|| "tokens".to_owned(), |name| format!("tokens/{name}"));
        let resource = system_resource(&path)?;
        let principal = account.map(|name| self.account_named(name).map(|account| account.id));
        self.recorded(caller, Capability::List, Action::List, &resource).await?;
        let principal = principal.transpose()?;
        Ok(self.state(|state| {
            let tokens = state.tokens.values();
            tokens.filter(|token| principal.is_none_or(|id| token.principal == id)).map(Arc::clone).collect()
        }))
    }

    /// Ends a token at once, with all that were made with it. Everybody may end his own.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn revoke_token(&self, caller: &Caller, id: TokenId) -> Result<(), VaultError> {
        self.retry_stale(|| async {
            let token = self.state(|state| state.tokens.get(&id).map(Arc::clone));
            let resource = system_resource(&format!("tokens/{id}"))?;
            let own = token.as_ref().is_some_and(|token| token.principal == caller.principal);
            let decided = match own {
                true => None,
                false => Some(
                    self.authorize(caller, Capability::Grant, Action::TokenRevoke, resource.clone()).await?,
                ),
            };
            if let (None, Some(permit)) = (&token, &decided) {
                let error =
                    VaultError::not_found(format!("no token `{id}`")).hint("`keymoat token list` shows them");
                return Err(self.failed(permit, Action::TokenRevoke, error).await);
            }
            let decided_by = decided.as_ref().map(|permit| permit.decided_by.clone());
            let pass = decided.as_ref().map(|permit| permit.pass);
            let doomed = self.state(|state| Doomed::default().and([id], state));
            let deed = doomed.told_in(Deed::done(Action::TokenRevoke, &resource));
            let draft = self.draft(caller, deed, decided_by);
            self.store()
                .run_tx("revoke_token", move |tx| {
                    pass.map_or(Ok(()), |pass| pass.enter(tx))?;
                    doomed.remove(tx)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(())
        })
        .await
    }

    /// Prolongs the caller's own token by its time to live, as far as it may be: never beyond the end of the token that
    /// it was made with.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the caller has no token or it cannot be renewed.
    pub async fn renew_token(&self, caller: &Caller) -> Result<Arc<TokenEntity>, VaultError> {
        let id = caller.token.ok_or_else(|| {
            VaultError::invalid("there is no token to renew: the operating system signed you in")
        })?;
        let now = self.now();
        let resource = system_resource(&format!("tokens/{id}"))?;
        let draft = self.draft(caller, Deed::done(Action::TokenRenew, &resource), None);
        let (renewed, _) = self
            .store()
            .run_tx("renew_token", move |tx| {
                let mut token = stored_token(tx, id)?;
                let Some(until) = token.renewable_until else {
                    return Err(VaultError::invalid("this token cannot be renewed").hint("ask for a new one"));
                };
                if now >= token.expires_at {
                    return Err(not_signed_in());
                }
                let wanted =
                    later(now, SignedDuration::from_secs(i64::try_from(token.ttl_secs).unwrap_or(i64::MAX)));
                let maker = token.made_with.map(|maker| stored_token(tx, maker)).transpose()?;
                let until = maker.map_or(until, |maker| until.min(maker.expires_at));
                token.expires_at = wanted.min(until).max(token.expires_at);
                tx.put_count(Kind::Token, &token.key(), &token.body())?;
                tx.append(draft.clone());
                Ok(token)
            })
            .await?;
        Ok(Arc::new(renewed))
    }

    /// Makes a one-time sign-in code for an account; only the user who owns the data directory may ask for one.
    ///
    /// # Errors
    /// [`Code::Refused`]; those of the store.
    pub async fn create_sign_in_code(
        &self,
        caller: &Caller,
        account: &AccountName,
    ) -> Result<SignInCode, VaultError> {
        self.retry_stale(|| async {
            let resource = system_resource(&format!("tokens/{account}"))?;
            let permit =
                self.authorize(caller, Capability::Grant, Action::TokenCreate, resource.clone()).await?;
            let account = match self.actor_named(account).and_then(|account| {
                self.check_within_own_token(caller, None)?;
                Ok(account)
            }) {
                Ok(account) => account,
                Err(error) => return Err(self.failed(&permit, Action::TokenCreate, error).await),
            };
            if account.id != caller.principal && !self.covers_account(caller, &account) {
                return Err(self.beyond(caller, Action::TokenCreate, &resource, &account.name).await);
            }
            let (code, entity) = self.make_code(caller, &account)?;
            let draft = self.draft(
                caller,
                Deed::done(Action::TokenCreate, &resource),
                Some(permit.decided_by.clone()),
            );
            let pass = permit.pass;
            self.store()
                .run_tx("create_sign_in_code", move |tx| {
                    pass.enter(tx)?;
                    check_pepper(tx, entity.pepper)?;
                    tx.put(Kind::SignInCode, &entity.key(), &entity.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(code)
        })
        .await
    }

    fn make_code(
        &self,
        caller: &Caller,
        account: &Account,
    ) -> Result<(SignInCode, SignInCodeEntity), VaultError> {
        let pepper =
            self.keyring().newest_pepper().ok_or_else(|| VaultError::damaged("there is no pepper"))?;
        let code = SignInCode::generate();
        let made_by = MadeBy {
            hands: self.hands(caller),
            foreign: self.foreign_since(caller, account).is_some(),
            made_with: caller.token,
        };
        let entity = SignInCodeEntity::of(&code, &pepper, account.id, Some(made_by), self.now());
        Ok((code, entity))
    }

    /// Whether the caller may do all that the account may.
    pub(crate) fn covers_account(&self, caller: &Caller, account: &Account) -> bool {
        let now = self.now();
        // One that is switched off may be switched on again, and the token would be good then.
        self.state(|state| {
            let theirs = Rights::with(state, account, None);
            Rights::of_caller(state, caller).may_change(&Rights::none(), &theirs, now)
        })
    }

    /// The account of that name, unless it is a group.
    fn actor_named(&self, name: &AccountName) -> Result<Arc<Account>, VaultError> {
        let account = self.account_named(name)?;
        match account.kind.principal_kind() {
            Some(_) => Ok(account),
            None => Err(VaultError::invalid(format!("`{name}` is a group, and a group never acts itself"))),
        }
    }

    /// Since when a credential that the caller makes for an account is not the holder's own; none when it is.
    fn foreign_since(&self, caller: &Caller, account: &Account) -> Option<Timestamp> {
        if account.id != caller.principal {
            return Some(self.now());
        }
        let own = caller.token?;
        self.state(|state| state.tokens.get(&own).and_then(|token| token.foreign_since))
    }

    fn own_token(&self, caller: &Caller) -> Option<Arc<TokenEntity>> {
        caller.token.and_then(|id| self.state(|state| state.tokens.get(&id).map(Arc::clone)))
    }

    /// What a token is bound to, what is made with it is bound to as well: a token, or a sign-in code for none.
    fn check_within_own_token(&self, caller: &Caller, new: Option<&NewToken>) -> Result<(), VaultError> {
        let Some(own) = self.own_token(caller) else { return Ok(()) };
        let networks = new.map_or(&[][..], |new| &new.networks);
        if own.uses_left.is_some() {
            return Err(VaultError::new(
                Code::Refused,
                "a token that is good for a number of uses cannot make another",
            )
            .hint("sign in with one that is not limited"));
        }
        let within = |net: &IpNet| own.networks.iter().any(|outer| outer.contains(net));
        if !own.networks.is_empty() && (networks.is_empty() || !networks.iter().all(within)) {
            return Err(VaultError::new(
                Code::Refused,
                "your token is bound to addresses, so the new one must be bound to some of them",
            ));
        }
        if self.state(|state| state.makers_of(&own)) + 1 >= MADE_WITH_MAX {
            let why =
                format!("your token is the last of {MADE_WITH_MAX} that were each made with the one before");
            return Err(VaultError::new(Code::Refused, why).hint("make it with one of those before it"));
        }
        new.map_or(Ok(()), |new| check_within_end(&own, new, self.now()))
    }

    /// Records that somebody wanted to give what he does not have, and says so.
    pub(crate) async fn beyond(
        &self,
        caller: &Caller,
        action: Action,
        resource: &keymoat_core::policy::Resource,
        account: &AccountName,
    ) -> VaultError {
        let deed = Deed::refused(action, resource, ReasonCode::BeyondOwnRights);
        if let Err(error) = self.record_refusal(caller, deed, None).await {
            return error;
        }
        VaultError::new(
            Code::Refused,
            format!(
                "`{}` may not do everything that `{account}` may, and nobody gives what he does not have",
                caller.name
            ),
        )
        .hint("ask somebody who may, or an owner")
    }

    fn known_token(
        &self,
        text: &SecretBytes,
        origin: &Origin,
    ) -> Result<(Arc<Account>, Arc<TokenEntity>), ReasonCode> {
        let token = Token::parse(text).map_err(|_| ReasonCode::BadCredentials)?;
        let digests = self.keyring().token_digests(&token);
        let now = self.now();
        self.state(|state| {
            let token = digests.iter().find_map(|digest| state.token_by_digest(digest));
            let token = token.ok_or(ReasonCode::BadCredentials)?;
            if now >= token.expires_at {
                return Err(ReasonCode::Expired);
            }
            if token.uses_left == Some(0) {
                return Err(ReasonCode::Expired);
            }
            let bound = !token.networks.is_empty();
            if bound
                && !origin
                    .address
                    .is_some_and(|address| token.networks.iter().any(|net| net.contains(&address)))
            {
                return Err(ReasonCode::ConditionFailed);
            }
            let account = state.account(token.principal).filter(|_| state.stands(token.id));
            Ok((Arc::clone(account.ok_or(ReasonCode::Revoked)?), Arc::clone(token)))
        })
    }

    fn known_code(&self, text: &SecretBytes) -> Option<(Arc<Account>, SignInCodeEntity)> {
        let code = SignInCode::parse(text).ok()?;
        let digests = self.keyring().code_digests(&code);
        let now = self.now();
        self.state(|state| {
            let code = digests.iter().find_map(|digest| state.sign_in_codes.get(digest));
            let code = code.filter(|code| now < code.expires_at)?;
            let code = Some(code).filter(|code| code.made_with.is_none_or(|id| state.stands(id)))?;
            let account = state.account(code.principal).filter(|account| account.active)?;
            Some((Arc::clone(account), code.clone()))
        })
    }

    async fn count_use(
        &self,
        account: &Account,
        token: &TokenEntity,
        origin: &Origin,
    ) -> Result<(), VaultError> {
        let caller = caller_of(account, Some(token.id), origin.clone())?;
        let resource = system_resource(&format!("tokens/{}", token.id))?;
        let draft = self.draft(&caller, Deed::done(Action::SignIn, &resource), None);
        let id = token.id;
        self.store_for(&caller)
            .run_tx("count_use", move |tx| {
                // Read again here: the writer is the one place where two uses cannot both see the last one left.
                let mut token = stored_token(tx, id)?;
                let left = token.uses_left.filter(|left| *left > 0).ok_or_else(not_signed_in)?;
                token.uses_left = Some(left - 1);
                tx.put_count(Kind::Token, &token.key(), &token.body())?;
                tx.append(draft.clone());
                Ok(())
            })
            .await
            .map(|_| ())
    }

    fn make_token(
        &self,
        caller: &Caller,
        account: &Account,
        new: &NewToken,
        foreign_since: Option<Timestamp>,
        maker: Option<&TokenEntity>,
    ) -> Result<(Token, TokenEntity), VaultError> {
        let pepper =
            self.keyring().newest_pepper().ok_or_else(|| VaultError::damaged("there is no pepper"))?;
        let kind = match account.kind {
            AccountKind::ServiceAccount => TokenKind::ServiceAccount,
            _ => TokenKind::Administrator,
        };
        let token = Token::generate(kind);
        let now = self.now();
        let entity = TokenEntity {
            id: self.new_token_id(),
            principal: account.id,
            digest: BASE64.encode(token.digest(&pepper).as_bytes()),
            pepper: pepper.id(),
            masked: token.masked(),
            description: new.description.clone(),
            created_at: now,
            created_by: caller.name.to_string(),
            created_by_ids: self.hands(caller),
            expires_at: maker.map_or(Timestamp::MAX, |maker| maker.expires_at).min(later(now, new.ttl)),
            renewable_until: new.renewable_for.map(|far| later(now, far)),
            ttl_secs: u64::try_from(new.ttl.as_secs()).unwrap_or_default(),
            uses_left: new.uses,
            networks: new.networks.clone(),
            foreign_since,
            made_with: maker.map(|maker| maker.id),
        };
        Ok((token, entity))
    }
}

/// Who made a sign-in code.
#[derive(Default)]
pub(crate) struct MadeBy {
    hands: BTreeSet<PrincipalId>,
    foreign: bool,
    made_with: Option<TokenId>,
}

/// Tokens and sign-in codes that end with a change, with all that were made with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doomed {
    pub(crate) tokens: BTreeSet<TokenId>,
    /// Made with those; they are good for nothing without them, so that what does not fit in one transaction can wait
    /// for the sweep.
    descendants: BTreeSet<TokenId>,
    /// The keys of the codes' rows.
    pub(crate) codes: BTreeSet<String>,
    /// The accounts that get more, and the number of the change up to which their tokens were looked at.
    pub(crate) widened: BTreeSet<PrincipalId>,
    as_of: u64,
}

impl Doomed {
    /// None yet, looked for in this state.
    pub(crate) fn as_of(state: &State) -> Self {
        Self { as_of: state.change, ..Self::default() }
    }

    /// These, and more tokens.
    pub(crate) fn and(mut self, tokens: impl IntoIterator<Item = TokenId>, state: &State) -> Self {
        self.tokens.extend(tokens);
        self.with_descendants(state)
    }

    /// These, with what was made with them.
    pub(crate) fn with_descendants(mut self, state: &State) -> Self {
        for _ in 0..MADE_WITH_MAX {
            let is_known = |id: &TokenId| self.tokens.contains(id) || self.descendants.contains(id);
            let made = |token: &&Arc<TokenEntity>| token.made_with.is_some_and(|id| is_known(&id));
            let found = state.tokens.values().filter(made).map(|token| token.id);
            let found: Vec<TokenId> = found.filter(|id| !is_known(id)).collect();
            if found.is_empty() {
                break;
            }
            self.descendants.extend(found);
        }
        let is_gone = |id: TokenId| self.tokens.contains(&id) || self.descendants.contains(&id);
        let codes = state.sign_in_codes.values().filter(|code| code.made_with.is_some_and(is_gone));
        self.codes.extend(codes.map(|code| code.digest.clone()));
        self
    }

    /// Removes them; the record names each row that goes. Who finds that somebody made one more meanwhile, for an
    /// account that gets more, has to decide again.
    pub(crate) fn remove(&self, tx: &mut Tx<'_>) -> Result<(), VaultError> {
        if !self.widened.is_empty() {
            self.check_none_is_new(tx)?;
        }
        let room = DESCENDANTS_AT_ONCE.saturating_sub(self.tokens.len());
        for id in self.tokens.iter().chain(self.descendants.iter().take(room)) {
            tx.remove(Kind::Token, &id.to_string())?;
        }
        for key in self.codes.iter().take(DESCENDANTS_AT_ONCE) {
            tx.remove(Kind::SignInCode, key)?;
        }
        Ok(())
    }

    fn check_none_is_new(&self, tx: &Tx<'_>) -> Result<(), VaultError> {
        for row in tx.changed_since(Kind::Token, self.as_of)? {
            let token = TokenEntity::parse(&row)?;
            if token.foreign_since.is_some() && self.widened.contains(&token.principal) {
                return Err(StoreError::Stale.into());
            }
        }
        for row in tx.changed_since(Kind::SignInCode, self.as_of)? {
            let code = SignInCodeEntity::parse(&row)?;
            if code.foreign && self.widened.contains(&code.principal) {
                return Err(StoreError::Stale.into());
            }
        }
        Ok(())
    }

    /// Says how many there are, where there are any.
    pub(crate) fn told_in(&self, deed: Deed) -> Deed {
        match self.tokens.len() + self.descendants.len() {
            0 => deed,
            count => deed.detail("tokens_ended", AuditText::new(&count.to_string())),
        }
    }
}

impl SignInCodeEntity {
    /// What is kept of a code.
    pub(crate) fn of(
        code: &SignInCode,
        pepper: &Pepper,
        principal: PrincipalId,
        made_by: Option<MadeBy>,
        now: Timestamp,
    ) -> Self {
        let MadeBy { hands, foreign, made_with } = made_by.unwrap_or_default();
        Self {
            digest: BASE64.encode(code.digest(pepper).as_bytes()),
            pepper: pepper.id(),
            principal,
            foreign,
            created_by_ids: hands,
            made_with,
            expires_at: later(now, SIGN_IN_CODE_TTL),
        }
    }
}

/// The digest of a token as it stands in a row.
pub(crate) fn digest_of(text: &str) -> Result<TokenDigest, VaultError> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(TokenDigest::from_bytes).ok_or_else(|| VaultError::damaged("a token's digest cannot be read"))
}

/// A time so much later; the end of time when it would be beyond that.
pub(crate) fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(crate) fn not_signed_in() -> VaultError {
    VaultError::new(Code::NotSignedIn, "what was presented is not valid here, or no longer")
        .hint("set KEYMOAT_TOKEN to a token of this vault; `keymoat login` gets one")
}

pub(crate) fn caller_of(
    account: &Account,
    token: Option<TokenId>,
    origin: Origin,
) -> Result<Caller, VaultError> {
    let kind = account.kind.principal_kind().ok_or_else(not_signed_in)?;
    Ok(Caller { principal: account.id, name: account.name.clone(), kind, token, origin })
}

fn stored_token(tx: &Tx<'_>, id: TokenId) -> Result<TokenEntity, VaultError> {
    let row = tx.row(Kind::Token, &id.to_string())?.ok_or_else(not_signed_in)?;
    TokenEntity::parse(&row)
}

/// Refuses a token that would last, or could be renewed, beyond the one that it is made with.
fn check_within_end(own: &TokenEntity, new: &NewToken, now: Timestamp) -> Result<(), VaultError> {
    let last = own.renewable_until.map_or(own.expires_at, |until| until.max(own.expires_at));
    let renewed = new.renewable_for.map(|far| later(now, far));
    if later(now, new.ttl) <= own.expires_at && renewed.is_none_or(|until| until <= last) {
        return Ok(());
    }
    let left = own.expires_at.duration_since(now).as_secs().max(0);
    let why = format!("your own token ends at {}, and what is made with it ends no later", own.expires_at);
    Err(VaultError::new(Code::Refused, why).hint(format!(
        "ask for at most {left} seconds; or make it on the vault's machine as the user who runs it, who needs no token"
    )))
}

fn check_new_token(new: &NewToken) -> Result<(), VaultError> {
    check_description(&new.description).map_err(|e| VaultError::invalid(e.to_string()))?;
    if new.ttl <= SignedDuration::ZERO || new.ttl > TOKEN_TTL_MAX {
        return Err(VaultError::invalid("a token lasts between a second and 366 days")
            .hint("for something longer, make it renewable"));
    }
    if new.renewable_for.is_some_and(|far| far <= SignedDuration::ZERO || far > RENEWABLE_MAX) {
        return Err(VaultError::invalid("a token can be renewed for at most 10 years")
            .hint("leave it out for one that is not renewed"));
    }
    if new.uses == Some(0) {
        return Err(VaultError::invalid("a token that may be used 0 times is of no use"));
    }
    if new.networks.len() > NETWORKS_MAX {
        return Err(VaultError::invalid(format!("a token may be bound to at most {NETWORKS_MAX} networks")));
    }
    Ok(())
}

impl State {
    /// The account of that name.
    pub(crate) fn account_named(&self, name: &AccountName) -> Result<Arc<Account>, VaultError> {
        self.accounts.get(name).map(Arc::clone).ok_or_else(|| {
            let error = VaultError::not_found(format!("no account `{name}`"));
            match keymoat_core::names::nearest(name.as_str(), self.accounts.keys().map(AccountName::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`keymoat account list` shows them"),
            }
        })
    }
}

impl Vault {
    pub(crate) fn account_named(&self, name: &AccountName) -> Result<Arc<Account>, VaultError> {
        self.state(|state| state.account_named(name))
    }

    /// A failed sign-in is on record; many of one source are counted, so that nobody can fill the disk.
    pub(crate) async fn refuse_sign_in(&self, origin: &Origin, reason: ReasonCode) -> Result<(), VaultError> {
        let source = Source::of(origin.address);
        let Some(counted) = self.refusals().admit(source, self.now()) else { return Ok(()) };
        let mut deed = Deed::refused(Action::SignIn, About::default(), reason);
        if counted > 0 {
            deed = deed.detail(SUPPRESSED_BEFORE, AuditText::new(&counted.to_string()));
        }
        self.store().append(self.anonymous_draft(origin, deed), None).await?;
        Ok(())
    }
}

/// Long enough to type it, short enough that a printed one is worthless tomorrow.
const SIGN_IN_CODE_TTL: SignedDuration = SignedDuration::from_mins(30);
/// A working day.
const ADMINISTRATOR_TTL: SignedDuration = SignedDuration::from_hours(12);
/// A token that lasts longer is forgotten before it ends.
const TOKEN_TTL_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Whatever lasts longer outlives those who know of it.
const RENEWABLE_MAX: SignedDuration = SignedDuration::from_hours(3660 * 24);
/// Keeps one transaction short, and within what one may change.
const DESCENDANTS_AT_ONCE: usize = 9_000;
/// More are better said as larger networks.
const NETWORKS_MAX: usize = 32;
