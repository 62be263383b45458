//! Environments and companies: where secrets can stand. They are made on purpose, so that a slip of the pen does not.

use keymoat_core::audit::Action;
use keymoat_core::names::{Company, Environment, Scope, nearest};
use keymoat_core::policy::{Capability, CompiledRule, Resource, Rule};
use keymoat_core::secret::check_description;

use crate::desk::{Deed, Rights, system_resource};
use crate::entity::{CompanyEntity, Entity, EnvironmentEntity, SecretName};
use crate::{Caller, Vault, VaultError};

impl Vault {
    /// The environments in which some rule allows the caller anything, by name; all for whoever has charge of them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn environments(&self, caller: &Caller) -> Result<Vec<EnvironmentEntity>, VaultError> {
        self.record_names(caller, "environments").await?;
        Ok(self.visible_environments(caller))
    }

    /// The companies for which some rule allows the caller anything, by name; all for whoever has charge of them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn companies(&self, caller: &Caller) -> Result<Vec<CompanyEntity>, VaultError> {
        self.record_names(caller, "companies").await?;
        Ok(self.visible_companies(caller))
    }

    async fn record_names(&self, caller: &Caller, path: &str) -> Result<(), VaultError> {
        let deed = Deed::done(Action::List, &system_resource(path)?);
        self.store().append(self.draft(caller, deed, None), None).await?;
        Ok(())
    }

    fn visible_environments(&self, caller: &Caller) -> Vec<EnvironmentEntity> {
        let has_charge = self.has_charge(caller, "environments");
        let now = self.now();
        self.state(|state| {
            let rights = Rights::of_caller(state, caller);
            let is_visible = |name: &Environment| {
                let scope = name.clone().into();
                let mut rules = rights.allowing_rules(now).map(CompiledRule::as_written);
                has_charge || rules.any(|rule| rule.environments.iter().any(|it| it.matches(&scope)))
            };
            state.environments.values().filter(|it| is_visible(&it.name)).cloned().collect()
        })
    }

    fn visible_companies(&self, caller: &Caller) -> Vec<CompanyEntity> {
        let has_charge = self.has_charge(caller, "companies");
        let now = self.now();
        self.state(|state| {
            let rights = Rights::of_caller(state, caller);
            // A rule about Keymoat itself alone gives nothing in any company.
            let scopes: Vec<Scope> = state.environments.keys().map(|name| name.clone().into()).collect();
            let is_of_secrets = |rule: &&Rule| {
                rule.environments.iter().any(|it| scopes.iter().any(|scope| it.matches(scope)))
            };
            let rules = rights.allowing_rules(now).map(CompiledRule::as_written).filter(is_of_secrets);
            let rules: Vec<&Rule> = rules.collect();
            let is_visible = |name: &Company| {
                has_charge || rules.iter().any(|rule| rule.companies.iter().any(|it| it.matches(Some(name))))
            };
            state.companies.values().filter(|it| is_visible(&it.name)).cloned().collect()
        })
    }

    /// Whether the caller may list or make all of these.
    fn has_charge(&self, caller: &Caller, path: &str) -> bool {
        let Ok(resource) = system_resource(path) else { return false };
        [Capability::List, Capability::Write].into_iter().any(|it| self.may_uncounted(caller, it, &resource))
    }

    /// Makes an environment, or changes its description.
    ///
    /// # Errors
    /// Refused, invalid, or those of the store.
    pub async fn put_environment(
        &self,
        caller: &Caller,
        name: Environment,
        description: String,
    ) -> Result<EnvironmentEntity, VaultError> {
        let created_at = self.state(|state| state.environments.get(&name).map(|old| old.created_at));
        let entity = EnvironmentEntity {
            name: name.clone(),
            description,
            created_at: created_at.unwrap_or(self.now()),
        };
        self.check_described(&entity.description)?;
        self.put_place(caller, &format!("environments/{name}"), entity).await
    }

    /// Makes a company, or changes its description.
    ///
    /// # Errors
    /// Refused, invalid, or those of the store.
    pub async fn put_company(
        &self,
        caller: &Caller,
        name: Company,
        description: String,
    ) -> Result<CompanyEntity, VaultError> {
        let created_at = self.state(|state| state.companies.get(&name).map(|old| old.created_at));
        let entity =
            CompanyEntity { name: name.clone(), description, created_at: created_at.unwrap_or(self.now()) };
        self.check_described(&entity.description)?;
        self.put_place(caller, &format!("companies/{name}"), entity).await
    }

    fn check_described(&self, description: &str) -> Result<(), VaultError> {
        check_description(description).map_err(|e| VaultError::invalid(e.to_string()))?;
        self.check_no_key([("the description", description)])
    }

    async fn put_place<E: Entity + Clone + Send + 'static>(
        &self,
        caller: &Caller,
        path: &str,
        entity: E,
    ) -> Result<E, VaultError> {
        self.retry_stale(|| async {
            let resource = system_resource(path)?;
            let permit =
                self.authorize(caller, Capability::Write, Action::Configure, resource.clone()).await?;
            let draft =
                self.draft(caller, Deed::done(Action::Configure, &resource), Some(permit.decided_by.clone()));
            let (pass, key, body) = (permit.pass, entity.key(), entity.body());
            self.store()
                .run_tx("put_place", move |tx| {
                    pass.enter(tx)?;
                    tx.put(E::KIND, &key, &body, None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(entity.clone())
        })
        .await
    }

    /// Refuses an environment or a company that nobody made.
    pub(crate) fn check_place(&self, caller: &Caller, name: &SecretName) -> Result<(), VaultError> {
        self.check_environment(caller, &name.environment)?;
        match &name.company {
            Some(company) => self.check_company(caller, company),
            None => Ok(()),
        }
    }

    /// Refuses rules that name an environment or a company that nobody made; a pattern may mean what is still to come.
    pub(crate) fn check_rules_name_places(&self, caller: &Caller, rules: &[Rule]) -> Result<(), VaultError> {
        for rule in rules {
            // `sys` and patterns are no names of environments, `*` and `-` none of companies.
            let environments = rule.environments.iter().filter_map(|scope| scope.to_string().parse().ok());
            environments.into_iter().try_for_each(|name| self.check_environment(caller, &name))?;
            let companies = rule.companies.iter().filter_map(|company| company.to_string().parse().ok());
            companies.into_iter().try_for_each(|name| self.check_company(caller, &name))?;
        }
        Ok(())
    }

    pub(crate) fn check_environment(&self, caller: &Caller, name: &Environment) -> Result<(), VaultError> {
        match self.state(|state| state.environments.contains_key(name)) {
            true => Ok(()),
            false => Err(self.unknown_environment(caller, name)),
        }
    }

    pub(crate) fn check_company(&self, caller: &Caller, name: &Company) -> Result<(), VaultError> {
        if self.state(|state| state.companies.contains_key(name)) {
            return Ok(());
        }
        let known = self.visible_companies(caller);
        let known: Vec<&str> = known.iter().map(|it| it.name.as_str()).collect();
        Err(unknown("company", name.as_str(), &known))
    }

    /// The environment that was meant, of those that the caller may know, when a refusal is about one in which he may
    /// do nothing: the same whether or not there is one of that name.
    pub(crate) fn place_meant(&self, caller: &Caller, resource: &Resource) -> Option<String> {
        let name = resource.scope.environment()?;
        let visible = self.visible_environments(caller);
        if visible.iter().any(|it| it.name == *name) {
            return None;
        }
        nearest(name.as_str(), visible.iter().map(|it| it.name.as_str())).map(str::to_owned)
    }

    fn unknown_environment(&self, caller: &Caller, name: &Environment) -> VaultError {
        let known = self.visible_environments(caller);
        let known: Vec<&str> = known.iter().map(|it| it.name.as_str()).collect();
        unknown("environment", name.as_str(), &known)
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> VaultError {
    let error = VaultError::not_found(format!("no {what} `{name}`"));
    if let Some(near) = nearest(name, known.iter().copied()) {
        return error.hint(format!("did you mean `{near}`?"));
    }
    match known {
        [] => error.hint(format!("`keymoat {what} add {name}` makes it")),
        some => {
            error.hint(format!("there are {}; `keymoat {what} add {name}` makes another", some.join(", ")))
        }
    }
}
