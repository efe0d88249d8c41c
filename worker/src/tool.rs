//! Scripted stand-ins for tools, for examples and tests: input as JSON on stdin, a receipt as JSON on stdout. Each receipt says
//! that it is one. It moves no money, deploys nothing and opens no connection.

use std::io::{Read, Write};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// Which tool to stand in for.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// The tool.
    pub name: Name,
}

/// The tools that there are stand-ins for.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Name {
    /// Greets `name`.
    Greet,
    /// A receipt of a transfer.
    Transfer,
    /// A receipt of a deployment.
    Deploy,
}

/// Reads the input, writes the receipt.
///
/// # Errors
/// The input is not a JSON object, or lacks what the receipt is about; then the call fails and stderr says why.
pub fn run(settings: &Settings, mut input: impl Read, mut output: impl Write) -> anyhow::Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text).context("reading the input")?;
    let input: Map<String, Value> = serde_json::from_str(&text).context("the input is not a JSON object")?;
    let mut receipt = match settings.name {
        Name::Greet => json!({"greeting": format!("Hello, {}!", word(&input, "name")?)}),
        Name::Transfer => {
            json!({"receipt": format!("{} {} to {}", need(&input, "amount")?, word(&input, "currency")?, word(&input, "to")?)})
        }
        Name::Deploy => {
            json!({"receipt": format!("{} {} on {}", word(&input, "service")?, word(&input, "version")?, word(&input, "environment")?)})
        }
    };
    receipt["scripted"] = Value::Bool(true);
    writeln!(output, "{receipt}").context("writing the receipt")
}

fn need<'a>(input: &'a Map<String, Value>, key: &str) -> anyhow::Result<&'a Value> {
    input.get(key).with_context(|| format!("the input has no {key}"))
}

fn word<'a>(input: &'a Map<String, Value>, key: &str) -> anyhow::Result<&'a str> {
    need(input, key)?.as_str().with_context(|| format!("{key} is not a string"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(name: Name, input: &str) -> anyhow::Result<Value> {
        let mut out = Vec::new();
        run(&Settings { name }, input.as_bytes(), &mut out)?;
        Ok(serde_json::from_slice(&out)?)
    }

    #[test]
    fn answers_what_was_asked() {
        let out = receipt(Name::Transfer, r#"{"to":"SUPPLIER-7","amount":20,"currency":"USD","method":"bank"}"#).unwrap();
        assert_eq!(out, json!({"receipt": "20 USD to SUPPLIER-7", "scripted": true}));
        let out = receipt(Name::Deploy, r#"{"service":"shop","version":"1.4.2","environment":"staging"}"#).unwrap();
        assert_eq!(out["receipt"], "shop 1.4.2 on staging");
        assert_eq!(receipt(Name::Greet, r#"{"name":"world"}"#).unwrap()["greeting"], "Hello, world!");
    }

    #[test]
    fn fails_on_what_it_cannot_use() {
        for bad in ["", "[]", "{", r#"{"to":"A","currency":"USD"}"#, r#"{"to":7,"amount":1,"currency":"USD"}"#] {
            assert!(receipt(Name::Transfer, bad).is_err(), "{bad}");
        }
    }
}
