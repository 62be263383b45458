//! Environments and companies: where secrets can stand. They are made on purpose, so that a slip of the pen does not.

use keymoat_core::audit::Action;
use keymoat_core::names::{Company, Environment, nearest};
use keymoat_core::policy::{Capability, Rule};
use keymoat_core::secret::check_description;

use crate::desk::{Deed, system_resource};
use crate::entity::{CompanyEntity, Entity, EnvironmentEntity, SecretName};
use crate::{Caller, Vault, VaultError};

impl Vault {
    /// The environments, by name. Everybody who is signed in may know them.
    pub fn environments(&self) -> Vec<EnvironmentEntity> {
        self.state(|state| state.environments.values().cloned().collect())
    }

    /// The companies, by name. Everybody who is signed in may know them.
    pub fn companies(&self) -> Vec<CompanyEntity> {
        self.state(|state| state.companies.values().cloned().collect())
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
        check_description(&entity.description).map_err(|e| VaultError::invalid(e.to_string()))?;
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
        check_description(&entity.description).map_err(|e| VaultError::invalid(e.to_string()))?;
        self.put_place(caller, &format!("companies/{name}"), entity).await
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
    pub(crate) fn check_place(&self, name: &SecretName) -> Result<(), VaultError> {
        self.check_environment(&name.environment)?;
        match &name.company {
            Some(company) => self.check_company(company),
            None => Ok(()),
        }
    }

    /// Refuses rules that name an environment or a company that nobody made; a pattern may mean what is still to come.
    pub(crate) fn check_rules_name_places(&self, rules: &[Rule]) -> Result<(), VaultError> {
        for rule in rules {
            // `sys` and patterns are no names of environments, `*` and `-` none of companies.
            let environments = rule.environments.iter().filter_map(|scope| scope.to_string().parse().ok());
            environments.into_iter().try_for_each(|name| self.check_environment(&name))?;
            let companies = rule.companies.iter().filter_map(|company| company.to_string().parse().ok());
            companies.into_iter().try_for_each(|name| self.check_company(&name))?;
        }
        Ok(())
    }

    pub(crate) fn check_environment(&self, name: &Environment) -> Result<(), VaultError> {
        self.state(|state| match state.environments.contains_key(name) {
            true => Ok(()),
            false => {
                let known: Vec<&str> = state.environments.keys().map(Environment::as_str).collect();
                Err(unknown("environment", name.as_str(), &known))
            }
        })
    }

    pub(crate) fn check_company(&self, name: &Company) -> Result<(), VaultError> {
        self.state(|state| match state.companies.contains_key(name) {
            true => Ok(()),
            false => {
                let known: Vec<&str> = state.companies.keys().map(Company::as_str).collect();
                Err(unknown("company", name.as_str(), &known))
            }
        })
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
