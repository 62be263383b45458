//! All routes on one screen, with what each needs. The router, the documentation and the tests are made from this table
//! alone, so none of them can have a route that the others do not know.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header;
use http::request::Parts;
use keymoat_core::policy::Capability::{self, Delete, Grant, Inspect, List, Match, Reveal, Rotate, Write};
use keymoat_vault::Caller;
use tower::Service;

use crate::context::Peer;
use crate::dispatch::{Answering, Entry, Found, Handler, PathNames, Table, other_methods, to};
use crate::edge::{Edge, Numbers};
use crate::openapi::Form;
use crate::params::Params;
use crate::problem::Problem;
use crate::{AppState, api, context, edge, forward_auth, params, repeat, wire};

/// Every route.
#[rustfmt::skip]
pub static ROUTES: &[Route] = &[
    route(Verb::Get, "/healthz", Needs::Nobody, "Whether the process lives", || to(api::health::healthz))
        .text("text/plain").while_sealed(|| to(api::health::healthz)),
    route(Verb::Get, "/readyz", Needs::Nobody, "Whether the store works", || to(api::health::readyz))
        .text("text/plain").while_sealed(|| to(api::health::readyz_while_sealed)),
    route(Verb::Get, "/metrics", local_or(Inspect, "sys/metrics"), "Counters for Prometheus", || to(api::health::metrics))
        .text("text/plain").while_sealed(|| to(api::health::metrics_while_sealed)),
    route(Verb::Any, "/forward-auth/{space}", Needs::Nobody, "Whether a proxy's caller may pass: the key is looked for in `API-KEY`, `X-API-Key` and `Authorization`; any method", || to(forward_auth::pass)),
    route(Verb::Any, "/forward-auth/{space}/", Needs::Nobody, "The same for proxies that put their caller's path behind, which may be `/`", || to(forward_auth::pass)),
    route(Verb::Any, "/forward-auth/{space}/{*path}", Needs::Nobody, "The same for proxies that put their caller's path behind", || to(forward_auth::pass)),
    route(Verb::Get, "/.well-known/jwks.json", Needs::Nobody, "The keys that check `X-Keymoat-Assertion`", || to(forward_auth::jwks))
        .json(Form::object()),
    route(Verb::Get, "/api/openapi.json", Needs::Nobody, "This document", || to(api::health::openapi))
        .json(Form::object()).while_sealed(|| to(api::health::openapi)),
    route(Verb::Get, "/api/v1/status", Needs::Nobody, "How the server is; more for who is signed in", || to(api::status::status))
        .json(Form::one::<wire::Status>()).while_sealed(|| to(api::status::status_while_sealed)),
    route(Verb::Post, "/api/v1/seal", needs(Rotate, "sys/seal"), "Lets go of every key; nothing is served until it is unsealed", || to(api::seal::seal))
        .nothing(),
    route(Verb::Get, "/api/v1/unseal", Needs::Nobody, "Whether the server is sealed, what opens it, and how many shares were given", || to(api::seal::is_open))
        .json(Form::one::<wire::Unsealing>()).while_sealed(|| to(api::seal::unsealing)),
    route(Verb::Post, "/api/v1/unseal", Needs::Nobody, "Offers a master key, or shares of one, to a sealed server", || to(api::seal::not_sealed_here))
        .takes(Form::one::<wire::KeyOffer>()).json(Form::one::<wire::Unsealing>()).while_sealed(|| to(api::seal::unseal)),
    route(Verb::Post, "/api/v1/unseal/reset", Needs::Nobody, "Forgets the shares that were given", || to(api::seal::not_sealed_here))
        .json(Form::one::<wire::Unsealing>()).while_sealed(|| to(api::seal::reset)),
    route(Verb::Post, "/api/v1/sign-in/code", Needs::Nobody, "Exchanges a one-time code for a token", || to(api::status::sign_in_code))
        .takes(Form::one::<wire::CodeSignIn>()).json(Form::one::<wire::IssuedToken>()).never_kept(),
    route(Verb::Get, "/api/v1/whoami", Needs::SignedIn, "Who the caller is", || to(api::status::whoami))
        .json(Form::one::<wire::WhoAmI>()),
    route(Verb::Get, "/api/v1/environments", Needs::SignedIn, "The environments in which the caller may do anything", || to(api::places::environments))
        .json(Form::list::<wire::Place>()),
    route(Verb::Put, "/api/v1/environments/{name}", needs(Write, "sys/environments/{name}"), "Makes an environment, or describes it", || to(api::places::put_environment))
        .takes(Form::one::<wire::PutPlace>()).json(Form::one::<wire::Place>()).kept(),
    route(Verb::Get, "/api/v1/companies", Needs::SignedIn, "The companies for which the caller may do anything", || to(api::places::companies))
        .json(Form::list::<wire::Place>()),
    route(Verb::Put, "/api/v1/companies/{name}", needs(Write, "sys/companies/{name}"), "Makes a company, or describes it", || to(api::places::put_company))
        .takes(Form::one::<wire::PutPlace>()).json(Form::one::<wire::Place>()).kept(),
    route(Verb::Get, "/api/v1/secrets", needs(List, "{environment}/{prefix}"), "Secrets, a page at a time, without values", || to(api::secrets::list))
        .query(LIST_QUERY).json(Form::one::<wire::SecretPage>()),
    route(Verb::Get, "/api/v1/secrets/{environment}/{*path}", needs(Inspect, "{environment}/{path}"), "A secret without its values", || to(api::secrets::show))
        .query(COMPANY).json(Form::one::<wire::Secret>()),
    route(Verb::Put, "/api/v1/secrets/{environment}/{*path}", needs(Write, "{environment}/{path}"), "Writes a value", || to(api::secrets::put))
        .query(COMPANY).takes(Form::one::<wire::PutSecret>()).json(Form::one::<wire::Written>()).kept().conditional(),
    route(Verb::Patch, "/api/v1/secrets/{environment}/{*path}", needs(Write, "{environment}/{path}"), "Changes what is said about a secret", || to(api::secrets::annotate))
        .query(COMPANY).takes(Form::one::<wire::Annotate>()).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Delete, "/api/v1/secrets/{environment}/{*path}", needs(Delete, "{environment}/{path}"), "Deletes versions, so that they can come back", || to(api::secrets::remove))
        .query(DELETE_QUERY).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/reveal/{environment}/{*path}", needs(Reveal, "{environment}/{path}"), "Gives a value out", || to(api::secrets::reveal))
        .query(COMPANY).takes(Form::one::<wire::Reveal>()).json(Form::one::<wire::Revealed>()).never_kept(),
    route(Verb::Post, "/api/v1/rollback/{environment}/{*path}", needs(Write, "{environment}/{path}"), "Makes an older version current", || to(api::versions::rollback))
        .query(COMPANY).takes(Form::one::<wire::OneVersion>()).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/promote/{environment}/{*path}", needs(Rotate, "{environment}/{path}"), "Makes the pending version current", || to(api::versions::promote))
        .query(COMPANY).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/labels/{environment}/{*path}", needs(Write, "{environment}/{path}"), "Moves a label, or takes it away", || to(api::versions::label))
        .query(COMPANY).takes(Form::one::<wire::SetLabel>()).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/undelete/{environment}/{*path}", needs(Delete, "{environment}/{path}"), "Brings deleted versions back", || to(api::versions::undelete))
        .query(COMPANY).takes(Form::one::<wire::SomeVersions>()).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/destroy/{environment}/{*path}", needs(Delete, "{environment}/{path}"), "Destroys versions for good", || to(api::versions::destroy))
        .query(COMPANY).takes(Form::one::<wire::SomeVersions>()).json(Form::one::<wire::Secret>()).kept(),
    route(Verb::Post, "/api/v1/which", needs(Inspect, "{environment}/{path}"), "Where a value would come from, without the value", || to(api::resolve::which))
        .takes(Form::one::<wire::Ask>()).json(Form::one::<wire::Answer>()),
    route(Verb::Post, "/api/v1/resolve", needs(Reveal, "{environment}/{path}"), "Where a value comes from, and the value", || to(api::resolve::resolve))
        .takes(Form::one::<wire::Ask>()).json(Form::one::<wire::Answer>()).never_kept(),
    route(Verb::Post, "/api/v1/match", needs(Match, "{environment}/{path}"), "Which of some texts are stored values, as far as the caller may match them", || to(api::matching::matches))
        .takes(Form::one::<wire::Candidates>()).json(Form::one::<wire::Matches>()),
    route(Verb::Post, "/api/v1/match/sieve", needs(Match, "{environment}/{path}"), "What tells most texts that they are no stored values, before any is sent", || to(api::matching::sieve))
        .takes(Form::one::<wire::SieveAsk>()).json(Form::one::<wire::Sieve>()),
    route(Verb::Get, "/api/v1/changes", each(List, "{environment}/{path}"), "What changed that the caller may list or reveal, and waits for it", || to(api::changes::changes))
        .query(CHANGES_QUERY).json(Form::one::<wire::Changes>()),
    route(Verb::Get, "/api/v1/accounts", needs(List, "sys/accounts"), "The accounts", || to(api::accounts::list))
        .json(Form::list::<wire::Account>()),
    route(Verb::Post, "/api/v1/accounts", needs(Write, "sys/accounts/{name}"), "Makes an account", || to(api::accounts::create))
        .takes(Form::one::<wire::CreateAccount>()).created(Form::one::<wire::Account>()).kept(),
    route(Verb::Get, "/api/v1/accounts/{name}", needs(Inspect, "sys/accounts/{name}"), "An account; everybody may look at his own", || to(api::accounts::show))
        .json(Form::one::<wire::Account>()),
    route(Verb::Patch, "/api/v1/accounts/{name}", needs(Write, "sys/accounts/{name}"), "Changes an account", || to(api::accounts::update))
        .takes(Form::one::<wire::UpdateAccount>()).json(Form::one::<wire::Account>()).kept(),
    route(Verb::Delete, "/api/v1/accounts/{name}", needs(Delete, "sys/accounts/{name}"), "Removes an account with its tokens and grants", || to(api::accounts::remove))
        .nothing().kept(),
    route(Verb::Post, "/api/v1/accounts/{name}/leave", needs(Write, "sys/accounts/{name}"), "Ends all that an account may do", || to(api::accounts::leave))
        .json(Form::one::<wire::Left>()).kept(),
    route(Verb::Post, "/api/v1/accounts/{name}/tokens", needs(Grant, "sys/tokens/{name}"), "Makes a token", || to(api::tokens::create))
        .takes(Form::one::<wire::CreateToken>()).created(Form::one::<wire::IssuedToken>()).never_kept(),
    route(Verb::Post, "/api/v1/accounts/{name}/sign-in-code", needs(Grant, "sys/tokens/{name}"), "Makes a one-time sign-in code", || to(api::tokens::sign_in_code))
        .created(Form::one::<wire::NewCode>()).never_kept(),
    route(Verb::Get, "/api/v1/tokens", needs(List, "sys/tokens/{account}"), "Tokens, never the tokens themselves", || to(api::tokens::list))
        .query(ACCOUNT).json(Form::list::<wire::Token>()),
    route(Verb::Post, "/api/v1/tokens/renew", Needs::SignedIn, "Prolongs the caller's own token", || to(api::tokens::renew))
        .json(Form::one::<wire::Token>()).kept(),
    route(Verb::Delete, "/api/v1/tokens/{id}", needs(Grant, "sys/tokens/{id}"), "Ends a token; everybody may end his own", || to(api::tokens::revoke))
        .nothing().kept(),
    route(Verb::Get, "/api/v1/policies", needs(List, "sys/policies"), "The policies", || to(api::policies::list))
        .json(Form::list::<wire::Policy>()),
    route(Verb::Post, "/api/v1/policies/explain", needs(Inspect, "sys/policies"), "What would be decided, and why; everybody may ask about himself", || to(api::policies::explain))
        .takes(Form::one::<wire::Explain>()).json(Form::one::<wire::Explanation>()),
    route(Verb::Get, "/api/v1/policies/{name}", needs(Inspect, "sys/policies/{name}"), "A policy", || to(api::policies::show))
        .json(Form::one::<wire::Policy>()),
    route(Verb::Put, "/api/v1/policies/{name}", needs(Write, "sys/policies/{name}"), "Writes a policy: the document itself", || to(api::policies::put))
        .takes(Form::object()).json(Form::one::<wire::Policy>()).kept(),
    route(Verb::Delete, "/api/v1/policies/{name}", needs(Delete, "sys/policies/{name}"), "Removes a policy that nobody holds", || to(api::policies::remove))
        .nothing().kept(),
    route(Verb::Get, "/api/v1/grants", needs(List, "sys/grants"), "Grants; everybody may list his own", || to(api::grants::list))
        .query(ACCOUNT).json(Form::list::<wire::Grant>()),
    route(Verb::Post, "/api/v1/grants", needs(Grant, "sys/grants/{account}"), "Makes a grant", || to(api::grants::create))
        .takes(Form::one::<wire::CreateGrant>()).created(Form::one::<wire::Grant>()).kept(),
    route(Verb::Post, "/api/v1/grants/{id}/approve", needs(Grant, "sys/grants/{id}"), "Approves a grant that waits", || to(api::grants::approve))
        .json(Form::one::<wire::Grant>()).kept(),
    route(Verb::Delete, "/api/v1/grants/{id}", needs(Grant, "sys/grants/{id}"), "Ends a grant", || to(api::grants::revoke))
        .json(Form::one::<wire::Grant>()).kept(),
    route(Verb::Get, "/api/v1/audit", needs(Inspect, "sys/audit"), "Audit records", || to(api::audit::query))
        .query(AUDIT_QUERY).json(Form::one::<wire::AuditPage>()),
    route(Verb::Get, "/api/v1/audit/export", needs(Inspect, "sys/audit"), "The records under the newest checkpoint, a line each, oldest first; the checkpoint is in the header `keymoat-checkpoint`, in base64", || to(api::audit_export::export))
        .query(EXPORT_QUERY).text("application/jsonl"),
    route(Verb::Get, "/api/v1/audit/archive", needs(Delete, "sys/audit"), "The records from before a time that are in no archive yet, a line each, oldest first; needs `inspect` too. What proves them is in the headers `keymoat-checkpoint` and `keymoat-archive-proof`, in base64", || to(api::archive::begin))
        .query(ARCHIVE_QUERY).text("application/jsonl"),
    route(Verb::Get, "/api/v1/audit/archive/personal", needs(Delete, "sys/audit"), "The names and addresses beside records, a line each; needs `inspect` too", || to(api::archive::personal))
        .query(PERSONAL_QUERY).text("application/jsonl"),
    route(Verb::Post, "/api/v1/audit/archive", needs(Delete, "sys/audit"), "Says that an archive is kept, and takes its records out of the database", || to(api::archive::finish))
        .takes(Form::one::<wire::ArchiveClaim>()).json(Form::one::<wire::Archived>()).kept(),
    route(Verb::Post, "/api/v1/audit/erase-personal", needs(Delete, "sys/audit/personal"), "Erases names, addresses and user agents beside the records", || to(api::audit::erase_personal))
        .takes(Form::one::<wire::ErasePersonal>()).json(Form::one::<wire::PersonalErased>()).kept(),
    route(Verb::Post, "/api/v1/audit/events", needs(Write, "sys/audit/events"), "Writes down a sensitive action of a host program", || to(api::audit::record))
        .takes(Form::one::<wire::HostEvent>()).created(Form::one::<wire::Recorded>()).kept(),
    route(Verb::Get, "/api/v1/audit/checkpoint", needs(Inspect, "sys/audit"), "The newest signed checkpoint", || to(api::audit::checkpoint))
        .json(Form::one::<wire::Checkpoint>()),
    route(Verb::Post, "/api/v1/audit/verify", needs(Inspect, "sys/audit"), "Checks the whole log and every row", || to(api::audit::verify))
        .json(Form::one::<wire::Verification>()),
    route(Verb::Get, "/api/v1/audit/{seq}/proof", needs(Inspect, "sys/audit"), "Proves that a record is in the log", || to(api::audit::proof))
        .json(Form::one::<wire::Proof>()),
    route(Verb::Get, "/api/v1/providers", Needs::SignedIn, "The catalogue's providers", || to(api::providers::list))
        .json(Form::list::<wire::Provider>()),
    route(Verb::Post, "/api/v1/providers/identify", Needs::SignedIn, "Whose key a value is", || to(api::providers::identify))
        .takes(Form::one::<wire::Identify>()).json(Form::one::<wire::Identified>()),
    route(Verb::Get, "/api/v1/providers/{id}", Needs::SignedIn, "A provider of the catalogue", || to(api::providers::show))
        .json(Form::one::<wire::Provider>()),
    route(Verb::Post, "/api/v1/backup", needs(Inspect, "sys/backup"), "A backup of everything", || to(api::backup::backup))
        .text("application/octet-stream"),
    route(Verb::Get, "/api/v1/rekey", needs(Rotate, "sys/keys"), "What stands of the vault's own keys", || to(api::rekey::list))
        .json(Form::one::<wire::Keys>()),
    route(Verb::Post, "/api/v1/rekey/slots", needs(Rotate, "sys/keys/slots"), "Adds a way to open the vault; only on its own machine", || to(api::rekey::add_slot))
        .takes(Form::one::<wire::AddSlot>()).created(Form::one::<wire::Slot>()).kept(),
    route(Verb::Post, "/api/v1/rekey/slots/{id}/remove", needs(Rotate, "sys/keys/slots/{id}"), "Removes a way to open the vault; only on its own machine", || to(api::rekey::remove_slot))
        .takes(Form::one::<wire::KeyOffer>()).nothing().kept(),
    route(Verb::Post, "/api/v1/rekey/root", needs(Rotate, "sys/keys/root"), "Gives the vault a new root key; only on its own machine", || to(api::rekey::root))
        .takes(Form::one::<wire::RotateRoot>()).json(Form::one::<wire::RootRotated>()).kept(),
    route(Verb::Post, "/api/v1/rekey/data-key", needs(Rotate, "sys/keys/data"), "Encrypts a place anew under a new data key", || to(api::rekey::data_key))
        .takes(Form::one::<wire::RotateDataKey>()).json(Form::one::<wire::DataKeyRotated>()).kept(),
    route(Verb::Post, "/api/v1/rekey/pepper", needs(Rotate, "sys/keys/pepper"), "Gives the digests of tokens a new pepper", || to(api::rekey::pepper))
        .json(Form::one::<wire::PepperRotated>()).kept(),
    route(Verb::Get, "/api/v1/key-spaces", needs(List, "sys/spaces"), "The spaces of issued keys", || to(api::key_spaces::list))
        .json(Form::list::<wire::KeySpace>()),
    route(Verb::Put, "/api/v1/key-spaces/{name}", needs(Write, "sys/spaces/{name}"), "Makes a space of issued keys, or changes its rules", || to(api::key_spaces::put))
        .takes(Form::one::<wire::PutKeySpace>()).json(Form::one::<wire::KeySpace>()).kept(),
    route(Verb::Get, "/api/v1/keys", each(List, "sys/spaces/{space}/{environment}"), "Issued keys, a page at a time, never the keys themselves", || to(api::keys::list))
        .query(KEYS_QUERY).json(Form::one::<wire::KeyPage>()),
    route(Verb::Post, "/api/v1/keys", needs(Write, "sys/spaces/{space}/{environment}"), "Issues a key, which is shown this once", || to(api::keys::issue))
        .takes(Form::one::<wire::IssueKey>()).created(Form::one::<wire::NewKey>()).never_kept(),
    route(Verb::Post, "/api/v1/keys/verify", each(Match, "sys/spaces/{space}/{environment}"), "What a presented key is good for; `NOT_FOUND` for who may not verify it", || to(api::keys::verify))
        .takes(Form::one::<wire::VerifyKey>()).json(Form::one::<wire::KeyVerdict>()).never_kept(),
    route(Verb::Post, "/api/v1/keys/verify-batch", each(Match, "sys/spaces/{space}/{environment}"), "The same of at most 100 keys, each by itself", || to(api::keys::verify_all))
        .takes(Form::one::<wire::VerifyKeys>()).json(Form::one::<wire::KeyVerdicts>()).never_kept(),
    route(Verb::Get, "/api/v1/keys/whoami", Needs::Nobody, "What the issued key that is presented is; nothing is charged", || to(api::keys::whoami))
        .json(Form::one::<wire::KeyVerdict>()),
    route(Verb::Post, "/api/v1/keys/self-revoke", Needs::Nobody, "Ends the issued key that is presented", || to(api::keys::self_revoke))
        .takes(Form::one::<wire::RevokeKey>()).nothing(),
    route(Verb::Post, "/api/v1/keys/fetch", Needs::Nobody, "Gives the issued key out that a one-time code is for, once", || to(api::keys::fetch))
        .takes(Form::one::<wire::FetchKey>()).created(Form::one::<wire::NewKey>()).never_kept(),
    route(Verb::Post, "/api/v1/keys/owners", needs(Write, "sys/key-owners"), "Says whether an owner of issued keys is active", || to(api::keys::owner))
        .takes(Form::one::<wire::KeyOwner>()).json(Form::one::<wire::KeyOwner>()).kept(),
    route(Verb::Get, "/api/v1/keys/{id}", needs(Inspect, "sys/spaces/{space}/{environment}"), "An issued key, never the key itself", || to(api::keys::show))
        .json(Form::one::<wire::Key>()),
    route(Verb::Patch, "/api/v1/keys/{id}", needs(Write, "sys/spaces/{space}/{environment}"), "Changes an issued key, or switches it off and on", || to(api::keys::change))
        .takes(Form::one::<wire::ChangeKey>()).json(Form::one::<wire::Key>()).kept(),
    route(Verb::Post, "/api/v1/keys/{id}/reroll", needs(Rotate, "sys/spaces/{space}/{environment}"), "Issues the key that takes its place; the old one goes on for a while", || to(api::keys::reroll))
        .takes(Form::one::<wire::RerollKey>()).created(Form::one::<wire::NewKey>()).never_kept(),
    route(Verb::Post, "/api/v1/keys/{id}/revoke", needs(Delete, "sys/spaces/{space}/{environment}"), "Ends an issued key for good, at once", || to(api::keys::revoke))
        .takes(Form::one::<wire::RevokeKey>()).json(Form::one::<wire::Key>()).kept(),
];

/// A route.
#[derive(Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: Verb,
    /// The path: `{name}` for a segment, `{*path}` for the rest.
    pub path: &'static str,
    /// What the caller needs.
    pub needs: Needs,
    /// What it does, for people.
    pub summary: &'static str,
    /// What its query may hold.
    pub query: &'static [Parameter],
    /// What becomes of its answer when the request may be sent again.
    pub repeat: Repeat,
    /// Whether `If-Match` and `If-None-Match` mean something.
    pub conditional: bool,
    pub(crate) takes: Option<Form>,
    pub(crate) gives: Given,
    pub(crate) status: u16,
    handler: fn() -> Handler<AppState>,
    /// What answers while the server is sealed; refused where there is none.
    while_sealed: Option<fn() -> Handler<Edge>>,
}

/// The methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Does something.
    Post,
    /// Writes.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
    /// Whatever the method is, it is somebody else's; documented as `GET`.
    Any,
}

/// What a caller needs. The front desk decides; this says what it will ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nobody,
    /// To be signed in.
    SignedIn,
    /// To be signed in and to have a capability.
    Capability {
        /// The capability.
        capability: Capability,
        /// On what; names in braces stand for those of the request.
        resource: &'static str,
    },
    /// To be signed in; what he lacks the capability for is left out of the answer, or stands there as refused.
    Each {
        /// The capability.
        capability: Capability,
        /// On what.
        resource: &'static str,
    },
    /// To come through the socket, or where the server lets everybody, or to be signed in and to have a capability.
    LocalOr {
        /// The capability.
        capability: Capability,
        /// On what.
        resource: &'static str,
    },
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
}

/// What becomes of the answer to a request with an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing is changed, so the key means nothing.
    Harmless,
    /// It is remembered.
    Remembered,
    /// It holds a value, so it is not kept and the key is refused.
    Never,
}

/// What a route answers with.
#[derive(Clone, Copy)]
pub(crate) enum Given {
    Nothing,
    Json(Form),
    Text(&'static str),
}

impl Route {
    /// The names in braces of the path, outermost first.
    pub fn path_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| {
            let name = segment.strip_prefix('{')?.strip_suffix('}')?;
            Some(name.strip_prefix('*').unwrap_or(name))
        })
    }

    /// Whether it answers while the server is sealed.
    pub fn answers_while_sealed(&self) -> bool {
        self.while_sealed.is_some()
    }

    /// Whether a proxy passes on what it was asked itself: query, conditions and all else are not for Keymoat.
    pub(crate) fn is_asked_of_another(&self) -> bool {
        self.method == Verb::Any
    }

    /// Whether the request has a JSON body.
    pub fn takes_body(&self) -> bool {
        self.takes.is_some()
    }

    /// What it is grouped under: the first word of the path after `/api/v1`.
    pub(crate) fn tag(&self) -> &'static str {
        let rest = self.path.strip_prefix("/api/v1/").unwrap_or("server");
        rest.split('/').next().unwrap_or(rest)
    }

    /// A name that no other route has.
    pub(crate) fn id(&self) -> String {
        let words = self.path.split('/').map(|segment| segment.trim_matches(['{', '}', '*']));
        let words = words.filter(|word| !word.is_empty() && !matches!(*word, "api" | "v1"));
        let mut words: Vec<String> = words.map(|word| word.replace(['-', '.'], "_")).collect();
        if self.path.ends_with('/') {
            words.push("root".to_owned());
        }
        format!("{}_{}", self.method.as_str().to_lowercase(), words.join("_"))
    }

    pub(crate) fn forms(&self) -> impl Iterator<Item = Form> {
        let given = match self.gives {
            Given::Json(form) => Some(form),
            Given::Nothing | Given::Text(_) => None,
        };
        self.takes.into_iter().chain(given)
    }

    const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    const fn takes(self, form: Form) -> Self {
        Self { takes: Some(form), ..self }
    }

    const fn json(self, form: Form) -> Self {
        Self { gives: Given::Json(form), ..self }
    }

    const fn created(self, form: Form) -> Self {
        Self { gives: Given::Json(form), status: 201, ..self }
    }

    const fn text(self, kind: &'static str) -> Self {
        Self { gives: Given::Text(kind), ..self }
    }

    const fn nothing(self) -> Self {
        Self { gives: Given::Nothing, status: 204, ..self }
    }

    const fn kept(self) -> Self {
        Self { repeat: Repeat::Remembered, ..self }
    }

    const fn never_kept(self) -> Self {
        Self { repeat: Repeat::Never, ..self }
    }

    const fn while_sealed(self, handler: fn() -> Handler<Edge>) -> Self {
        Self { while_sealed: Some(handler), ..self }
    }

    const fn conditional(self) -> Self {
        Self { conditional: true, ..self }
    }
}

impl Verb {
    /// The name of the method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get | Verb::Any => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        }
    }
}

/// The whole API on an open vault: every route of [`ROUTES`] behind the edge's checks. Cheap to clone.
///
/// A request carries who is at the other end as an extension of type [`Peer`]; [`crate::serve`] and
/// [`crate::in_process`] put it there. Without it a request comes from nowhere and needs a token.
#[derive(Clone)]
pub struct Api {
    served: Arc<Served>,
    /// Who asks, where that is the same for all requests.
    peer: Option<Peer>,
}

struct Served {
    app: AppState,
    edge: Edge,
    table: Table<AppState>,
}

impl Api {
    pub(crate) fn new(app: AppState) -> Self {
        let edge = Edge { front: Arc::clone(&app.front), numbers: Numbers::Vault(app.vault.clone()) };
        let table = Table::new(ROUTES, |route| (route.handler)());
        Self { served: Arc::new(Served { app, edge, table }), peer: None }
    }

    /// The same for requests that are all this peer's.
    pub(crate) fn for_peer(self, peer: Peer) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// Lets go of the vault with the answer.
    pub(crate) async fn answer(self, mut request: Request) -> Response {
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let Served { app, edge, table } = &*self.served;
        let found = table.find(request.method(), request.uri().path());
        let path = found.path();
        let answer = |request| async move {
            match found {
                Found::Route(entry, names) => {
                    // On the heap at once, so that what is around it does not move it about.
                    let entered = Box::pin(enter(app, entry, names, request));
                    entered.await.unwrap_or_else(Problem::into_response)
                }
                Found::OtherMethods(entries) => other_methods(entries),
                Found::Nothing => edge::no_route().into_response(),
            }
        };
        edge::edge(edge, path, request, answer).await
    }
}

impl Service<Request> for Api {
    type Response = Response;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// The same routes while the server is sealed: most of them say only that.
pub(crate) struct SealedApi {
    edge: Edge,
    table: Table<Edge>,
}

impl SealedApi {
    pub(crate) fn new(edge: Edge) -> Self {
        let table = Table::new(ROUTES, |route| {
            route.while_sealed.map_or_else(|| Box::new(refuse_sealed) as Handler<Edge>, |handler| handler())
        });
        Self { edge, table }
    }

    pub(crate) async fn answer(&self, request: Request) -> Response {
        let Self { edge, table } = self;
        let found = table.find(request.method(), request.uri().path());
        let path = found.path();
        let answer = |request| async move {
            match found {
                Found::Route(entry, names) => {
                    enter_sealed(edge, entry, names, request).await.unwrap_or_else(Problem::into_response)
                }
                Found::OtherMethods(entries) => other_methods(entries),
                Found::Nothing => edge::no_route().into_response(),
            }
        };
        edge::edge(edge, path, request, answer).await
    }
}

fn refuse_sealed(_: Request, _: Edge) -> Answering {
    Box::pin(ready(Problem::sealed().into_response()))
}

/// What stands before the handlers of a sealed server: nobody can sign in.
async fn enter_sealed(
    edge: &Edge,
    Entry { route, handler }: &Entry<Edge>,
    names: PathNames,
    mut request: Request,
) -> Result<Response, Problem> {
    if route.is_asked_of_another() {
        return Ok(handler(request, edge.clone()).await);
    }
    params::refuse_tokens_in(request.uri().query())?;
    if route.answers_while_sealed() {
        let params = Params::parse(request.uri().query(), route.query, names)?;
        request.extensions_mut().insert(params);
    }
    Ok(handler(request, edge.clone()).await)
}

/// What stands before every handler: who asks, then what is asked.
async fn enter(
    app: &AppState,
    Entry { route, handler }: &Entry<AppState>,
    names: PathNames,
    mut request: Request,
) -> Result<Response, Problem> {
    if route.is_asked_of_another() {
        request.extensions_mut().insert(Params::of_path(names));
        return Ok(handler(request, app.clone()).await);
    }
    params::refuse_tokens_in(request.uri().query())?;
    let (mut parts, body) = request.into_parts();
    if let Some(caller) = signed_in(app, route, &parts).await? {
        parts.extensions.insert(caller);
    }
    let params = Params::parse(parts.uri.query(), route.query, names)?;
    parts.extensions.insert(params);
    check_conditions(route, &parts)?;
    repeat::answer(app, route, Request::from_parts(parts, body), handler).await
}

/// The caller, on a route that asks who he is.
async fn signed_in(app: &AppState, route: &Route, parts: &Parts) -> Result<Option<Caller>, Problem> {
    match route.needs {
        Needs::Nobody => return Ok(None),
        Needs::LocalOr { .. } if context::may_see_metrics(parts, &app.front.doors) => return Ok(None),
        Needs::LocalOr { .. } | Needs::SignedIn | Needs::Capability { .. } | Needs::Each { .. } => {}
    }
    app.vault.fresh().await?;
    context::sign_in(app, parts).await.map(Some)
}

/// A condition that would not be kept is not passed over.
fn check_conditions(route: &Route, parts: &Parts) -> Result<(), Problem> {
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
    let has_any = conditions.iter().any(|name| parts.headers.contains_key(name));
    if route.conditional || route.method == Verb::Get || !has_any {
        return Ok(());
    }
    Err(Problem::malformed("this route takes no conditions").hint("leave `If-Match` and its like out"))
}

/// A route that answers 200 and changes nothing; the methods above say what differs.
const fn route(
    method: Verb,
    path: &'static str,
    needs: Needs,
    summary: &'static str,
    handler: fn() -> Handler<AppState>,
) -> Route {
    Route {
        method,
        path,
        needs,
        summary,
        query: &[],
        repeat: Repeat::Harmless,
        conditional: false,
        takes: None,
        gives: Given::Nothing,
        status: 200,
        handler,
        while_sealed: None,
    }
}

const fn needs(capability: Capability, resource: &'static str) -> Needs {
    Needs::Capability { capability, resource }
}

const fn each(capability: Capability, resource: &'static str) -> Needs {
    Needs::Each { capability, resource }
}

const fn local_or(capability: Capability, resource: &'static str) -> Needs {
    Needs::LocalOr { capability, resource }
}

const fn parameter(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about }
}

const COMPANY: &[Parameter] = &[parameter("company", "the company whose own it is; none for what all share")];
const ACCOUNT: &[Parameter] = &[parameter("account", "only of this account")];
const KEYS_QUERY: &[Parameter] = &[
    parameter("space", "only of this space"),
    parameter("environment", "only for this environment"),
    parameter("owner", "only of this owner"),
    parameter(
        "status",
        "only `active`, `disabled`, `unfetched`, `not_yet_valid`, `expired` or `revoked` ones",
    ),
    parameter("unused_days", "only those that nobody used for so many days"),
    parameter("expires_days", "only those that end within so many days"),
    parameter("after", "`next` of the page before"),
    parameter("limit", "keys on a page, 1 to 1000; 100 when left out"),
];
const DELETE_QUERY: &[Parameter] = &[
    parameter("company", "the company whose own it is; none for what all share"),
    parameter("versions", "numbers, joined by commas; all versions when left out"),
];
const LIST_QUERY: &[Parameter] = &[
    parameter("environment", "the environment; needed"),
    parameter("company", "only of this company"),
    parameter("prefix", "only this path and what is below it"),
    parameter("cursor", "`next` of the page before"),
    parameter("limit", "secrets on a page, 1 to 1000; 100 when left out"),
];
const CHANGES_QUERY: &[Parameter] = &[
    parameter("after", "`next` of the page before; without it the answer is only where the feed stands now"),
    parameter("wait_secs", "how long to wait for a change, 0 to 60 seconds; 0 when left out"),
    parameter("limit", "changes on a page, 1 to 1000; 100 when left out"),
];
const EXPORT_QUERY: &[Parameter] = &[
    parameter("environment", "only in this environment; `sys` for Keymoat itself"),
    parameter("path", "only on this path and what is below it"),
    parameter("account", "only by this account"),
    parameter("action", "only this action"),
    parameter("result", "only with this end: `allowed`, `refused` or `failed`"),
    parameter("module", "only by this module"),
    parameter("company", "only for this company"),
    parameter("since", "only from this time on"),
    parameter("until", "only before this time"),
];
const ARCHIVE_QUERY: &[Parameter] =
    &[parameter("before", "only records from before this time, which is at least 90 days ago; needed")];
const PERSONAL_QUERY: &[Parameter] = &[
    parameter("start", "the number of the first record; needed"),
    parameter("end", "the number of the first record after the last; needed"),
];
const AUDIT_QUERY: &[Parameter] = &[
    parameter("environment", "only in this environment; `sys` for Keymoat itself"),
    parameter("path", "only on this path and what is below it"),
    parameter("account", "only by this account"),
    parameter("action", "only this action"),
    parameter("result", "only with this end: `allowed`, `refused` or `failed`"),
    parameter("module", "only by this module"),
    parameter("company", "only for this company"),
    parameter("since", "only from this time on"),
    parameter("until", "only before this time"),
    parameter("before", "only lower numbers: `next` of the page before"),
    parameter("from", "only this number and higher ones"),
    parameter("limit", "records on a page, 1 to 1000; 100 when left out"),
    parameter("oldest_first", "`true` for oldest first"),
    parameter("follow", "`true` when asked again and again: one record covers a minute"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_has_a_name_of_its_own() {
        let ids: BTreeSet<String> = ROUTES.iter().map(Route::id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }

    #[test]
    fn what_gives_a_value_is_never_kept() {
        let gives_values = ["IssuedToken", "NewCode", "NewKey", "Revealed", "Answer"];
        for route in ROUTES {
            let Given::Json(form) = route.gives else { continue };
            let text = serde_json::to_string(&form.schema()).unwrap();
            let gives = gives_values.iter().any(|name| text.ends_with(&format!("/{name}\"}}")));
            assert!(!gives || route.repeat != Repeat::Remembered, "{}", route.path);
        }
    }

    #[test]
    fn what_changes_something_can_be_repeated() {
        for route in ROUTES {
            let changes = matches!(route.method, Verb::Put | Verb::Patch | Verb::Delete);
            assert!(!changes || route.repeat == Repeat::Remembered, "{}", route.path);
        }
    }

    /// Whoever adds one adds a way in: see `docs/security/advisories.md` for what went wrong elsewhere.
    #[test]
    fn who_is_not_signed_in_reaches_these_routes_only() {
        let open = ROUTES.iter().filter(|route| route.needs == Needs::Nobody);
        let open: Vec<String> =
            open.map(|route| format!("{} {}", route.method.as_str(), route.path)).collect();
        let expected = [
            "GET /healthz",
            "GET /readyz",
            "GET /forward-auth/{space}",
            "GET /forward-auth/{space}/",
            "GET /forward-auth/{space}/{*path}",
            "GET /.well-known/jwks.json",
            "GET /api/openapi.json",
            "GET /api/v1/status",
            "GET /api/v1/unseal",
            "POST /api/v1/unseal",
            "POST /api/v1/unseal/reset",
            "POST /api/v1/sign-in/code",
            "GET /api/v1/keys/whoami",
            "POST /api/v1/keys/self-revoke",
            "POST /api/v1/keys/fetch",
        ];
        assert_eq!(open, expected);
    }

    #[test]
    fn routes_are_about_these_things_and_no_others() {
        let things: BTreeSet<&str> = ROUTES.iter().map(Route::tag).collect();
        let expected = [
            "accounts",
            "audit",
            "backup",
            "changes",
            "companies",
            "destroy",
            "environments",
            "grants",
            "key-spaces",
            "keys",
            "labels",
            "match",
            "policies",
            "promote",
            "providers",
            "rekey",
            "resolve",
            "reveal",
            "rollback",
            "seal",
            "secrets",
            "server",
            "sign-in",
            "status",
            "tokens",
            "undelete",
            "unseal",
            "which",
            "whoami",
        ];
        assert_eq!(things.into_iter().collect::<Vec<_>>(), expected);
    }
}
