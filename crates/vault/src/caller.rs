//! Who asks, and under what circumstances.

use std::net::IpAddr;

use keymoat_core::audit::{Actor, AuditText, Personal, PrincipalKind};
use keymoat_core::id::{PrincipalId, RequestId, TokenId};
use keymoat_core::names::AccountName;

/// The circumstances of a request, known before anybody is signed in.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request's number, which its answer carries too.
    pub request: RequestId,
    /// Where it came from; none for a program on this machine that came through the socket or in process.
    pub address: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<AuditText>,
    /// The calling module, as the client says: it may narrow a decision, never allow one.
    pub module: Option<AuditText>,
    /// For whom, as the client says.
    pub on_behalf_of: Option<AuditText>,
}

/// A signed-in principal with the circumstances of its request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: PrincipalId,
    /// The account's name.
    pub name: AccountName,
    /// What kind of account.
    pub kind: PrincipalKind,
    /// The token that was shown; none for an operating-system user.
    pub token: Option<TokenId>,
    /// The circumstances.
    pub origin: Origin,
}

impl Caller {
    /// The actor as a record names it.
    pub fn actor(&self) -> Actor {
        Actor::Principal { id: self.principal, kind: self.kind }
    }

    /// The erasable part of a record.
    pub fn personal(&self) -> Personal {
        Personal {
            actor_name: Some(AuditText::new(self.name.as_str())),
            address: self.origin.address,
            user_agent: self.origin.user_agent.clone(),
        }
    }
}
