//! Tool: schemas that compile, addresses that may be named, and only Secrets that its author may read himself.
//!
//! Every change of the spec counts as authorship: who changes the image of a Tool with a Secret could read that Secret.

use polity_api::{
    Org, Tool, ToolSpec,
    money::parse_usd,
    reasons,
    tool::{Container, Endpoint, Mcp, Runtime},
};
use polity_policy::{CompiledTool, compile_schema, output_label_problems, tool_facts};
use polity_upstream::looks;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::{
    address::{check_cidr, check_url},
    outcome::{Outcome, Problems, Refusal, Warnings},
    review::Request,
    state::{Permission, State},
    tree,
};

pub(super) async fn check(state: &State, request: &Request<'_>, spec: &ToolSpec) -> Outcome {
    let mut warnings = Warnings::default();
    if tree::org_of(&state.views.world(), request.namespace()).is_none() {
        super::warn_no_org(&mut warnings, request.namespace());
    }
    let name = request.name.as_str();
    let namespace = request.namespace().to_owned();
    let beside: Vec<String> = state.views.world().tools.keys().filter(|(ns, _)| *ns == namespace).map(|(_, name)| name.clone()).collect();
    for what in looks::suspicions(name, spec, &beside) {
        warnings.push(&format!("looks suspicious: {what}"));
    }
    let accepted = check_spec(spec, warnings)?;
    for (field, secret) in secrets(spec) {
        let permission =
            Permission { verb: "get", group: "", resource: "secrets", namespace: request.namespace().to_owned(), name: secret.to_owned() };
        if !state.cluster.may(&request.user_info, &permission).await? {
            let message = format!(
                "{:?} may not read Secret {secret:?} in namespace {:?}, so a Tool of his may not use it",
                request.username(),
                request.namespace()
            );
            return Err(Refusal::forbidden(reasons::SECRET_NOT_READABLE, message.clone()).cause(
                reasons::SECRET_NOT_READABLE,
                field,
                message,
            ));
        }
    }
    Ok(accepted)
}

/// What needs no cluster.
fn check_spec(spec: &ToolSpec, mut warnings: Warnings) -> Outcome {
    let mut problems = Problems::default();
    schemas(spec, &mut problems);
    if let Some(of) = spec.input_schema.as_ref().and_then(|s| s.get("type"))
        && *of != "object"
    {
        problems.add("spec.inputSchema.type", format!("is {of}, but an input is always an object"));
    }
    if let Some(Err(e)) = spec.price.as_ref().map(|p| parse_usd(&p.usd)) {
        problems.add("spec.price.usd", e.to_string());
    }
    if spec.runtime.name().is_none() {
        problems.add("spec.runtime", "has exactly one of container, http and mcp");
    }
    if let Some(container) = &spec.runtime.container {
        check_container(container, &mut problems);
    }
    if let Some((runtime, endpoint)) = spec.runtime.endpoint() {
        check_endpoint(&format!("spec.runtime.{runtime}"), &endpoint, &mut problems, &mut warnings);
    }
    if let Some(mcp) = &spec.runtime.mcp {
        check_mcp(mcp, &mut problems, &mut warnings);
        if let Some(why) = looks::broken(spec) {
            problems.add("spec.runtime.mcp.digest", why);
        }
        for what in looks::differences(spec) {
            warnings.push(&format!("spec.inputSchema: {what}"));
        }
    }
    problems.outcome(warnings)
}

/// The schemas, by the very function by which decisions and controllers read them: nothing is fetched, patterns are linear.
fn schemas(spec: &ToolSpec, problems: &mut Problems) {
    // What else makes a Tool unusable, e.g. a pin that is missing, is said elsewhere.
    let alone = Tool::new("", ToolSpec { price: None, runtime: Runtime::default(), ..spec.clone() });
    let facts = tool_facts(&Org::default(), &alone);
    let labels = output_label_problems(&facts);
    if labels.is_empty()
        && let Some(e) = CompiledTool::new(&facts).broken
    {
        problems.add("spec.inputSchema", e);
    }
    for (field, e) in labels {
        problems.add(field, e);
    }
    if let Some(schema) = &spec.output_schema
        && let Err(e) = compile_schema(&Value::Object(schema.clone()))
    {
        problems.add("spec.outputSchema", e);
    }
}

fn check_container(container: &Container, problems: &mut Problems) {
    for (index, egress) in container.egress.iter().enumerate() {
        if let Err(e) = check_cidr(&egress.cidr) {
            problems.because(reasons::EGRESS_REFUSED, format!("spec.runtime.container.egress[{index}].cidr"), e);
        }
    }
    for (index, secret) in container.secrets.iter().enumerate() {
        if container.secrets[..index].contains(secret) {
            problems.add(format!("spec.runtime.container.secrets[{index}]"), format!("{:?} is there twice", secret.name));
        }
    }
}

/// Headers that the HTTP client sets itself; a Tool must not.
const OWN_HEADERS: [&str; 8] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"];
/// Headers that carry credentials.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// What only `mcp` has.
fn check_mcp(mcp: &Mcp, problems: &mut Problems, warnings: &mut Warnings) {
    if mcp.digest.is_some() != mcp.definition.is_some() {
        problems.add("spec.runtime.mcp", "digest and definition are pinned together: kubectl polity tool pin");
    }
    if mcp.digest.is_none() {
        warnings
            .push("spec.runtime.mcp: every call is denied until the definition is pinned; kubectl polity tool pin prints what to write");
    }
    let names = mcp.headers.iter().map(|h| &h.name).chain(mcp.secret_headers.iter().map(|h| &h.name));
    for name in names
        .filter(|n| n.to_ascii_lowercase().starts_with("mcp-") || ["accept", "content-type"].contains(&n.to_ascii_lowercase().as_str()))
    {
        problems.add("spec.runtime.mcp.headers", format!("{name} is set by Polity"));
    }
}

fn check_endpoint(base: &str, http: &Endpoint<'_>, problems: &mut Problems, warnings: &mut Warnings) {
    if let Some(url) = http.url
        && let Err(e) = check_url(url)
    {
        problems.because(reasons::EGRESS_REFUSED, format!("{base}.url"), e);
    }
    let plain = http.headers.iter().enumerate().map(|(i, h)| (format!("{base}.headers[{i}]"), &h.name, Some(&h.value)));
    let secret = http.secret_headers.iter().enumerate().map(|(i, h)| (format!("{base}.secretHeaders[{i}]"), &h.name, None));
    let mut seen: Vec<String> = Vec::new();
    for (field, name, value) in plain.chain(secret) {
        let lower = name.to_ascii_lowercase();
        if OWN_HEADERS.contains(&lower.as_str()) {
            problems.add(&field, format!("{name} is set by Polity"));
        }
        if value.is_some_and(|v| v.bytes().any(|b| b == b'\r' || b == b'\n' || b == 0)) {
            problems.add(&field, "a header value is one line");
        }
        if value.is_some() && CREDENTIALS.contains(&lower.as_str()) {
            warnings.push(&format!("{field}: {name} in plain text can be read by all who may read the Tool; use secretHeaders"));
        }
        if seen.contains(&lower) {
            problems.add(&field, format!("{name} is there twice"));
        }
        seen.push(lower);
    }
    if let Some(bundle) = http.ca_bundle {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect();
        if certificates.map_or(true, |list| list.is_empty()) {
            problems.add(format!("{base}.caBundle"), "is not PEM with at least one certificate");
        }
    }
    if http.url.as_ref().is_some_and(|u| u.starts_with("http://")) {
        warnings.push(&format!("{base}.url: inputs and results travel unencrypted"));
    }
}

/// Every Secret that the Tool uses, with the field that names it.
fn secrets(spec: &ToolSpec) -> Vec<(String, &str)> {
    let mounted = spec.runtime.container.iter().flat_map(|c| c.secrets.iter().enumerate());
    let mut all: Vec<(String, &str)> = mounted.map(|(i, s)| (format!("spec.runtime.container.secrets[{i}]"), s.name.as_str())).collect();
    if let Some((runtime, endpoint)) = spec.runtime.endpoint() {
        for (i, header) in endpoint.secret_headers.iter().enumerate() {
            if !all.iter().any(|(_, name)| *name == header.secret) {
                all.push((format!("spec.runtime.{runtime}.secretHeaders[{i}].secret"), &header.secret));
            }
        }
    }
    all
}
