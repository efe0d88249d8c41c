//! What several tests do: users and their calls, refusals with what they must name, conditions, an AI agent that speaks to the gateway.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequestSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Pod,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use polity_api::{Approval, ToolCall, toolcall::Phase};
use polity_e2e::{apply, ledger, manifests, parts::Polity, shim, until};
use serde_json::{Value, json};

use crate::{calls::call, fixtures::SOON};

/// The API of a user in a namespace.
pub async fn of<K>(polity: &Polity, user: &str, namespace: &str) -> Result<Api<K>>
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Ok(Api::namespaced(polity.cluster.user(user, &[]).await?, namespace))
}

/// Calls as the fixture's `bot` makes them.
pub async fn bot(polity: &Polity, org: &str) -> Result<Api<ToolCall>> {
    of(polity, &format!("bot@{org}"), org).await
}

/// The answer must be a refusal of this code that names every part.
pub fn refused<T: Debug>(answer: Result<T, kube::Error>, code: u16, parts: &[&str]) -> Result<String> {
    let Err(kube::Error::Api(status)) = answer else { anyhow::bail!("not refused by the API server: {answer:?}") };
    for part in parts {
        ensure!(status.message.contains(part), "{part:?} is not in {:?}", status.message);
    }
    ensure!(status.code == code, "not {code}: {status:?}");
    Ok(status.message.clone())
}

/// A dry run of a call.
pub async fn tried(calls: &Api<ToolCall>, call: &ToolCall) -> Result<ToolCall, kube::Error> {
    calls.create(&PostParams { dry_run: true, ..PostParams::default() }, call).await
}

/// Waits until a call would be accepted.
pub async fn takes(calls: &Api<ToolCall>, call: &ToolCall) -> Result<()> {
    until(SOON, "the call would be accepted", || async { tried(calls, call).await.map(|_| ()).map_err(|e| e.to_string()) }).await
}

/// Waits until a call would be refused with this in the message.
pub async fn refuses(calls: &Api<ToolCall>, call: &ToolCall, part: &str) -> Result<()> {
    until(SOON, &format!("the call would be refused with {part:?}"), || async {
        match tried(calls, call).await {
            Err(kube::Error::Api(status)) if status.message.contains(part) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Creates a call and returns its name and uid.
pub async fn made(calls: &Api<ToolCall>, call: &ToolCall) -> Result<(String, String)> {
    let made = calls.create(&PostParams::default(), call).await?;
    Ok((made.name_any(), made.uid().context("uid")?))
}

/// A small call, allowed.
pub fn small() -> ToolCall {
    call(20, "ann")
}

/// Reason code of the decision in a call's status.
pub fn reason(call: &ToolCall) -> String {
    call.status.as_ref().and_then(|s| s.decision.as_ref()).map(|d| d.reason.clone()).unwrap_or_default()
}

/// Reason of a call's `Succeeded` condition.
pub fn said(call: &ToolCall) -> String {
    let list = call.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    list.iter().find(|c| c.type_ == "Succeeded").map(|c| c.reason.clone()).unwrap_or_default()
}

/// Waits until a call is in one of these phases.
pub async fn one_of(client: &Client, namespace: &str, name: &str, wanted: &[Phase]) -> Result<ToolCall> {
    let calls: Api<ToolCall> = Api::namespaced(client.clone(), namespace);
    until(SOON, &format!("call {name} is one of {wanted:?}"), || async {
        let call = calls.get(name).await.map_err(|e| e.to_string())?;
        let phase = call.status.as_ref().and_then(|s| s.phase);
        if phase.is_some_and(|p| wanted.contains(&p)) { Ok(call) } else { Err(format!("{:?}", call.status)) }
    })
    .await
}

/// Waits until a condition of an object has this reason; returns its message.
pub async fn condition(client: &Client, kind: &str, namespace: Option<&str>, name: &str, type_: &str, reason: &str) -> Result<String> {
    let api = manifests::api_of(client, &json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace}}))?;
    until(SOON, &format!("{kind} {name} says {type_}/{reason}"), || async {
        let object = api.get(name).await.map_err(|e| e.to_string())?;
        let list = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = list.iter().find(|c| c["type"] == type_ && c["reason"] == reason);
        found.map(|c| c["message"].as_str().unwrap_or_default().to_owned()).ok_or_else(|| Value::from(list).to_string())
    })
    .await
}

/// Merge-patches an object of ours as admin.
pub async fn patch(client: &Client, kind: &str, namespace: Option<&str>, name: &str, patch: Value) -> Result<Result<(), kube::Error>> {
    let api = manifests::api_of(client, &json!({"apiVersion": "polity.dev/v1alpha1", "kind": kind, "metadata": {"namespace": namespace}}))?;
    Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))
}

/// Waits until a user may do this in a namespace: members get their rights when core has seen the Org, and the API server has seen them
/// a moment later.
pub async fn may(client: &Client, user: &str, namespace: &str, verb: &str, resource: &str) -> Result<()> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(vec!["system:authenticated".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some("polity.dev".to_owned()),
                resource: Some(resource.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    until(SOON, &format!("{user} may {verb} {resource} in {namespace}"), || async {
        let answer = api.create(&PostParams::default(), &review).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if answer.allowed { Ok(()) } else { Err(answer.reason.unwrap_or_else(|| "no".to_owned())) }
    })
    .await
}

/// Adds a person's own decision; once more when core wrote the status at the same time.
pub async fn decides(polity: &Polity, namespace: &str, approval: &str, user: &str, answer: &str) -> Result<Result<Approval, kube::Error>> {
    let api: Api<Approval> = of(polity, user, namespace).await?;
    let seen = Api::<Approval>::namespaced(polity.cluster.admin().await?, namespace);
    until(SOON, "no conflict", || async {
        let before = seen.get(approval).await.map_err(|e| e.to_string())?;
        let mut decisions = json!(before.spec.decisions);
        if let Some(list) = decisions.as_array_mut() {
            list.push(json!({"by": user, "decision": answer}));
        }
        let patch = json!({"metadata": {"resourceVersion": before.resource_version()}, "spec": {"decisions": decisions}});
        match api.patch(approval, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Err(status.message),
            answer => Ok(answer),
        }
    })
    .await
}

/// Lines of the ledger about one action, or all of an Org's.
pub fn lines(polity: &Polity, org_uid: &str, action: Option<&str>) -> Result<Vec<Value>> {
    let lines = ledger::records(&polity.dir.join("data"), org_uid)?
        .iter()
        .map(|r| serde_json::from_str(&r.to_line()))
        .collect::<Result<Vec<Value>, _>>()?;
    Ok(lines.into_iter().filter(|l| action.is_none_or(|a| l["action"] == a)).collect())
}

/// Kinds of these lines.
pub fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|l| l["kind"].as_str()).collect()
}

/// An AI agent with a token as its worker Pod has it.
pub struct Robot {
    /// Its token.
    pub token: String,
    /// Its worker Pod.
    pub pod: Pod,
    base: String,
    http: reqwest::Client,
}

/// Adds the AI agent `robot` to the fixture's Role `payer` and waits until it may act.
pub async fn robot(polity: &Polity, org: &str) -> Result<Robot> {
    let client = polity.cluster.admin().await?;
    let yaml = format!(
        "
apiVersion: polity.dev/v1alpha1
kind: Agent
metadata: {{name: robot, namespace: {org}}}
spec: {{type: AI, image: docker.io/polity/polity:dev, command: [/worker], replicas: 1}}
"
    );
    apply(&client, &yaml).await?;
    patch(&client, "Role", Some(org), "payer", json!({"spec": {"assignment": {"agents": ["bot", "robot"]}}})).await??;
    let pods: Api<Pod> = Api::namespaced(client.clone(), org);
    let workers = ListParams::default().labels("polity.dev/kind=Agent,polity.dev/name=robot");
    let pod = until(SOON, "the worker's Pod", || async {
        pods.list(&workers).await.map_err(|e| e.to_string())?.items.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await?;
    let token = token(polity, org, "polity-agent-robot", &pod, "polity").await?;
    let robot = Robot { token, pod, base: polity.gateway(), http: shim::client()? };
    until(SOON, "the robot may act", || async {
        let probe = json!({"tool": "pay", "input": {"amount": 1, "to": "mallory"}});
        let (_, body) = robot.call(org, probe).await.map_err(|e| e.to_string())?;
        if body["reason"] == "PolicyDenied" { Ok(()) } else { Err(body.to_string()) }
    })
    .await?;
    Ok(robot)
}

/// A token of an account, bound to a Pod.
pub async fn token(polity: &Polity, namespace: &str, account: &str, pod: &Pod, audience: &str) -> Result<String> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    };
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], bound_object_ref: Some(bound), expiration_seconds: Some(600) };
    polity.cluster.token(namespace, account, spec).await
}

impl Robot {
    /// The same agent, asking another edge.
    pub fn at(&self, base: String) -> Self {
        Self { token: self.token.clone(), pod: self.pod.clone(), base, http: self.http.clone() }
    }

    /// Asks for a call.
    pub async fn call(&self, org: &str, body: Value) -> Result<(u16, Value)> {
        self.call_with(org, body, Some(&self.token)).await
    }

    /// Asks for a call with another token, or none.
    pub async fn call_with(&self, org: &str, body: Value, token: Option<&str>) -> Result<(u16, Value)> {
        let mut request = self.http.post(format!("{}/v1/orgs/{org}/calls", self.base)).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answer(request).await
    }

    /// Asks what would be decided.
    pub async fn evaluate(&self, org: &str, body: Value) -> Result<(u16, Value)> {
        answer(self.http.post(format!("{}/v1/orgs/{org}/evaluate", self.base)).json(&body).bearer_auth(&self.token)).await
    }

    /// Sends a body as it is.
    pub async fn raw(&self, org: &str, kind: &str, body: Vec<u8>) -> Result<(u16, Value)> {
        let request = self.http.post(format!("{}/v1/orgs/{org}/calls", self.base)).header("content-type", kind).body(body);
        answer(request.bearer_auth(&self.token)).await
    }

    /// Reads a call, waiting for its end.
    pub async fn read(&self, org: &str, id: &str, wait: Duration) -> Result<(u16, Value)> {
        let url = format!("{}/v1/orgs/{org}/calls/{id}?waitSeconds={}", self.base, wait.as_secs());
        answer(self.http.get(url).bearer_auth(&self.token)).await
    }

    /// Cancels a call.
    pub async fn cancel(&self, org: &str, id: &str) -> Result<(u16, Value)> {
        answer(self.http.post(format!("{}/v1/orgs/{org}/calls/{id}/cancel", self.base)).bearer_auth(&self.token)).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Value)> {
    let answer = request.send().await?;
    let code = answer.status().as_u16();
    let text = answer.text().await?;
    Ok((code, serde_json::from_str(&text).with_context(|| format!("{code}: not JSON: {text}"))?))
}

/// How often each phase occurs among calls.
pub fn tally(calls: &[ToolCall]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for call in calls {
        *tally.entry(format!("{:?}", call.status.as_ref().and_then(|s| s.phase))).or_default() += 1;
    }
    tally
}
