//! The Org with its ancestors, and what closes it: one `Gate` for each thing that makes it take no calls.

use std::sync::Arc;

use jiff::Timestamp;
use polity_api::{Org, reasons};

use crate::World;

/// Most Orgs from the root down to one; a longer chain is broken.
const MAX_CHAIN: usize = 32;

/// Something that closes an Org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Reason code.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// An Org of the chain with the namespace in force.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The object.
    pub org: Arc<Org>,
    /// Its namespace; empty while there is none that is its own.
    pub namespace: String,
}

/// From the root down to the Org itself.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Root first, self last. What could not be resolved is missing.
    pub links: Vec<Link>,
    /// What closes it, worst first.
    pub gates: Vec<Gate>,
    /// Orgs of the chain that have not started, and when they will.
    pub starts: Vec<(String, Timestamp)>,
}

impl Chain {
    /// Resolves an Org from its name.
    #[must_use]
    pub fn resolve(world: &World, name: &str) -> Self {
        let mut chain = Self::default();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let own = chain.links.is_empty();
            if chain.links.iter().any(|l| l.name == name) {
                chain.gate(reasons::ANCESTRY_BROKEN, format!("Org {name} is its own ancestor"));
                break;
            }
            if chain.links.len() == MAX_CHAIN {
                chain.gate(reasons::ANCESTRY_BROKEN, format!("more than {MAX_CHAIN} Orgs above each other"));
                break;
            }
            let Some(org) = world.orgs.get(&name) else {
                let broken = world.undecodable.get(&("Org".to_owned(), String::new(), name.clone()));
                let why = broken.map_or_else(|| "does not exist".to_owned(), |e| format!("is stored but cannot be decoded: {e}"));
                let reason = if own { reasons::ORG_NOT_READY } else { reasons::ANCESTRY_BROKEN };
                chain.gate(reason, format!("Org {name} {why}"));
                break;
            };
            chain.links.push(Link { name: name.clone(), org: Arc::clone(org), namespace: String::new() });
            next = org.spec.parent_ref.as_ref().map(|p| p.name.clone());
        }
        for at in 0..chain.links.len() {
            chain.judge(world, at);
        }
        chain.links.reverse();
        chain
    }

    fn gate(&mut self, reason: &'static str, message: String) {
        self.gates.push(Gate { reason, message });
    }

    /// Judges one Org of the chain (self first at this time).
    fn judge(&mut self, world: &World, at: usize) {
        let own = at == 0;
        let Some(Link { name, org, .. }) = self.links.get(at).cloned() else { return };
        if org.metadata.deletion_timestamp.is_some() {
            let reason = if own { reasons::ORG_DELETING } else { reasons::ANCESTRY_BROKEN };
            self.gate(reason, format!("Org {name} is being deleted"));
        }
        match namespace(world, &name, &org) {
            Ok(namespace) => self.links[at].namespace = namespace,
            Err(Gate { message, .. }) if !own => self.gate(reasons::ANCESTRY_BROKEN, format!("{message}, so its Policies are unknown")),
            Err(Gate { reason, message }) => self.gate(reason, message),
        }
        if org.spec.suspend {
            self.gate(reasons::ORG_SUSPENDED, format!("Org {name} is suspended"));
        }
        if let Some(start) = &org.spec.start_at {
            self.starts.push((name, start.0));
        }
    }
}

/// The namespace in force of an Org, or what keeps it from having one.
fn namespace(world: &World, name: &str, org: &Org) -> Result<String, Gate> {
    let gate = |reason, message| Err(Gate { reason, message });
    let Some(want) = org.status.as_ref().and_then(|s| s.namespace.as_ref()) else {
        return gate(reasons::ORG_NOT_READY, format!("Org {name} has no namespace yet"));
    };
    let consent = reasons::NAMESPACE_NOT_CONSENTING;
    let Some(have) = world.namespaces.get(&want.name) else {
        return gate(consent, format!("namespace {} of Org {name} does not exist", want.name));
    };
    if have.uid != want.uid {
        return gate(consent, format!("namespace {} was deleted and made again since Org {name} took it", want.name));
    }
    if have.terminating {
        return gate(consent, format!("namespace {} of Org {name} is being deleted", want.name));
    }
    if !want.created && have.consent.as_deref() != Some(name) {
        return gate(consent, format!("namespace {} does not carry the label polity.dev/org: {name}", want.name));
    }
    Ok(want.name.clone())
}
