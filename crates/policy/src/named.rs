//! Names in a Policy that stand for nothing so far: a Role that nobody can hold, an Org that is not below, a label that no Tool carries. They may come
//! later, so this advises and never refuses: the same sentences at admission and on the command line.

use std::collections::BTreeSet;

use polity_api::policy::PolicySpec;

use crate::{ToolFacts, World, compile::CompiledPolicy, grant, suggest};

/// What a Policy of this Org names and what is not there, one sentence for each.
#[must_use]
pub fn unknown_names(spec: &PolicySpec, org: &str, world: &World) -> Vec<String> {
    let mut out = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        if let Some(role) = rule.approval.as_ref().and_then(|a| a.role.as_ref()) {
            let field = format!("spec.rules[{index}].approval.role");
            out.extend(
                no_role(world, org, role.org.as_deref(), &role.name).map(|why| format!("{field}: {why}; until then nobody can approve")),
            );
        }
    }
    if let Some(m) = &spec.matches {
        let unmatched = "what names only this matches no call until then";
        for (index, name) in m.roles.iter().enumerate() {
            out.extend(no_role(world, org, None, name).map(|why| format!("spec.match.roles[{index}]: {why}; {unmatched}")));
        }
        let below: Vec<&str> = world.orgs.keys().filter(|name| world.path(name).iter().any(|o| o == org)).map(String::as_str).collect();
        for (field, names) in [("orgs", &m.orgs), ("units", &m.units)] {
            for (index, name) in names.iter().enumerate().filter(|(_, name)| !below.contains(&name.as_str())) {
                // an Org above counts among `units`, since everything here is below it
                if field == "units" && world.path(org).contains(name) {
                    continue;
                }
                let known = suggest::among("Orgs", name, below.iter().copied());
                out.push(format!("spec.match.{field}[{index}]: no Org {name:?} is here or below; {unmatched}; {known}"));
            }
        }
    }
    let tools = world.tools_in_reach(org);
    out.extend(labels(spec, &tools));
    out.extend(asked(spec, &tools));
    out
}

/// Why a Role cannot be used from an Org; None: it can.
fn no_role(world: &World, org: &str, at: Option<&str>, name: &str) -> Option<String> {
    let holder = at.unwrap_or(org);
    let path = world.path(org);
    if !path.iter().any(|o| o == holder) || !world.orgs.contains_key(holder) {
        let known = suggest::among("Orgs", holder, path.iter().map(String::as_str));
        return Some(format!("Org {holder:?} is neither this Org nor one above; {known}"));
    }
    let exported = |o: &str, name: &str| world.role_of(o, name).is_some_and(|role| o == org || role.spec.export.is_some());
    if exported(holder, name) {
        return None;
    }
    if world.role_of(holder, name).is_some() {
        return Some(format!("Role {name:?} of Org {holder} does not say `export: Descendants`"));
    }
    let hint = match path.iter().find(|o| exported(o, name)) {
        Some(other) => format!("Org {other} exports one of this name: set role.org"),
        None => suggest::among("Roles", name, world.roles_of(holder)),
    };
    Some(format!("Role {name:?} of Org {holder} is not there yet ({hint})"))
}

/// Labels that an obligation redacts by and no Tool that the Policy selects carries.
fn labels(spec: &PolicySpec, tools: &[std::sync::Arc<ToolFacts>]) -> Vec<String> {
    let selected = tools.iter().filter(|t| grant::selects_tool(spec.matches.as_ref(), t));
    let carried: BTreeSet<&str> = selected.flat_map(|t| &t.spec.output_labels).map(|l| l.label.as_str()).collect();
    let named = spec.obligations.iter().enumerate().filter_map(|(i, o)| Some((i, o.redact.as_ref()?)));
    named
        .flat_map(|(i, redact)| redact.labels.iter().enumerate().map(move |(j, label)| (i, j, label.as_str())))
        .filter(|(_, _, label)| !carried.contains(label))
        .map(|(i, j, label)| {
            let known = suggest::among("labels", label, carried.iter().copied());
            format!("spec.obligations[{i}].redact.labels[{j}]: no Tool that it selects has {label:?} in its outputLabels, so it redacts nothing; {known}")
        })
        .collect()
}

/// Labels that rules ask the history for and no Tool carries, and Tools that are not there.
fn asked(spec: &PolicySpec, tools: &[std::sync::Arc<ToolFacts>]) -> Vec<String> {
    let carried: BTreeSet<&str> = tools.iter().flat_map(|t| &t.spec.output_labels).map(|l| l.label.as_str()).collect();
    let compiled = CompiledPolicy::new(spec);
    let names: BTreeSet<&str> = tools.iter().map(|t| t.name.as_str()).collect();
    let reads = || compiled.rules.iter().enumerate().map(|(i, rule)| (i, &rule.program.reads));
    let called = reads().flat_map(|(i, reads)| reads.tools.iter().map(move |tool| (i, tool.as_str())));
    let missing = called.filter(|(_, tool)| !names.contains(tool)).map(|(i, tool)| {
        let known = suggest::among("Tools", tool, names.iter().copied());
        format!("spec.rules[{i}].expression: there is no Tool {tool:?}, so it is never in the history; {known}")
    });
    let labels = reads().flat_map(|(i, reads)| reads.labels.iter().map(move |label| (i, label.as_str())));
    labels
        .filter(|(_, label)| !carried.contains(label))
        .map(|(i, label)| {
            let known = suggest::among("labels", label, carried.iter().copied());
            format!("spec.rules[{i}].expression: no Tool has {label:?} in its outputLabels, so it is never in the history; {known}")
        })
        .chain(missing)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "JSON is written in place")]

    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(kind: &str, namespace: &str, name: &str, spec: Value) -> Arc<T> {
        let object =
            json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn found(org: &str, spec: Value) -> Vec<String> {
        let mut world = World::default();
        world.orgs.insert("port".into(), object("Org", "", "port", json!({})));
        world.orgs.insert("freight".into(), object("Org", "", "freight", json!({"parentRef": {"name": "port"}})));
        for (name, spec) in [("officer", json!({"export": "Descendants"})), ("auditor", json!({}))] {
            world.roles.insert(("port".into(), name.into()), object("Role", "port", name, spec));
        }
        world.roles.insert(("freight".into(), "clerk".into()), object("Role", "freight", "clerk", json!({})));
        let tool = json!({"runtime": {}, "outputLabels": [{"label": "personal"}]});
        world.tools.insert(("freight".into(), "crm".into()), object("Tool", "freight", "crm", tool));
        unknown_names(&serde_json::from_value(spec).unwrap(), org, &world)
    }

    fn asks(role: Value) -> Value {
        json!({"rules": [{"name": "r", "expression": "true", "effect": "RequireApproval", "approval": {"role": role}}]})
    }

    #[test]
    fn a_role_that_cannot_approve_is_said_with_what_would() {
        assert_eq!(found("freight", asks(json!({"name": "clerk"}))), Vec::<String>::new());
        assert_eq!(found("freight", asks(json!({"name": "officer", "org": "port"}))), Vec::<String>::new());
        for (role, want) in [
            (json!({"name": "officer"}), "Org port exports one of this name: set role.org"),
            (json!({"name": "clrek"}), "did you mean `clerk`?"),
            (json!({"name": "auditor", "org": "port"}), "does not say `export: Descendants`"),
            (json!({"name": "clerk", "org": "prot"}), "did you mean `port`?"),
        ] {
            let said = found("freight", asks(role));
            assert!(said.len() == 1 && said[0].starts_with("spec.rules[0].approval.role: ") && said[0].contains(want), "{want}: {said:?}");
        }
    }

    #[test]
    fn a_match_and_a_label_that_select_nothing_are_said() {
        let rules = json!([{"name": "r", "expression": "true", "effect": "Deny"}]);
        assert_eq!(
            found("port", json!({"match": {"units": ["freight", "port"], "roles": ["officer"]}, "rules": rules})),
            Vec::<String>::new()
        );
        assert_eq!(found("freight", json!({"match": {"units": ["port"]}, "rules": rules})), Vec::<String>::new());
        let said = found("port", json!({"match": {"units": ["frieght"], "orgs": ["sales"], "roles": ["oficer"]}, "rules": rules}));
        for (at, want) in ["spec.match.roles[0]: ", "spec.match.orgs[0]: ", "spec.match.units[0]: "].iter().enumerate() {
            assert!(said[at].starts_with(want), "{said:?}");
        }
        assert!(said.len() == 3 && said[2].contains("did you mean `freight`?"), "{said:?}");
        let redact = |label: &str| json!({"obligations": [{"name": "o", "redact": {"labels": [label]}}]});
        assert_eq!(found("freight", redact("personal")), Vec::<String>::new());
        let history =
            |tool: &str| json!({"rules": [{"name": "r", "expression": format!("history.tools['{tool}'] < 1"), "effect": "Deny"}]});
        assert_eq!(found("freight", history("crm")), Vec::<String>::new());
        let said = found("freight", history("crn"));
        assert!(said.len() == 1 && said[0].contains("there is no Tool \"crn\"") && said[0].contains("did you mean `crm`?"), "{said:?}");
        assert!(found("freight", redact("persnal"))[0].contains("redacts nothing; did you mean `personal`?"));
    }
}
