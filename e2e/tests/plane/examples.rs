//! What the examples come to: applied by `kubectl` as a user would, every definition becomes Ready; and an Org without a namespace of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use polity_e2e::{cluster::repo, org_name, parts::Polity, until};

/// A tree of four Orgs; the longest chain is quota granted from the root down.
const LONG: Duration = Duration::from_secs(180);

/// `examples/hello` and `examples/acme`: everything but workers, which need a node, becomes Ready.
pub async fn become_ready(polity: &Polity) -> Result<()> {
    for (example, orgs) in [("hello", vec!["hello"]), ("acme", vec!["acme", "acme-finance", "acme-marketing", "acme-engineering"])] {
        let folder = repo().join("examples").join(example).display().to_string();
        polity.cluster.run("kubectl", &["apply", "-f", &folder])?;
        for org in &orgs {
            all_ready(polity, &["get", "orgs.polity.dev", org, "-o", "json"]).await?;
        }
        for org in &orgs {
            all_ready(polity, &["get", "roles.polity.dev,tools.polity.dev,policies.polity.dev", "-n", org, "-o", "json"]).await?;
        }
        // A second time changes nothing that matters: nothing becomes unready, and no object gets another spec.
        polity.cluster.run("kubectl", &["apply", "-f", &folder])?;
        for org in &orgs {
            all_ready(polity, &["get", "roles.polity.dev,tools.polity.dev,policies.polity.dev", "-n", org, "-o", "json"]).await?;
        }
    }
    Ok(())
}

/// The same organisation without `00-namespace.yaml`: a bare apply fails for what lives in the namespace that the Org is only
/// about to get, and the second one is complete.
pub async fn without_a_namespace_first(polity: &Polity) -> Result<()> {
    let name = org_name("bare");
    let text = std::fs::read_to_string(repo().join("examples/hello/hello.yaml"))?.replace("hello", &name);
    let file = polity.dir.join("bare.yaml");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let first = polity.cluster.run("kubectl", &["apply", "-f", &file]);
    // On a fast day core makes the namespace before kubectl comes to what lives in it.
    ensure!(first.is_ok() || first.as_ref().is_err_and(|e| e.to_string().contains("not found")), "{first:?}");
    all_ready(polity, &["get", "orgs.polity.dev", &name, "-o", "json"]).await?;
    polity.cluster.run("kubectl", &["apply", "-f", &file])?;
    all_ready(polity, &["get", "roles.polity.dev,tools.polity.dev", "-n", &name, "-o", "json"]).await
}

/// Waits until every object that kubectl lists says Ready about its present generation; there must be at least one.
async fn all_ready(polity: &Polity, args: &[&str]) -> Result<()> {
    until(LONG, &args.join(" "), || async {
        let text = polity.cluster.run("kubectl", args).map_err(|e| e.to_string())?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let one = [value.clone()];
        let objects = value["items"].as_array().map_or(one.as_slice(), Vec::as_slice);
        if objects.is_empty() {
            return Err("nothing there".to_owned());
        }
        match objects.iter().find(|object| !ready(object)) {
            None => Ok(()),
            Some(object) => Err(format!("{} {}: {}", object["kind"], object["metadata"]["name"], object["status"]["conditions"])),
        }
    })
    .await
}

fn ready(object: &serde_json::Value) -> bool {
    let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    current && conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
