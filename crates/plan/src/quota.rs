//! Quota over a tree of Orgs: what a child is granted is subtracted from its parent, and what is in force never adds up to more than the root has.
//!
//! Two halves. `targets` says what each Org is to have in the end, from the specs alone: children in order of their creation, then name, each with
//! all it asks or nothing. `in_force` says what may be written *now*: lower first, never below what is used, and raise only what
//! others have already given back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::quantity::Amount;

/// Amounts by resource name, e.g. `requests.cpu`.
pub type Amounts = BTreeMap<String, Amount>;

/// What allocation needs to know of an Org. Its ancestry must be sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name.
    pub name: String,
    /// Parent.
    pub parent: Option<String>,
    /// Creation time.
    pub created: Timestamp,
    /// What it asks for, itself and everything below.
    pub asks: Amounts,
    /// Hard limits in force in its own namespace; empty when it has none yet.
    pub live: Amounts,
    /// What is used there.
    pub used: Amounts,
}

/// Why an Org's quota is not (yet) what its spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// It asks more than its parent has left.
    Unavailable {
        /// Resource.
        resource: String,
        /// Asked.
        asked: Amount,
        /// Left.
        left: Amount,
    },
    /// It must shrink, but uses more.
    InUse {
        /// Resource.
        resource: String,
        /// To have.
        target: Amount,
        /// In use.
        used: Amount,
    },
    /// Another Org has yet to give back what this one is granted.
    NotYetFree {
        /// Resource.
        resource: String,
    },
}

/// Quota of one Org.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What the Org and everything below it has.
    pub total: Amounts,
    /// Its own part in the end.
    pub target: Amounts,
    /// Its own part to be in force now.
    pub hard: Amounts,
    /// Resources that its parent limits and that it does not ask for: it has none of them.
    pub unasked: Vec<String>,
    /// Why `hard` is not what the spec says.
    pub shortfall: Option<Shortfall>,
}

/// Allocates the quota of every Org.
#[must_use]
pub fn allocate(units: &[Unit]) -> BTreeMap<String, Share> {
    let order = top_down(units);
    let mut shares = targets(&order);
    in_force(&order, &mut shares);
    shares
}

/// Parents before children; siblings by creation, then name.
fn top_down(units: &[Unit]) -> Vec<&Unit> {
    let mut children: BTreeMap<Option<&str>, Vec<&Unit>> = BTreeMap::new();
    for unit in units {
        children.entry(unit.parent.as_deref()).or_default().push(unit);
    }
    for list in children.values_mut() {
        list.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    }
    let mut order: Vec<&Unit> = children.remove(&None).unwrap_or_default();
    let mut i = 0;
    while let Some(unit) = order.get(i) {
        order.extend(children.remove(&Some(unit.name.as_str())).unwrap_or_default());
        i += 1;
    }
    order
}

fn targets(order: &[&Unit]) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for unit in order {
        let left = unit.parent.as_ref().and_then(|p| shares.get(p)).map(|p| p.target.clone()).unwrap_or_default();
        let lacking = unit.asks.iter().find_map(|(resource, asked)| {
            let left = left.get(resource).filter(|left| *left < asked)?;
            Some(Shortfall::Unavailable { resource: resource.clone(), asked: *asked, left: *left })
        });
        let mut total = unit.asks.clone();
        for resource in left.keys() {
            let granted = if lacking.is_some() { None } else { unit.asks.get(resource) };
            total.insert(resource.clone(), granted.copied().unwrap_or(Amount::ZERO));
        }
        if let Some(parent) = unit.parent.as_ref().and_then(|p| shares.get_mut(p)) {
            for (resource, own) in &mut parent.target {
                *own = own.saturating_sub(total.get(resource).copied().unwrap_or_default());
            }
        }
        let unasked = left.keys().filter(|r| !unit.asks.contains_key(*r)).cloned().collect();
        shares.insert(unit.name.clone(), Share { target: total.clone(), total, hard: Amounts::new(), unasked, shortfall: lacking });
    }
    shares
}

fn in_force(order: &[&Unit], shares: &mut BTreeMap<String, Share>) {
    // Resource → (root of that resource's tree by Org, what the root has less what is in force below it).
    let mut roots: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut free: BTreeMap<(&str, &str), Amount> = BTreeMap::new();
    let resources: BTreeSet<&str> = order.iter().flat_map(|u| u.asks.keys()).map(String::as_str).collect();
    for unit in order {
        let Some(share) = shares.get(&unit.name) else { continue };
        for resource in resources.iter().copied().filter(|r| share.total.contains_key(*r)) {
            let above = unit.parent.as_deref().and_then(|p| roots.get(&(resource, p)).copied());
            let root = above.unwrap_or(&unit.name);
            roots.insert((resource, &unit.name), root);
            let live = unit.live.get(resource).copied().unwrap_or_default();
            let total = share.total.get(resource).copied().unwrap_or_default();
            let free = free.entry((resource, root)).or_insert(total);
            *free = *free - live;
        }
    }
    for unit in order {
        let Some(share) = shares.get_mut(&unit.name) else { continue };
        for resource in resources.iter().copied() {
            let Some(target) = share.target.get(resource).copied() else { continue };
            let get = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or_default();
            let (live, used) = (get(&unit.live), get(&unit.used));
            let hard = if target <= live {
                // What is in use cannot be taken back; it is given back as it ends.
                let hard = target.max(live.min(used));
                if hard > target && share.shortfall.is_none() {
                    share.shortfall = Some(Shortfall::InUse { resource: resource.to_owned(), target, used });
                }
                hard
            } else {
                let free = roots.get(&(resource, unit.name.as_str())).and_then(|root| free.get_mut(&(resource, *root)));
                match free {
                    Some(free) if target - live <= *free => {
                        *free = *free - (target - live);
                        target
                    }
                    _ => {
                        if share.shortfall.is_none() {
                            share.shortfall = Some(Shortfall::NotYetFree { resource: resource.to_owned() });
                        }
                        live
                    }
                }
            };
            share.hard.insert(resource.to_owned(), hard);
        }
    }
}

#[cfg(test)]
mod tests;
