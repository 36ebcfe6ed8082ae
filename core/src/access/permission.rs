//! What a call needs, and whether a caller has it.
//!
//! An account's own policy is set from above: an admin of `root/team` changes what is below `root/team` and the keys in it, but not
//! `root/team` itself, or it could lift the limits that its parent gave it.

use super::role::Role;
use crate::account::tree::{AccountIndex, AccountTree, ROOT};

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Id of the credential.
    pub credential: String,
    /// What the caller is.
    pub role: Role,
    /// Id of the account whose subtree it acts in.
    pub account: String,
    /// Unix milliseconds from which on the credential is refused; `None` means never.
    pub expires_unix_ms: Option<i64>,
}

impl Caller {
    /// One that acts in the whole tree and does not expire, as the processes of a deployment do.
    pub fn of_deployment(credential: &str, role: Role) -> Self {
        Self {
            credential: credential.to_owned(),
            role,
            account: ROOT.to_owned(),
            expires_unix_ms: None,
        }
    }

    /// Whether it sees all accounts, and with them what belongs to the whole deployment.
    pub fn sees_deployment(&self) -> bool {
        match self.role {
            Role::Root => true,
            Role::Admin | Role::Viewer => self.account == ROOT,
            Role::Node => false,
        }
    }
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Nothing: the answer holds nothing of a deployment.
    Public,
    /// Any credential that is accepted.
    Known,
    /// To be a node.
    Serve,
    /// To see an account, or what is in it.
    Read,
    /// To change what is in an account: its children, keys and credentials.
    Write,
    /// To change an account itself.
    Govern,
    /// To see what belongs to the whole deployment: providers, upstream keys, routes, prices, nodes, the whole audit trail.
    ReadDeployment,
    /// To change that.
    WriteDeployment,
}

impl Permission {
    /// Whether the call changes something.
    pub fn changes(self) -> bool {
        match self {
            Self::Write | Self::Govern | Self::WriteDeployment => true,
            Self::Public | Self::Known | Self::Serve | Self::Read | Self::ReadDeployment => false,
        }
    }
}

/// Why a caller may not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The call is of another role.
    #[error(
        "the role `{role}` does not do this; the call needs {needs}: ask an administrator for such a credential, or to do it for you"
    )]
    Role {
        /// The caller's.
        role: Role,
        /// What would do.
        needs: &'static str,
    },
    /// The call is about the whole deployment.
    #[error(
        "this belongs to the whole deployment, and this credential is `{role}` of `{account}`: {needs}; ask who holds such a credential"
    )]
    Deployment {
        /// The caller's.
        role: Role,
        /// Id of the caller's account.
        account: String,
        /// What would do.
        needs: &'static str,
    },
    /// The account is the caller's own.
    #[error(
        "an account is changed from above, and `{path}` is the account of this credential: ask an administrator of an account above it"
    )]
    OwnAccount {
        /// The account.
        path: String,
    },
    /// The target is not in the caller's subtree. To be told to callers in the words for what does not exist.
    #[error("there is no such account")]
    Hidden,
    /// A credential would be worth more than the caller's own.
    #[error(
        "a credential gives at most what its maker has: {0}; ask who holds a credential that has it"
    )]
    Exceeds(&'static str),
}

/// Whether such a call may be made at all, whatever it is about.
///
/// # Errors
/// Says which role would do.
pub fn may_call(caller: &Caller, permission: Permission) -> Result<(), Refusal> {
    let role = caller.role;
    let people = matches!(role, Role::Root | Role::Admin | Role::Viewer);
    let (granted, needs) = match permission {
        Permission::Public | Permission::Known => (true, ""),
        Permission::Serve => (role == Role::Node, "a node"),
        Permission::Read => (people, "a viewer, an admin or root"),
        Permission::Write | Permission::Govern => (
            matches!(role, Role::Root | Role::Admin),
            "an admin of the account, or root",
        ),
        Permission::ReadDeployment if people => {
            let needs = "only root and credentials of the account `root` see it";
            return caller
                .sees_deployment()
                .then_some(())
                .ok_or_else(|| of_deployment(caller, needs));
        }
        Permission::WriteDeployment if people => {
            return (role == Role::Root)
                .then_some(())
                .ok_or_else(|| of_deployment(caller, "only root changes it"));
        }
        Permission::ReadDeployment | Permission::WriteDeployment => (false, "root"),
    };
    granted.then_some(()).ok_or(Refusal::Role { role, needs })
}

fn of_deployment(caller: &Caller, needs: &'static str) -> Refusal {
    Refusal::Deployment {
        role: caller.role,
        account: caller.account.clone(),
        needs,
    }
}

/// Whether a caller may do this with this account, or with what is in it.
///
/// # Errors
/// Says why not, and who may.
pub fn may(
    caller: &Caller,
    permission: Permission,
    accounts: &AccountTree,
    target: AccountIndex,
) -> Result<(), Refusal> {
    may_call(caller, permission)?;
    let top = accounts.get(&caller.account).ok_or(Refusal::Hidden)?;
    if !accounts.in_subtree(target, top) {
        return Err(Refusal::Hidden);
    }
    if permission == Permission::Govern && target == top && caller.role != Role::Root {
        return Err(Refusal::OwnAccount {
            path: accounts.path(target),
        });
    }
    Ok(())
}
