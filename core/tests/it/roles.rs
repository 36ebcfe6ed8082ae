//! Who may do what: random callers do random things in a random tree. What the real code decides is held against a second, plain
//! definition that walks the names of parents, and no credential ever reaches what its maker could not.

use std::collections::{BTreeMap, BTreeSet};

use proxyxai_core::{
    access::{
        Caller, Grant,
        Permission::{self, Govern, Known, Read, ReadDeployment, Serve, Write, WriteDeployment},
        Role,
        credential::{self, Unfit},
        grant::{may_grant, may_manage},
        may, may_call,
    },
    account::tree::{AccountTree, ROOT},
};
use proxyxai_proto::config::v1::Account;

#[test]
fn roles_nobody_escapes_in_a_hundred_thousand_operations() {
    println!("seed 1");
    play(1, 100_000);
}

#[test]
#[ignore = "the full number, for `make prove SUITE=roles`"]
fn roles_nobody_escapes_in_a_million_operations() {
    for seed in 1..=10 {
        println!("seed {seed}");
        play(seed, 100_000);
    }
}

fn play(seed: u64, operations: u64) {
    let mut world = World::new(seed);
    for _ in 0..operations {
        world.step();
    }
    let counts = &world.counts;
    for outcome in ["granted", "refused", "unfit", "made", "exceeds"] {
        let often = counts.get(outcome).copied().unwrap_or(0);
        assert!(
            often > operations / 100,
            "{outcome} came {often} times: the play proves little"
        );
    }
}

const MOST_ACCOUNTS: usize = 40;
const MOST_CREDENTIALS: usize = 60;

struct Held {
    caller: Caller,
    disabled: bool,
    maker: Option<Caller>,
}

struct World {
    random: u64,
    now: i64,
    next: u64,
    /// The plain definition's tree: each account and its parent.
    parents: BTreeMap<String, Option<String>>,
    suspended: BTreeSet<String>,
    /// Accounts of virtual keys.
    keys: Vec<String>,
    held: Vec<Held>,
    tree: AccountTree,
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let first = |id: &str, role| Held {
            caller: Caller::of_deployment(id, role),
            disabled: false,
            maker: None,
        };
        let mut world = Self {
            random: seed,
            now: 1_000_000,
            next: 0,
            parents: BTreeMap::from([(ROOT.to_owned(), None)]),
            suspended: BTreeSet::new(),
            keys: Vec::new(),
            held: vec![first("admin", Role::Root), first("node", Role::Node)],
            tree: AccountTree::default(),
            counts: BTreeMap::new(),
        };
        world.compile();
        world
    }

    fn step(&mut self) {
        self.now += i64::try_from(self.draw(3)).unwrap();
        let at = self.draw(self.held.len());
        let caller = self.held[at].caller.clone();
        let fit = credential::check(&caller, self.held[at].disabled, self.now, &self.tree);
        assert_eq!(fit.is_ok(), self.is_fit(at), "{caller:?}: {fit:?}");
        if let Err(unfit) = fit {
            self.count("unfit");
            if matches!(unfit, Unfit::Expired | Unfit::NoAccount) || self.draw(20) == 0 {
                self.forget(at);
            }
            return;
        }
        match self.draw(12) {
            0 | 1 => self.create_account(&caller),
            2 => self.suspend(&caller),
            3 => self.delete_account(&caller),
            4 => self.create_key(&caller),
            5 => self.delete_key(&caller),
            6 | 7 => self.create_credential(&caller),
            8 => self.give_again(&caller),
            9 => self.disable(&caller),
            10 => self.look(&caller),
            _ => self.act_on_deployment(&caller),
        }
    }

    fn create_account(&mut self, caller: &Caller) {
        let parent = self.any_account();
        let room = self.parents.len() < MOST_ACCOUNTS && self.line(&parent).len() < 20;
        if self.decide(caller, Write, &parent) && room {
            self.next += 1;
            self.parents.insert(format!("a{}", self.next), Some(parent));
            self.compile();
        }
    }

    fn suspend(&mut self, caller: &Caller) {
        let account = self.any_account();
        if self.decide(caller, Govern, &account) {
            // Most end soon, or nobody could do anything any more.
            if !self.suspended.remove(&account) && account != ROOT {
                self.suspended.insert(account);
            }
            if self.suspended.len() > 2 {
                self.suspended.pop_first();
            }
            self.compile();
        }
    }

    fn delete_account(&mut self, caller: &Caller) {
        let account = self.any_account();
        let parent = Some(account.clone());
        let empty = !self.parents.values().any(|other| *other == parent);
        if self.decide(caller, Govern, &account) && empty && account != ROOT {
            self.parents.remove(&account);
            self.suspended.remove(&account);
            self.keys.retain(|key| *key != account);
            self.compile();
        }
    }

    fn create_key(&mut self, caller: &Caller) {
        let account = self.any_account();
        if self.decide(caller, Write, &account) && self.keys.len() < 100 {
            self.keys.push(account);
        }
    }

    fn delete_key(&mut self, caller: &Caller) {
        if self.keys.is_empty() {
            return;
        }
        let at = self.draw(self.keys.len());
        let account = self.keys[at].clone();
        if self.decide(caller, Write, &account) {
            self.keys.remove(at);
        }
    }

    fn create_credential(&mut self, caller: &Caller) {
        let account = self.any_account();
        let role = [
            Role::Root,
            Role::Admin,
            Role::Viewer,
            Role::Admin,
            Role::Node,
        ][self.draw(5)];
        let life = i64::try_from(self.draw(4000)).unwrap() + 1;
        let expires = (self.draw(3) != 0).then_some(self.now + life);
        if let Some(made) = self.grant(caller, role, &account, expires) {
            self.hold(made, caller);
        }
    }

    /// A new secret for a credential, or its life after it was disabled: whoever does it must have all that it is worth.
    fn give_again(&mut self, caller: &Caller) {
        let at = self.draw(self.held.len());
        let old = self.held[at].caller.clone();
        if !self.parents.contains_key(&old.account) || self.held[at].maker.is_none() {
            return;
        }
        let given = self.grant(caller, old.role, &old.account, old.expires_unix_ms);
        if given.is_some() {
            self.held[at].disabled = false;
            self.held[at].maker = Some(caller.clone());
        }
    }

    fn disable(&mut self, caller: &Caller) {
        let at = self.draw(self.held.len());
        let other = self.held[at].caller.clone();
        let Some(account) = self.tree.get(&other.account) else {
            return;
        };
        let decided = may_manage(caller, other.role, account, &self.tree);
        let plain = self.plainly(caller, Write, &other.account)
            && match other.role {
                Role::Admin | Role::Viewer => true,
                Role::Root => caller.role == Role::Root,
                Role::Node => false,
            };
        assert_eq!(decided.is_ok(), plain, "{caller:?} disables {other:?}");
        if decided.is_ok() && self.held[at].maker.is_some() {
            self.held[at].disabled = true;
        }
    }

    /// Lists everything: what is shown is exactly what is in the subtree.
    fn look(&mut self, caller: &Caller) {
        let accounts: Vec<String> = self.parents.keys().cloned().collect();
        if self.draw(10) == 0 {
            for account in accounts {
                self.decide(caller, Read, &account);
            }
        } else {
            let account = self.any_account();
            self.decide(caller, Read, &account);
        }
    }

    fn act_on_deployment(&mut self, caller: &Caller) {
        for permission in [ReadDeployment, WriteDeployment, Serve, Known] {
            let decided = may_call(caller, permission);
            let plain = match caller.role {
                Role::Root => permission != Serve,
                Role::Node => permission == Serve || permission == Known,
                Role::Admin | Role::Viewer => {
                    permission == Known || (permission == ReadDeployment && caller.account == ROOT)
                }
            };
            assert_eq!(decided.is_ok(), plain, "{caller:?} {permission:?}");
        }
    }

    /// What the real code says, held against the plain definition.
    fn decide(&mut self, caller: &Caller, permission: Permission, account: &str) -> bool {
        let target = self.tree.get(account).unwrap();
        let decided = may(caller, permission, &self.tree, target);
        let plain = self.plainly(caller, permission, account);
        assert_eq!(
            decided.is_ok(),
            plain,
            "{caller:?} {permission:?} {account}: {decided:?}"
        );
        self.count(if plain { "granted" } else { "refused" });
        plain
    }

    fn grant(
        &mut self,
        caller: &Caller,
        role: Role,
        account: &str,
        expires: Option<i64>,
    ) -> Option<Caller> {
        let grant = Grant {
            role,
            account: self.tree.get(account).unwrap(),
            expires_unix_ms: expires,
        };
        let decided = may_grant(caller, &grant, &self.tree);
        let rank = |role| match role {
            Role::Root => 3,
            Role::Admin => 2,
            Role::Viewer => 1,
            Role::Node => 9,
        };
        let never = i64::MAX;
        let plain = self.plainly(caller, Write, account)
            && rank(role) <= rank(caller.role)
            && (role != Role::Root || account == ROOT)
            && expires.unwrap_or(never) <= caller.expires_unix_ms.unwrap_or(never);
        assert_eq!(
            decided.is_ok(),
            plain,
            "{caller:?} gives {role} of {account} until {expires:?}"
        );
        self.count(if plain { "made" } else { "exceeds" });
        self.next += 1;
        plain.then(|| Caller {
            credential: format!("c{}", self.next),
            role,
            account: account.to_owned(),
            expires_unix_ms: expires,
        })
    }

    /// Keeps a new credential. Whatever it may do anywhere, its maker may do too.
    fn hold(&mut self, made: Caller, maker: &Caller) {
        for target in self.tree.all() {
            for permission in [Read, Write, Govern] {
                let escapes = may(&made, permission, &self.tree, target).is_ok()
                    && may(maker, permission, &self.tree, target).is_err();
                assert!(!escapes, "{made:?} exceeds {maker:?}: {permission:?}");
            }
        }
        for permission in [ReadDeployment, WriteDeployment, Serve] {
            let escapes =
                may_call(&made, permission).is_ok() && may_call(maker, permission).is_err();
            assert!(!escapes, "{made:?} exceeds {maker:?}: {permission:?}");
        }
        if self.held.len() >= MOST_CREDENTIALS {
            let at = 2 + self.draw(self.held.len() - 2);
            self.forget(at);
        }
        self.held.push(Held {
            caller: made,
            disabled: false,
            maker: Some(maker.clone()),
        });
    }

    /// The plain definition: roles as the manual tells them, subtrees by names.
    fn plainly(&self, caller: &Caller, permission: Permission, account: &str) -> bool {
        let line = self.line(account);
        let inside = line.contains(&caller.account);
        match (caller.role, permission) {
            (Role::Root, _) => true,
            (Role::Admin, Read | Write) | (Role::Viewer, Read) => inside,
            (Role::Admin, Govern) => inside && account != caller.account,
            _ => false,
        }
    }

    fn is_fit(&self, at: usize) -> bool {
        let held = &self.held[at];
        let expired = held
            .caller
            .expires_unix_ms
            .is_some_and(|end| self.now >= end);
        let line = self.line(&held.caller.account);
        let stopped = line.is_empty() || line.iter().any(|id| self.suspended.contains(id));
        let unstoppable = matches!(held.caller.role, Role::Root | Role::Node);
        !held.disabled && !expired && (unstoppable || !stopped)
    }

    /// The account and all above it; empty when it does not exist.
    fn line(&self, account: &str) -> Vec<String> {
        let mut line = Vec::new();
        let mut at = Some(account.to_owned());
        while let Some(id) = at {
            let Some(parent) = self.parents.get(&id) else {
                return Vec::new();
            };
            line.push(id);
            at = parent.clone();
        }
        line
    }

    fn compile(&mut self) {
        let account = |(id, parent): (&String, &Option<String>)| Account {
            id: id.clone(),
            name: id.clone(),
            parent_id: parent.clone().unwrap_or_default(),
            suspended: self.suspended.contains(id),
            ..Account::default()
        };
        let accounts: Vec<Account> = self.parents.iter().map(account).collect();
        self.tree = AccountTree::build(&accounts).unwrap();
    }

    /// The first ones stay, or nobody would be left.
    fn forget(&mut self, at: usize) {
        if self.held[at].maker.is_some() {
            self.held.swap_remove(at);
        }
    }

    fn any_account(&mut self) -> String {
        let at = self.draw(self.parents.len());
        self.parents.keys().nth(at).unwrap().clone()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A number below `limit` (SplitMix64).
    fn draw(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap() % limit
    }
}
