//! Agent: no username that another Agent of the tree has, and no person by a ServiceAccount.

use polity_api::{Agent, AgentType, reasons};
use polity_policy::World;

use crate::{
    outcome::{Outcome, Problems, Warnings},
    tree,
    user::is_ours,
};

/// Users that are nobody in particular.
const NOBODY: [&str; 2] = ["system:anonymous", "system:unauthenticated"];

pub(super) fn check(agent: &Agent, namespace: &str, world: &World, system: &str) -> Outcome {
    let mut problems = Problems::default();
    let mut warnings = Warnings::default();
    let written = agent.spec.usernames.as_deref().unwrap_or_default();
    for (index, username) in written.iter().enumerate() {
        let field = format!("spec.usernames[{index}]");
        if written[..index].contains(username) {
            problems.add(&field, format!("{username:?} is there twice"));
        }
        if agent.spec.type_ == AgentType::Human && username.starts_with("system:serviceaccount:") {
            problems.add(&field, format!("{username:?} is a ServiceAccount, which never counts as human; use type System"));
        }
        if is_ours(username, system) {
            problems.add(&field, format!("{username:?} is Polity itself"));
        }
        if NOBODY.contains(&username.as_str()) {
            problems.add(&field, format!("{username:?} is nobody in particular"));
        }
    }
    let Some(org) = tree::org_of(world, namespace) else {
        super::warn_no_org(&mut warnings, namespace);
        return problems.outcome(warnings);
    };
    let mut itself = agent.clone();
    itself.metadata.namespace = Some(namespace.to_owned());
    itself.status = None;
    let own = (namespace.to_owned(), agent.metadata.name.clone().unwrap_or_default());
    let wanted = tree::usernames(&itself);
    let namespaces = tree::tree_namespaces(world, tree::name_of(org));
    let others = world.agents.iter().filter(|(key, _)| namespaces.contains(&key.0) && **key != own);
    for (key, other) in others {
        for username in wanted.intersection(&tree::usernames(other)) {
            let index = written.iter().position(|w| w == username);
            let field = index.map_or_else(|| "metadata.name".to_owned(), |i| format!("spec.usernames[{i}]"));
            problems.because(
                reasons::USERNAME_TAKEN,
                field,
                format!("Agent {}/{} of this organisation has {username:?} already", key.0, key.1),
            );
        }
    }
    problems.outcome(warnings)
}
