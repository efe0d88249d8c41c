//! Policy, Tool, Org, Role, Agent: what can never be right is refused with every reason; what is not right yet is a warning.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)] // a helper that fails fails its test; `json!` values read best by value

mod common;

use std::sync::Arc;

use common::{ALICE, Ask, BOT, CORE, Fixture, accepted, object, refused};
use polity_api::reasons;
use serde_json::{Value, json};

async fn create(object: Value) -> Value {
    Ask::create("author", object).admit(&Arc::new(Fixture::default())).await
}

#[track_caller]
fn mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn policy(rules: Value) -> Value {
    object("Policy", "finance", "p", json!({"match": {"tools": ["payments-*"]}, "rules": rules}))
}

#[tokio::test]
async fn policies() {
    let rule = |name: &str, expression: &str| json!({"name": name, "expression": expression, "effect": "Deny"});
    assert_eq!(accepted(&create(policy(json!([rule("a", "args.amount <= 5")]))).await), Vec::<String>::new());
    let typo = create(policy(json!([rule("a", "!has(args.amuont) || args.amount <= 5")]))).await;
    mentions(refused(&typo, 422, reasons::POLICY_INVALID), &["spec.rules[0].expression", "rule a, line 1 column", "amuont", "amount"]);
    let response = create(policy(json!([rule("a", "caller.usrname == 'x'"), rule("b", "1 +")]))).await;
    let message = refused(&response, 422, reasons::POLICY_INVALID);
    mentions(message, &["spec.rules[0].expression", "usrname", "username", "spec.rules[1].expression", "rule b"]);
    assert_eq!(response["status"]["details"]["causes"].as_array().unwrap().len(), 2);
    let twice = create(policy(json!([rule("a", "true"), rule("a", "true")]))).await;
    mentions(refused(&twice, 422, reasons::INVALID_DEFINITION), &["twice"]);

    let mut early =
        policy(json!([{"name": "a", "expression": "args.x <= 5", "effect": "RequireApproval", "approval": {"role": {"name": "boss"}}}]));
    early["spec"]["match"] = json!({"tools": ["later-*"]});
    let warnings = accepted(&create(early).await).join("\n");
    mentions(&warnings, &["no Tool", "\"boss\""]);

    // Rules that are right and have no effect are stored, with a warning that says why.
    let idle = create(policy(json!([rule("a", "1 < 2"), rule("b", "args.amount <= 9"), rule("c", "args.amount <= 5")]))).await;
    let warnings = accepted(&idle);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    mentions(&warnings[0], &["rule a: is true for every input"]);
    mentions(&warnings[1], &["rule b: can never have an effect: rule c demands more"]);

    // Rules that spend the budget of a decision whatever they are given are refused.
    let list = vec!["0"; 100].join(",");
    let nested = (0..3).fold("true".to_owned(), |body, d| format!("[{list}].exists_one(x{d}, {body})"));
    let over = create(policy(json!([rule("a", &nested)]))).await;
    mentions(refused(&over, 422, reasons::POLICY_INVALID), &["take at least", "steps", "1000000"]);

    // A change of metadata only is not looked at, even of a broken one.
    let broken = policy(json!([rule("a", "1 +")]));
    let mut labelled = broken.clone();
    labelled["metadata"]["finalizers"] = json!([]);
    accepted(&Ask::update(ALICE, broken, labelled).admit(&Arc::new(Fixture::default())).await);
}

fn container(extra: Value) -> Value {
    let mut container = json!({"image": "x", "command": ["x"]});
    container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object("Tool", "finance", "t", json!({"runtime": {"container": container}}))
}

fn http(extra: Value) -> Value {
    object("Tool", "finance", "t", json!({"runtime": {"http": extra}}))
}

#[tokio::test]
async fn tools() {
    assert_eq!(accepted(&create(container(json!({"egress": [{"cidr": "203.0.113.0/24", "ports": [443]}]}))).await), Vec::<String>::new());
    assert_eq!(accepted(&create(http(json!({"url": "https://api.example.com/v1"}))).await), Vec::<String>::new());
    assert_eq!(accepted(&create(http(json!({"service": {"name": "s", "port": 80}}))).await), Vec::<String>::new());
    for (schema, part) in [
        (json!({"type": "nonsense"}), "inputSchema"),
        (json!({"type": "string"}), "always an object"),
        (json!({"$ref": "https://example.com/x"}), "inputSchema"),
    ] {
        let mut tool = container(json!({}));
        tool["spec"]["inputSchema"] = schema;
        mentions(refused(&create(tool).await, 422, reasons::INVALID_DEFINITION), &[part]);
    }
    let mut tool = container(json!({}));
    tool["spec"]["outputSchema"] = json!({"minimum": "x"});
    tool["spec"]["price"] = json!({"usd": "0.0000001"});
    mentions(refused(&create(tool).await, 422, reasons::INVALID_DEFINITION), &["outputSchema", "spec.price.usd"]);
    let mut labelled = container(json!({}));
    labelled["spec"]["outputSchema"] = json!({"type": "object", "properties": {"iban": {"type": "string"}}});
    labelled["spec"]["outputLabels"] = json!([{"label": "personal", "paths": ["iban"]}, {"label": "all"}]);
    assert_eq!(accepted(&create(labelled.clone()).await), Vec::<String>::new());
    labelled["spec"]["outputLabels"] = json!([{"label": "personal", "paths": ["ibna"]}]);
    mentions(refused(&create(labelled).await, 422, reasons::INVALID_DEFINITION), &["outputLabels[0].paths[0]", "did you mean `iban`?"]);
    for cidr in ["127.0.0.0/8", "169.254.169.254/32", "nonsense"] {
        let response = create(container(json!({"egress": [{"cidr": cidr, "ports": [80]}]}))).await;
        mentions(refused(&response, 422, reasons::EGRESS_REFUSED), &["egress[0].cidr", cidr]);
    }
    for url in ["http://169.254.169.254/latest", "https://kubernetes.default.svc/", "http://localhost:1/"] {
        mentions(refused(&create(http(json!({"url": url}))).await, 422, reasons::EGRESS_REFUSED), &["runtime.http.url"]);
    }
    let headers = json!([{"name": "Host", "value": "x"}, {"name": "X-A", "value": "a\r\nb: c"}, {"name": "x-a", "value": ""}]);
    let response = create(http(json!({"url": "https://example.com", "headers": headers, "caBundle": "no"}))).await;
    mentions(
        refused(&response, 422, reasons::INVALID_DEFINITION),
        &["Host is set by Polity", "one line", "x-a is there twice", "caBundle"],
    );
    let plain = create(http(json!({"url": "https://example.com", "headers": [{"name": "Authorization", "value": "x"}]}))).await;
    mentions(&accepted(&plain).join(""), &["secretHeaders"]);
    let both = object("Tool", "finance", "t", json!({"runtime": {}}));
    mentions(refused(&create(both).await, 422, reasons::INVALID_DEFINITION), &["exactly one"]);
}

fn mcp(listed: &Value, extra: Value) -> Value {
    let definition = polity_upstream::Definition::of(listed).unwrap();
    let mut mcp =
        json!({"url": "https://mail.example.com/mcp", "tool": "send", "digest": definition.digest(), "definition": definition.text()});
    mcp.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object(
        "Tool",
        "finance",
        "t",
        json!({"inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}}, "runtime": {"mcp": mcp}}),
    )
}

#[tokio::test]
async fn mcp_tools() {
    let plain =
        json!({"name": "send", "description": "Sends.", "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}}});
    assert_eq!(accepted(&create(mcp(&plain, json!({}))).await), Vec::<String>::new());
    for (extra, part) in [
        (json!({"digest": "0".repeat(64)}), "not that of the pinned definition"),
        (json!({"definition": "{"}), "JSON object"),
        (json!({"tool": "other"}), "is of \"send\""),
        (json!({"headers": [{"name": "Mcp-Session-Id", "value": "x"}]}), "set by Polity"),
        (json!({"headers": [{"name": "Host", "value": "x"}]}), "runtime.mcp.headers[0]"),
    ] {
        mentions(refused(&create(mcp(&plain, extra)).await, 422, reasons::INVALID_DEFINITION), &[part]);
    }
    let inside = create(mcp(&plain, json!({"url": "http://169.254.169.254/mcp"}))).await;
    mentions(refused(&inside, 422, reasons::EGRESS_REFUSED), &["runtime.mcp.url"]);
    let unpinned = object("Tool", "finance", "t", json!({"runtime": {"mcp": {"url": "https://mail.example.com/mcp", "tool": "send"}}}));
    mentions(&accepted(&create(unpinned).await).join(""), &["every call is denied", "kubectl polity tool pin"]);
    let hidden = json!({"name": "send", "description": "Sends.\u{200b}<!-- x -->", "inputSchema": {"type": "object", "required": ["cc"]}});
    mentions(
        &accepted(&create(mcp(&hidden, json!({}))).await).join("\n"),
        &["looks suspicious: description", "U+200B", "HTML comment", "requires \"cc\""],
    );
    let header = json!({"secretHeaders": [{"name": "Authorization", "secret": "yours", "key": "k"}]});
    let response = Ask::create("author", mcp(&plain, header)).admit(&Arc::new(Fixture::default())).await;
    mentions(refused(&response, 403, reasons::SECRET_NOT_READABLE), &["\"yours\""]);
}

#[tokio::test]
async fn a_secret_needs_its_authors_right() {
    let may = vec![("author".to_owned(), "get".to_owned(), "mine".to_owned())];
    let fixture = Arc::new(Fixture { may, ..Fixture::default() });
    let tool = |secrets: &[&str]| container(json!({"secrets": secrets.iter().map(|s| json!({"name": s})).collect::<Vec<_>>()}));
    accepted(&Ask::create("author", tool(&["mine"])).admit(&fixture).await);
    let asked = fixture.asked.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.verb, asked.group, asked.resource, asked.namespace.as_str(), asked.name.as_str()),
        ("get", "", "secrets", "finance", "mine")
    );
    let response = Ask::create("author", tool(&["mine", "yours"])).admit(&fixture).await;
    mentions(refused(&response, 403, reasons::SECRET_NOT_READABLE), &["\"yours\""]);
    let header = json!({"url": "https://example.com", "secretHeaders": [{"name": "Authorization", "secret": "yours", "key": "k"}]});
    refused(&Ask::create("author", http(header)).admit(&fixture).await, 403, reasons::SECRET_NOT_READABLE);
    // Who changes only the image is its author from then on.
    let mut changed = tool(&["mine"]);
    changed["spec"]["runtime"]["container"]["image"] = json!("other");
    refused(&Ask::update("eve", tool(&["mine"]), changed).admit(&fixture).await, 403, reasons::SECRET_NOT_READABLE);
    accepted(&Ask::update("eve", tool(&["mine"]), tool(&["mine"])).admit(&fixture).await);
}

fn org(name: &str, spec: Value) -> Value {
    object("Org", "", name, spec)
}

#[tokio::test]
async fn orgs() {
    let good = json!({
        "parentRef": {"name": "acme"}, "members": [{"kind": "User", "name": ALICE, "role": "admin"}, {"kind": "User", "name": ALICE, "role": "auditor"}],
        "budget": [{"window": "24h", "usd": "12.50"}],
        "quota": {"hard": {"requests.cpu": "4", "count/toolcalls.polity.dev": "5"}, "containerLimits": {"cpu": "1"}, "containerRequests": {"cpu": "500m"}},
    });
    assert_eq!(accepted(&create(org("sales", good)).await), Vec::<String>::new());
    for namespace in ["kube-system", "default", "polity-system", "finance"] {
        refused(&create(org("sales", json!({"namespace": namespace}))).await, 422, reasons::NAMESPACE_REFUSED);
    }
    refused(&create(org("default", json!({}))).await, 422, reasons::NAMESPACE_REFUSED);
    let bad = json!({
        "members": [{"kind": "User", "name": "a", "role": "admin"}, {"kind": "User", "name": "a", "role": "admin"}, {"kind": "Group", "name": "system:masters", "role": "admin"}],
        "budget": [{"window": "1w", "calls": -1}, {"window": "1h", "usd": "1e3"}],
        "quota": {"hard": {"cpus": "4", "pods": "4x"}, "containerLimits": {"cpu": "1", "pods": "1"}, "containerRequests": {"cpu": "2"}},
    });
    let parts = [
        "spec.members[1]",
        "system:masters",
        "spec.budget[0].window",
        "spec.budget[0].calls",
        "spec.budget[1].usd",
        "spec.quota.hard[cpus]",
        "spec.quota.hard[pods]",
        "spec.quota.containerLimits[pods]",
        "spec.quota.containerRequests[cpu]",
    ];
    mentions(refused(&create(org("sales", bad)).await, 422, reasons::INVALID_DEFINITION), &parts);
    mentions(&accepted(&create(org("sales", json!({"parentRef": {"name": "later"}}))).await).join(""), &["\"later\" is not there yet"]);
}

#[tokio::test]
async fn parents_form_no_circle() {
    refused(&create(org("sales", json!({"parentRef": {"name": "sales"}}))).await, 422, reasons::ANCESTRY_BROKEN);
    let mut fixture = Fixture::default();
    let orphan: polity_api::Org = serde_json::from_value(org("orphan", json!({"parentRef": {"name": "sales"}}))).unwrap();
    fixture.world.get_mut().unwrap().orgs.insert("orphan".to_owned(), Arc::new(orphan));
    let closing = Ask::create("author", org("sales", json!({"parentRef": {"name": "orphan"}})));
    refused(&closing.admit(&Arc::new(fixture)).await, 422, reasons::ANCESTRY_BROKEN);
}

#[tokio::test]
async fn an_existing_namespace_needs_its_own_consent() {
    let mut fixture = Fixture::default();
    fixture.world.get_mut().unwrap().namespaces.insert("theirs".to_owned(), polity_policy::NamespaceFacts::default());
    let warnings = accepted(&Ask::create("author", org("sales", json!({"namespace": "theirs"}))).admit(&Arc::new(fixture)).await);
    mentions(&warnings.join(""), &["polity.dev/org: sales"]);
}

#[tokio::test]
async fn roles() {
    let role = |name: &str, spec: Value| object("Role", "finance", name, spec);
    let good =
        json!({"grants": [{"tools": ["payments-*"]}], "reportsTo": {"org": "acme", "name": "cfo"}, "assignment": {"agents": ["alice"]}});
    assert_eq!(accepted(&create(role("lead", good)).await), Vec::<String>::new());
    let bad = json!({"grants": [{"tools": ["Payments", "a[b]"]}], "assignment": {"agents": ["alice", "alice"]}});
    mentions(refused(&create(role("lead", bad)).await, 422, reasons::INVALID_DEFINITION), &["\"Payments\"", "\"a[b]\"", "twice"]);
    let early = json!({"grants": [{"verbs": ["task.create"], "tools": ["x"]}], "reportsTo": {"name": "later"}, "assignment": {"agents": ["later"]}});
    mentions(&accepted(&create(role("lead", early)).await).join("\n"), &["task.create", "Role \"later\"", "Agent \"later\"", "Tool \"x\""]);

    refused(&create(role("lead", json!({"reportsTo": {"name": "lead"}}))).await, 422, reasons::REPORTING_CYCLE);
    let mut fixture = Fixture::default();
    for (name, above) in [("b", "c"), ("c", "a"), ("d", "e"), ("e", "d")] {
        let role: polity_api::Role = serde_json::from_value(role(name, json!({"reportsTo": {"name": above}}))).unwrap();
        fixture.world.get_mut().unwrap().roles.insert(("finance".to_owned(), name.to_owned()), Arc::new(role));
    }
    let fixture = Arc::new(fixture);
    let message = Ask::create("author", role("a", json!({"reportsTo": {"name": "b"}}))).admit(&fixture).await;
    mentions(refused(&message, 422, reasons::REPORTING_CYCLE), &["finance/a → finance/b → finance/c → finance/a"]);
    accepted(&Ask::create("author", role("z", json!({"reportsTo": {"name": "d"}}))).admit(&fixture).await);
}

#[tokio::test]
async fn agents() {
    let agent = |namespace: &str, name: &str, spec: Value| object("Agent", namespace, name, spec);
    let human = |usernames: Value| json!({"type": "Human", "usernames": usernames});
    assert_eq!(accepted(&create(agent("finance", "new", human(json!(["new@acme.example"])))).await), Vec::<String>::new());
    for namespace in ["finance", "acme"] {
        let message = create(agent(namespace, "new", human(json!([ALICE])))).await;
        mentions(refused(&message, 422, reasons::USERNAME_TAKEN), &["finance/alice", ALICE]);
    }
    let itself = agent("finance", "alice", human(json!([ALICE])));
    accepted(&create(itself).await);
    let bad = human(json!(["a", "a", BOT, "system:anonymous", CORE]));
    mentions(
        refused(&create(agent("finance", "new", bad)).await, 422, reasons::INVALID_DEFINITION),
        &["twice", "never counts as human", "nobody", "Polity itself"],
    );
    let system = json!({"type": "System", "usernames": [BOT]});
    refused(&create(agent("finance", "new", system)).await, 422, reasons::USERNAME_TAKEN);
    mentions(&accepted(&create(agent("elsewhere", "new", human(json!([ALICE])))).await).join(""), &["belongs to no Org"]);
}

#[tokio::test]
async fn what_was_wrong_before_does_not_block_an_update() {
    let fixture = Arc::new(Fixture::default());
    let old = org("sales", json!({"quota": {"hard": {"cpus": "4"}}}));
    let mut suspended = old.clone();
    suspended["spec"]["suspend"] = json!(true);
    mentions(&accepted(&Ask::update("author", old.clone(), suspended.clone()).admit(&fixture).await).join(""), &["still wrong", "cpus"]);
    suspended["spec"]["quota"]["hard"]["gpus"] = json!("1");
    mentions(refused(&Ask::update("author", old, suspended).admit(&fixture).await, 422, reasons::INVALID_DEFINITION), &["gpus"]);
    // A Policy that is wrong stays refused: what it selects is denied until it is right.
    let rule = |mode: &str| {
        object("Policy", "finance", "p", json!({"mode": mode, "rules": [{"name": "a", "expression": "1 +", "effect": "Deny"}]}))
    };
    refused(&Ask::update("author", rule("Enforce"), rule("Observe")).admit(&fixture).await, 422, reasons::POLICY_INVALID);
}

#[tokio::test]
async fn an_org_keeps_its_namespace_whoever_else_asks_for_it() {
    let mut fixture = Fixture::default();
    let rival: polity_api::Org = serde_json::from_value(org("rival", json!({"namespace": "finance"}))).unwrap();
    fixture.world.get_mut().unwrap().orgs.insert("rival".to_owned(), Arc::new(rival));
    let mut old = org("finance", json!({"parentRef": {"name": "acme"}}));
    old["status"] = json!({"namespace": {"name": "finance", "uid": "ns-finance", "created": true}});
    let mut new = old.clone();
    new["spec"]["suspend"] = json!(true);
    accepted(&Ask::update("author", old, new).admit(&Arc::new(fixture)).await);
}
