//! Resources: what a caller can read of its own calls, for clients that speak nothing but MCP. The same right as `GET calls/ID`: one's own and nothing of
//! anybody else. Reading changes nothing, waits for nothing, and shows of a result only what was delivered.

use std::time::Duration;

use polity_api::{Approval, Caller, approval::ApprovalPhase, reasons};
use rmcp::{
    ErrorData,
    model::{
        CacheScope, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate,
    },
};
use serde_json::{Value, json};

use crate::{answer::Answer, decide::busy, id, problem::Problem, state::Gateway};

use super::result;

/// Media type of all of them.
const JSON: &str = "application/json";
/// Most entries of a list.
const MOST: usize = 200;

/// A resource.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    /// Calls that wait or run as objects.
    Calls,
    /// One call.
    Call(&'a str),
    /// Approvals that calls wait for.
    Approvals,
}

impl<'a> Named<'a> {
    fn of(uri: &'a str, org: &str) -> Option<Self> {
        match uri.strip_prefix("polity://")?.strip_prefix(org)?.strip_prefix('/')? {
            "calls" => Some(Self::Calls),
            "approvals" => Some(Self::Approvals),
            rest => rest.strip_prefix("calls/").filter(|id| !id.is_empty() && !id.contains('/')).map(Self::Call),
        }
    }
}

/// The resources of an Org, the same for each of its agents.
pub fn list(org: &str) -> ListResourcesResult {
    let resource = |what: &str, title: &str, description: &str| {
        let uri = format!("polity://{org}/{what}");
        Resource::new(uri, what).with_title(title).with_description(description).with_mime_type(JSON)
    };
    ListResourcesResult::with_all_items(vec![
        resource("calls", "My calls", "Your calls that wait for people, or run since people have allowed them."),
        resource("approvals", "My approvals", "What your calls wait for: who is asked, what is met, and until when."),
    ])
    .with_ttl_ms(0)
    .with_cache_scope(CacheScope::Private)
}

/// The templates of an Org.
pub fn templates(org: &str) -> ListResourceTemplatesResult {
    let call = ResourceTemplate::new(format!("polity://{org}/calls/{{id}}"), "call")
        .with_title("One of my calls")
        .with_description("State and result of a call of yours, by its id or name.")
        .with_mime_type(JSON);
    ListResourceTemplatesResult::with_all_items(vec![call]).with_ttl_ms(0).with_cache_scope(CacheScope::Private)
}

/// Reads one.
///
/// # Errors
/// There is none of that name, or it cannot be read now.
pub async fn read(gateway: &Gateway, org: &str, caller: &Caller, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let unknown = || ErrorData::resource_not_found(format!("there is no resource {uri}, or it is not yours"), Some(json!({"uri": uri})));
    let named = Named::of(uri, org).ok_or_else(unknown)?;
    let refused = |problem: Problem| if problem.reason() == reasons::NOT_FOUND { unknown() } else { result::refusal(&problem) };
    let _slot = gateway.wait_slots.try_acquire().map_err(|_| refused(busy()))?;
    let view = gateway.view(org).map_err(refused)?;
    let told = match named {
        Named::Calls => calls(gateway, view.namespace(), caller),
        Named::Approvals => approvals(gateway, view.namespace(), caller),
        Named::Call(id) => {
            let answer = if id::belongs(id, view.org_uid(), &caller.username) {
                let attempt = gateway.core.attempt(view.org_uid(), id, Duration::ZERO).await.map_err(|e| refused(e.into()))?;
                attempt.map(|a| Answer::of_attempt(&a))
            } else {
                gateway.own_call(view.namespace(), id, caller).await.map_err(refused)?.map(|c| Answer::of_call(&c))
            };
            json!(answer.ok_or_else(unknown)?)
        }
    };
    let contents = vec![ResourceContents::text(told.to_string(), uri).with_mime_type(JSON)];
    Ok(ReadResourceResult::new(contents).with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

fn calls(gateway: &Gateway, namespace: &str, caller: &Caller) -> Value {
    let all = gateway.calls.in_namespace(namespace);
    let own = all.iter().filter(|c| c.spec.caller.as_ref().is_some_and(|c| c.username == caller.username));
    let mut open: Vec<Value> = own
        .map(|call| (Answer::of_call(call), &call.spec.tool.name))
        .filter(|(answer, _)| !answer.phase.ended())
        .map(|(answer, tool)| {
            let mut told = json!(answer);
            told["tool"] = json!(tool);
            told
        })
        .take(MOST + 1)
        .collect();
    let more = open.len() > MOST;
    open.truncate(MOST);
    json!({"calls": open, "more": more})
}

fn approvals(gateway: &Gateway, namespace: &str, caller: &Caller) -> Value {
    let all = gateway.approvals.in_namespace(namespace);
    let waits = |a: &Approval| a.status.as_ref().and_then(|s| s.phase).is_none_or(|phase| phase == ApprovalPhase::Pending);
    let own = all.iter().filter(|a| a.spec.requester.username == caller.username && waits(a));
    let mut open: Vec<Value> = own.take(MOST + 1).map(|a| shown(a)).collect();
    let more = open.len() > MOST;
    open.truncate(MOST);
    json!({"approvals": open, "more": more})
}

/// An Approval as its requester sees it: who is asked, not who has said what.
fn shown(approval: &Approval) -> Value {
    let met = approval.status.as_ref().map(|s| s.requirements.as_slice()).unwrap_or_default();
    let requirements: Vec<Value> = approval
        .spec
        .requirements
        .iter()
        .map(|r| {
            let met = met.iter().any(|p| p.rule == r.rule && p.met);
            json!({"rule": r.rule, "asks": r.asked(), "message": r.message, "met": met})
        })
        .collect();
    json!({
        "name": approval.metadata.name, "call": approval.spec.action.call, "verb": approval.spec.action.verb,
        "target": approval.spec.action.target.name, "expiresAt": approval.spec.expires_at, "requirements": requirements,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_one_org() {
        for (uri, named) in [
            ("polity://acme/calls", Some(Named::Calls)),
            ("polity://acme/approvals", Some(Named::Approvals)),
            ("polity://acme/calls/call-1", Some(Named::Call("call-1"))),
            ("polity://acme/calls/", None),
            ("polity://acme/calls/a/b", None),
            ("polity://acme", None),
            ("polity://acmes/calls", None),
            ("polity://other/calls", None),
            ("https://acme/calls", None),
            ("", None),
        ] {
            assert_eq!(Named::of(uri, "acme"), named, "{uri}");
        }
    }

    #[test]
    fn everything_that_is_offered_can_be_named() {
        let listed = serde_json::to_value(list("acme")).unwrap();
        let uris: Vec<&str> = listed["resources"].as_array().unwrap().iter().map(|r| r["uri"].as_str().unwrap()).collect();
        assert!(uris.len() == 2 && uris.iter().all(|uri| Named::of(uri, "acme").is_some()), "{listed}");
        let templates = serde_json::to_value(templates("acme")).unwrap();
        let template = templates["resourceTemplates"][0]["uriTemplate"].as_str().unwrap().replace("{id}", "x");
        assert_eq!(Named::of(&template, "acme"), Some(Named::Call("x")));
    }
}
