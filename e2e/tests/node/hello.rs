//! examples/hello, the smallest organisation.

use anyhow::Result;

use crate::{acme, node::Node};

pub async fn greets(node: &Node) -> Result<()> {
    node.apply_folder("examples/hello")?;
    acme::all_ready(node, &["hello"]).await?;
    acme::says(node, "hello", "scripted-greeter", &["CALL 1 ", ": Succeeded", "Hello, world!"]).await.map(|_| ())
}
