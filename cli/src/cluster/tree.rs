//! `tree`: the Orgs as they hang together, with what each has: state, namespace, quota, workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use anyhow::{Result, bail};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, ResourceExt, api::ListParams};
use polity_api::{Agent, AgentType, Org, conditions};

use super::{Cluster, worded};
use crate::{Verdict, args::TreeArgs, table};

/// Agents by namespace.
type Agents = BTreeMap<String, Vec<Agent>>;

pub async fn run(cluster: &Cluster, args: &TreeArgs, out: &mut dyn Write) -> Result<Verdict> {
    let orgs: Api<Org> = Api::all(cluster.client.clone());
    let orgs = orgs.list(&ListParams::default()).await.map_err(|e| worded(e, "cannot list Orgs"))?.items;
    let orgs: BTreeMap<String, Org> = orgs.into_iter().map(|org| (org.name_any(), org)).collect();
    let agents = agents(cluster, &orgs).await?;
    let starts: Vec<&str> = match &args.org {
        Some(org) if orgs.contains_key(org) => vec![org],
        Some(org) => bail!("there is no Org {org:?}"),
        None => orgs.iter().filter(|(_, org)| parent(org).is_none_or(|p| !orgs.contains_key(p))).map(|(name, _)| name.as_str()).collect(),
    };
    if orgs.is_empty() {
        writeln!(out, "There are no Orgs.")?;
        return Ok(Verdict::Good);
    }
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for start in starts {
        walk(start, "", "", &orgs, &agents, &mut seen, &mut rows);
    }
    // Parents in a circle hang from nothing; they are shown, so that somebody sees them.
    for name in orgs.keys().filter(|_| args.org.is_none()) {
        if !seen.contains(name.as_str()) {
            walk(name, "", "", &orgs, &agents, &mut seen, &mut rows);
        }
    }
    table::print(out, &["ORG", "READY", "NAMESPACE", "QUOTA", "AGENTS", "WORKERS"], &rows)?;
    Ok(Verdict::Good)
}

/// Agents everywhere, or where the user may look.
async fn agents(cluster: &Cluster, orgs: &BTreeMap<String, Org>) -> Result<Agents> {
    let everywhere: Api<Agent> = Api::all(cluster.client.clone());
    let mut found = Agents::new();
    match everywhere.list(&ListParams::default()).await {
        Ok(list) => {
            for agent in list.items {
                found.entry(agent.namespace().unwrap_or_default()).or_default().push(agent);
            }
            found.extend(
                orgs.values()
                    .map(|org| org.wanted_namespace().to_owned())
                    .filter(|ns| !found.contains_key(ns))
                    .map(|ns| (ns, Vec::new()))
                    .collect::<Vec<_>>(),
            );
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            for namespace in orgs.values().map(Org::wanted_namespace) {
                let api: Api<Agent> = Api::namespaced(cluster.client.clone(), namespace);
                match api.list(&ListParams::default()).await {
                    Ok(list) => drop(found.insert(namespace.to_owned(), list.items)),
                    Err(kube::Error::Api(status)) if status.code == 403 => {}
                    Err(e) => return Err(worded(e, "cannot list Agents")),
                }
            }
        }
        Err(e) => return Err(worded(e, "cannot list Agents")),
    }
    Ok(found)
}

fn parent(org: &Org) -> Option<&str> {
    org.spec.parent_ref.as_ref().map(|p| p.name.as_str())
}

fn walk<'a>(
    name: &'a str,
    lead: &str,
    below: &str,
    orgs: &'a BTreeMap<String, Org>,
    agents: &Agents,
    seen: &mut BTreeSet<&'a str>,
    rows: &mut Vec<Vec<String>>,
) {
    let Some(org) = orgs.get(name).filter(|_| seen.insert(name)) else { return };
    rows.push(row(&format!("{lead}{name}"), org, agents));
    let children: Vec<&str> = orgs.iter().filter(|(_, child)| parent(child) == Some(name)).map(|(child, _)| child.as_str()).collect();
    for (index, child) in children.iter().enumerate() {
        let last = index + 1 == children.len();
        let (lead, next) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        walk(child, &format!("{below}{lead}"), &format!("{below}{next}"), orgs, agents, seen, rows);
    }
}

fn row(name: &str, org: &Org, agents: &Agents) -> Vec<String> {
    let status = org.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == conditions::READY));
    let state = match ready {
        Some(ready) if ready.status == "True" && org.spec.suspend => "suspended".to_owned(),
        Some(ready) if ready.status == "True" => "True".to_owned(),
        Some(ready) => format!("{} ({})", ready.status, ready.reason),
        None => "Unknown".to_owned(),
    };
    let namespace = status.and_then(|s| s.namespace.as_ref()).map_or("-", |n| n.name.as_str());
    let quota = status.map(|s| quota(&s.quota)).unwrap_or_default();
    // Nothing known is not the same as none.
    let (count, workers) = match agents.get(org.wanted_namespace()) {
        None => ("?".to_owned(), "?".to_owned()),
        Some(list) => {
            let ai = || list.iter().filter(|a| a.spec.type_ == AgentType::AI);
            let wanted: i32 = ai().filter_map(|a| a.spec.replicas).sum();
            let ready: i32 = ai().filter_map(|a| a.status.as_ref()).map(|s| s.ready_replicas).sum();
            (list.len().to_string(), format!("{ready}/{wanted}"))
        }
    };
    vec![name.to_owned(), state, namespace.to_owned(), quota, count, workers]
}

fn quota(amounts: &BTreeMap<String, Quantity>) -> String {
    if amounts.is_empty() {
        return "-".to_owned();
    }
    amounts.iter().map(|(resource, amount)| format!("{resource}={}", amount.0)).collect::<Vec<_>>().join(" ")
}
