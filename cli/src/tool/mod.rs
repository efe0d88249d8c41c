//! `tool pin`: what the server of an `mcp` Tool lists now, how it differs from what is pinned, what in it looks suspicious, and what to write to pin it.
//!
//! It writes nothing: who pins a definition has read it. Ends well only if what is listed is what is pinned.

mod diff;
mod observe;

use std::io::Write;

use anyhow::{Context, Result, bail};
use kube::{Api, api::ListParams};
use polity_api::{GROUP, Tool};
use polity_upstream::{Definition, looks};
use serde_json::{Value, json};

use crate::{
    Verdict,
    args::{ClusterArgs, PinArgs, PinOutput},
    cluster::{self, worded},
    yaml::documents,
};

/// Prints it.
pub fn pin(cluster: &ClusterArgs, args: &PinArgs, out: &mut dyn Write) -> Result<Verdict> {
    if args.manifests.is_empty() {
        let name = args.name.as_deref().context("name the Tool, or give its manifest with -f")?;
        return cluster::run(cluster, |c| async move {
            let api: Api<Tool> = Api::namespaced(c.client.clone(), &c.namespace);
            let all = api.list(&ListParams::default()).await.map_err(|e| worded(e, "cannot read Tools"))?.items;
            let (tool, beside) = chosen(all, Some(name))?;
            let observed = observe::observe(&tool, args).await?;
            show(&tool, &beside, &observed, args.output, out)
        });
    }
    let ours = |v: &Value| v["kind"] == "Tool" && v["apiVersion"].as_str().is_some_and(|a| a.split('/').next() == Some(GROUP));
    let mut all = Vec::new();
    for document in documents(&args.manifests)?.into_iter().filter(|d| ours(&d.value)) {
        let tool: Tool =
            serde_json::from_value(document.value).with_context(|| format!("{} has no usable Tool", document.file.display()))?;
        all.push(tool);
    }
    let (tool, beside) = chosen(all, args.name.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let observed = runtime.block_on(observe::observe(&tool, args))?;
    show(&tool, &beside, &observed, args.output, out)
}

/// The Tool that is meant, and the names of those beside it.
fn chosen(all: Vec<Tool>, name: Option<&str>) -> Result<(Tool, Vec<String>)> {
    let named = |tool: &Tool| tool.metadata.name.clone().unwrap_or_default();
    let beside: Vec<String> = all.iter().map(named).collect();
    let mut fit = all.into_iter().filter(|t| t.spec.runtime.mcp.is_some() && name.is_none_or(|n| named(t) == n));
    match (fit.next(), fit.next()) {
        (Some(tool), None) => Ok((tool, beside)),
        (Some(one), Some(other)) => bail!("more than one Tool has runtime mcp ({}, {}, ...): name one", named(&one), named(&other)),
        (None, _) => bail!("there is no Tool {} with runtime mcp; there are {}", name.unwrap_or_default(), beside.join(", ")),
    }
}

fn show(tool: &Tool, beside: &[String], observed: &Definition, output: PinOutput, out: &mut dyn Write) -> Result<Verdict> {
    let mcp = tool.spec.runtime.mcp.as_ref().context("no mcp runtime")?;
    // As it would be with what is listed now.
    let mut spec = tool.spec.clone();
    if let Some(mcp) = &mut spec.runtime.mcp {
        (mcp.digest, mcp.definition) = (Some(observed.digest().to_owned()), Some(observed.text()));
    }
    let name = tool.metadata.name.clone().unwrap_or_default();
    let pinned = mcp.definition.as_deref().and_then(|text| Definition::parse(text).ok());
    let same = mcp.digest.as_deref() == Some(observed.digest()) && pinned.as_ref().is_some_and(|p| p.digest() == observed.digest());
    let verdict = if same { Verdict::Good } else { Verdict::Bad };
    let changed = pinned.as_ref().map(|pinned| observed.changed(pinned)).unwrap_or_default();
    let (suspicions, differences) = (looks::suspicions(&name, &spec, beside), looks::differences(&spec));
    let patch = json!({"spec": {"runtime": {"mcp": {"digest": observed.digest(), "definition": observed.text()}}}});
    match output {
        PinOutput::Patch => writeln!(out, "{patch}")?,
        PinOutput::Json => {
            let all = json!({
                "tool": name, "upstream": mcp.tool, "pinned": mcp.digest, "observed": observed.digest(), "definition": observed.text(),
                "same": same, "changed": changed, "suspicions": suspicions, "differences": differences, "patch": patch,
            });
            writeln!(out, "{all}")?;
        }
        PinOutput::Table => {
            writeln!(out, "Tool {name}, {:?} at its server", mcp.tool)?;
            writeln!(out, "  pinned:   {}", mcp.digest.as_deref().unwrap_or("nothing: every call is denied"))?;
            writeln!(out, "  observed: {}{}", observed.digest(), if same { ", the same" } else { "" })?;
            if !changed.is_empty() {
                writeln!(out, "  changed:  {}", changed.join(", "))?;
            }
            for (what, list) in [("looks suspicious", &suspicions), ("inputSchema", &differences)] {
                list.iter().try_for_each(|found| writeln!(out, "  {what}: {found}"))?;
            }
            writeln!(out, "\nDefinition{}:", if pinned.is_some() && !same { " (- pinned, + observed)" } else { "" })?;
            let old = pinned.as_ref().map_or_else(|| observed.text(), Definition::text);
            diff::lines(&old, &observed.text()).iter().try_for_each(|line| writeln!(out, "  {line}"))?;
            if !same {
                writeln!(out, "\nRead it. To pin it, write under spec.runtime.mcp (or apply the patch that -o patch prints):\n")?;
                writeln!(out, "    digest: {}\n    definition: |", observed.digest())?;
                observed.text().lines().try_for_each(|line| writeln!(out, "      {line}"))?;
            }
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(pinned: Option<&Definition>) -> Tool {
        let mut mcp = json!({"url": "https://x.example/mcp", "tool": "send"});
        if let Some(definition) = pinned {
            (mcp["digest"], mcp["definition"]) = (json!(definition.digest()), json!(definition.text()));
        }
        serde_json::from_value(json!({"metadata": {"name": "mail"}, "spec": {"runtime": {"mcp": mcp}}})).unwrap()
    }

    fn shown(tool: &Tool, observed: &Definition, output: PinOutput) -> (Verdict, String) {
        let mut out = Vec::new();
        let verdict = show(tool, &["mail".to_owned(), "mai1".to_owned()], observed, output, &mut out).unwrap();
        (verdict, String::from_utf8(out).unwrap())
    }

    #[test]
    fn says_what_changed_what_looks_suspicious_and_what_to_write() {
        let old = Definition::of(&json!({"name": "send", "description": "Sends."})).unwrap();
        let new = Definition::of(&json!({"name": "send", "description": "Sends.\u{200b}", "inputSchema": {"required": ["to"]}})).unwrap();
        let (verdict, text) = shown(&tool(Some(&old)), &old, PinOutput::Table);
        assert!(verdict == Verdict::Good && text.contains("the same") && !text.contains("To pin it"), "{text}");
        let (verdict, text) = shown(&tool(Some(&old)), &new, PinOutput::Table);
        assert_eq!(verdict, Verdict::Bad);
        for part in [
            "changed:  description, input schema",
            r#"-   "description": "Sends.""#,
            r#"+   "description": "Sends.\u200b""#,
            "looks suspicious: description: characters that cannot be seen: 1 of them, the first is U+200B",
            "looks suspicious: its name looks like that of Tool \"mai1\"",
            "the Tool has no inputSchema",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // What it says to write is what it would be pinned by.
        let written = text.split_once("definition: |\n").unwrap().1;
        assert_eq!(Definition::parse(written).unwrap(), new);
        let (verdict, text) = shown(&tool(None), &new, PinOutput::Patch);
        let patch: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((verdict, patch["spec"]["runtime"]["mcp"]["digest"].as_str()), (Verdict::Bad, Some(new.digest())));
    }
}
