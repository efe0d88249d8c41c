//! Tools as MCP shows them: name, schema, and hints that follow from what the Tool declares. Pages are cut from the list as it is when asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use polity_policy::{ToolFacts, compile_schema};
use rmcp::{
    ErrorData,
    model::{CacheScope, ListToolsResult, MetaObject, Tool, ToolAnnotations},
};
use serde_json::{Map, Value, json};

/// Tools of a page.
const PAGE: usize = 200;
/// Stands between an Org above and the name of its Tool; no name of Kubernetes has it.
const BETWEEN: char = '_';

/// The Tools of an Org that a caller could use, in the order of their names. `known` says whether a name is that of a Tool, usable or not.
pub fn tools(org: &str, reachable: &[Arc<ToolFacts>], known: impl Fn(&str) -> bool) -> Vec<Tool> {
    let other = aliases(reachable, known);
    let name =
        |facts: &ToolFacts| facts.spec.mcp_name.clone().filter(|n| other.contains_key(n.as_str())).unwrap_or_else(|| own(org, facts));
    let mut tools: Vec<Tool> = reachable.iter().filter_map(|facts| shown(name(facts), facts)).collect();
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

/// The Tool that has this name for MCP clients only.
pub fn aliased<'a>(name: &str, reachable: &'a [Arc<ToolFacts>], known: impl Fn(&str) -> bool) -> Option<&'a ToolFacts> {
    aliases(reachable, known).remove(name)
}

/// Names for MCP clients that are in force: those that one Tool alone has, and that are no Tool's own.
fn aliases(reachable: &[Arc<ToolFacts>], known: impl Fn(&str) -> bool) -> BTreeMap<&str, &ToolFacts> {
    let (mut found, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for facts in reachable {
        let Some(name) = facts.spec.mcp_name.as_deref().filter(|name| !known(name)) else { continue };
        if found.insert(name, facts.as_ref()).is_some() {
            twice.insert(name);
        }
    }
    found.retain(|name, _| !twice.contains(name));
    found
}

/// A Tool's own name.
fn own(org: &str, facts: &ToolFacts) -> String {
    if facts.org == org { facts.name.clone() } else { format!("{}{BETWEEN}{}", facts.org, facts.name) }
}

/// Org and Tool that a name means.
pub fn named(name: &str) -> (Option<&str>, &str) {
    name.split_once(BETWEEN).map_or((None, name), |(org, tool)| (Some(org), tool))
}

/// One page. The cursor is the name after which it begins, so that a list that changed in between neither repeats nor skips what stayed.
///
/// # Errors
/// The cursor is none that was given out.
pub fn page(tools: Vec<Tool>, cursor: Option<&str>) -> Result<ListToolsResult, ErrorData> {
    let after = match cursor {
        None => String::new(),
        Some(text) => hex::decode(text)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| ErrorData::invalid_params("the cursor is none that was given out", None))?,
    };
    let mut rest = tools.into_iter().filter(|tool| *tool.name > *after);
    let page: Vec<Tool> = rest.by_ref().take(PAGE).collect();
    let next = rest.next().and(page.last()).map(|last| hex::encode(last.name.as_bytes()));
    let listed = ListToolsResult { next_cursor: next, ..ListToolsResult::with_all_items(page) };
    // What is listed depends on who asks, and on rules that may change at any time.
    Ok(listed.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
}

/// A Tool as shown; None for one whose arguments could never be an object.
fn shown(name: String, facts: &ToolFacts) -> Option<Tool> {
    let input = object_schema(facts.spec.input_schema.clone().unwrap_or_default())?;
    let mut tool = Tool::new_with_raw(name, facts.spec.description.clone().map(Into::into), input).with_annotations(hints(facts));
    // A client that cannot read one schema may drop the whole list.
    if let Some(output) = facts.spec.output_schema.clone()
        && output.get("type") == Some(&json!("object"))
        && compile_schema(&Value::Object(output.clone())).is_ok()
    {
        tool = tool.with_raw_output_schema(Arc::new(output));
    }
    let mut meta = Map::new();
    meta.insert("polity.dev/org".to_owned(), json!(facts.org));
    meta.insert("polity.dev/tool".to_owned(), json!(facts.name));
    meta.insert("polity.dev/digest".to_owned(), json!(facts.digest));
    if !facts.spec.risk.is_empty() {
        meta.insert("polity.dev/risk".to_owned(), json!(facts.spec.risk));
    }
    if let Some(price) = &facts.spec.price {
        meta.insert("polity.dev/priceUsd".to_owned(), json!(price.usd));
    }
    Some(tool.with_meta(MetaObject(meta)))
}

/// MCP wants `type: object` at the root; arguments are always one.
fn object_schema(mut schema: Map<String, Value>) -> Option<Map<String, Value>> {
    let object = schema.entry("type").or_insert_with(|| json!("object")) == &json!("object");
    object.then_some(schema)
}

/// Hints where the Tool says something of it; what it does not say stays unsaid, and clients assume the worst.
fn hints(facts: &ToolFacts) -> ToolAnnotations {
    let labelled = |label: &str| facts.spec.risk.iter().any(|l| l == label).then_some(true);
    let idempotent = facts.spec.idempotent.then_some(true);
    ToolAnnotations::from_raw(None, labelled("read-only"), labelled("destructive"), idempotent, labelled("external"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(org: &str, name: &str, spec: Value) -> Arc<ToolFacts> {
        let mut spec = spec;
        spec["runtime"] = json!({});
        Arc::new(ToolFacts {
            org: org.into(),
            namespace: org.into(),
            name: name.into(),
            uid: String::new(),
            digest: "d".into(),
            micro_usd: 0,
            spec: serde_json::from_value(spec).unwrap(),
            quarantined: None,
        })
    }

    /// No name is that of a Tool that the caller does not see.
    fn none(_: &str) -> bool {
        false
    }

    #[test]
    fn a_name_for_clients_is_in_force_where_it_is_one_tools_alone() {
        let of = |name: &str| json!({"mcpName": name});
        let all = [
            facts("unit", "issues-create", of("create_issue")),
            facts("acme", "search", of("Search.All")),
            facts("unit", "one", of("twice")),
            facts("unit", "two", of("twice")),
            facts("unit", "sly", of("pay")),
        ];
        let known = |name: &str| name == "pay";
        let listed = tools("unit", &all, known);
        let names: Vec<&str> = listed.iter().map(|t| &*t.name).collect();
        assert_eq!(names, ["Search.All", "create_issue", "one", "sly", "two"]);
        for (name, tool) in
            [("create_issue", Some("issues-create")), ("Search.All", Some("search")), ("twice", None), ("pay", None), ("one", None)]
        {
            assert_eq!(aliased(name, &all, known).map(|t| t.name.as_str()), tool, "{name}");
        }
        let shown = serde_json::to_value(&listed[1]).unwrap();
        assert_eq!(shown["_meta"]["polity.dev/tool"], "issues-create", "what Policies and records call it");
    }

    #[test]
    fn a_tool_of_an_org_above_has_a_name_of_its_own() {
        let listed = tools("unit", &[facts("unit", "pay", json!({})), facts("acme", "pay", json!({}))], none);
        let names: Vec<&str> = listed.iter().map(|t| &*t.name).collect();
        assert_eq!(names, ["acme_pay", "pay"]);
        assert_eq!(names.map_named(), [(Some("acme"), "pay"), (None, "pay")]);
    }

    trait Named {
        fn map_named(&self) -> Vec<(Option<&str>, &str)>;
    }

    impl Named for Vec<&str> {
        fn map_named(&self) -> Vec<(Option<&str>, &str)> {
            self.iter().map(|name| named(name)).collect()
        }
    }

    #[test]
    fn hints_follow_from_what_is_declared() {
        let spec = json!({"risk": ["money", "external"], "idempotent": true, "price": {"usd": "0.5"}, "description": "Pays.",
            "inputSchema": {"properties": {"a": {"type": "integer"}}}, "outputSchema": {"type": "object"}});
        let shown = serde_json::to_value(&tools("o", &[facts("o", "pay", spec)], none)[0]).unwrap();
        assert_eq!(shown["annotations"], json!({"idempotentHint": true, "openWorldHint": true}));
        assert_eq!(shown["inputSchema"], json!({"type": "object", "properties": {"a": {"type": "integer"}}}));
        assert_eq!(shown["outputSchema"], json!({"type": "object"}));
        assert_eq!(
            shown["_meta"],
            json!({"polity.dev/org": "o", "polity.dev/tool": "pay", "polity.dev/digest": "d", "polity.dev/risk": ["money", "external"], "polity.dev/priceUsd": "0.5"})
        );
        assert_eq!(shown["description"], "Pays.");
    }

    #[test]
    fn a_schema_that_clients_cannot_read_spoils_nothing() {
        let listed = tools(
            "o",
            &[
                facts("o", "a", json!({"inputSchema": {"type": "array"}})),
                facts("o", "b", json!({"outputSchema": {"type": "array"}})),
                facts("o", "c", json!({"outputSchema": {"type": "object", "required": 1}})),
            ],
            none,
        );
        let names: Vec<(&str, bool)> = listed.iter().map(|t| (&*t.name, t.output_schema.is_some())).collect();
        assert_eq!(names, [("b", false), ("c", false)]);
    }

    #[test]
    fn pages_have_every_tool_once() {
        let all: Vec<_> = (0..450).map(|n| facts("o", &format!("tool-{n:03}"), json!({}))).collect();
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = page(tools("o", &all, none), cursor.as_deref()).unwrap();
            seen.extend(page.tools.iter().map(|t| t.name.to_string()));
            pages += 1;
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!((pages, seen.len()), (3, 450));
        seen.dedup();
        assert_eq!(seen.len(), 450);
        assert!(page(tools("o", &all, none), Some("zz")).is_err());
        assert_eq!(page(tools("o", &all[..200], none), None).unwrap().next_cursor, None);
    }
}
