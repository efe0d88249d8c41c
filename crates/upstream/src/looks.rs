//! What people should look at in a Tool: texts that may be meant for a model alone, a name that looks like another's, a schema that does not fit its
//! server's. Pure; a reason to look, no verdict.

use polity_api::ToolSpec;

use crate::{Definition, flags::of_definition, flags::of_text, names::look_alike, schema};

fn definition(spec: &ToolSpec) -> Option<Definition> {
    Definition::parse(spec.runtime.mcp.as_ref()?.definition.as_deref()?).ok()
}

/// Why what is pinned can never be what the server lists.
#[must_use]
pub fn broken(spec: &ToolSpec) -> Option<String> {
    let mcp = spec.runtime.mcp.as_ref()?;
    let (digest, text) = (mcp.digest.as_ref()?, mcp.definition.as_ref()?);
    match Definition::parse(text) {
        Err(e) => Some(format!("the pinned definition: {e}")),
        Ok(definition) if definition.digest() != digest => {
            Some(format!("the pinned digest is not that of the pinned definition, which is {}", definition.digest()))
        }
        Ok(definition) if definition.name() != mcp.tool => {
            Some(format!("the pinned definition is of {:?}, the Tool is {:?}", definition.name(), mcp.tool))
        }
        Ok(_) => None,
    }
}

/// What looks suspicious in a Tool of this name; `beside` are the names of the Tools of its namespace.
#[must_use]
pub fn suspicions(name: &str, spec: &ToolSpec, beside: &[String]) -> Vec<String> {
    let definition = definition(spec);
    let mut found: Vec<String> = definition.iter().flat_map(of_definition).map(|flag| flag.to_string()).collect();
    found.extend(of_text("spec.description", spec.description.as_deref().unwrap_or_default()).iter().map(ToString::to_string));
    let others = || beside.iter().map(String::as_str).filter(|other| *other != name);
    if let Some(other) = look_alike(name, others()) {
        found.push(format!("its name looks like that of Tool {other:?}"));
    }
    let title = definition.as_ref().and_then(|d| d.part("title")).and_then(|t| t.as_str());
    if let Some(other) = title.and_then(|title| others().find(|other| title == *other || look_alike(title, [*other]).is_some())) {
        found.push(format!("its title looks like the name of Tool {other:?}"));
    }
    found
}

/// Where the Tool's inputSchema and the server's disagree.
#[must_use]
pub fn differences(spec: &ToolSpec) -> Vec<String> {
    definition(spec).map(|listed| schema::differences(spec.input_schema.as_ref(), listed.part("inputSchema"))).unwrap_or_default()
}
