//! Scripted stand-ins for tools, for examples and tests: input as JSON on stdin, a receipt as JSON on stdout. Each receipt says
//! that it is one. It moves no money, deploys nothing and opens no connection. Some misbehave on purpose, so that tests see what
//! becomes of a tool that does.

use std::{
    io::{Read, Write},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
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
    /// Says `message` on stderr and fails.
    Fail,
    /// Says what the file `file` has on stderr and fails.
    Tell,
    /// Takes `seconds`.
    Sleep,
    /// A receipt of `bytes` bytes and a little more.
    Large,
    /// Says what it is given: user, names of variables, whether an API token is there.
    Inspect,
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
        Name::Fail => bail!("{}", word(&input, "message")?),
        Name::Tell => bail!("{}", std::fs::read_to_string(word(&input, "file")?).context("reading file")?),
        Name::Sleep => {
            take(Duration::from_secs(number(&input, "seconds")?));
            json!({"slept": number(&input, "seconds")?})
        }
        Name::Large => json!({"receipt": "x".repeat(usize::try_from(number(&input, "bytes")?)?)}),
        Name::Inspect => inspect()?,
    };
    receipt["scripted"] = Value::Bool(true);
    writeln!(output, "{receipt}").context("writing the receipt")
}

/// Takes its time, as it was told.
#[expect(clippy::disallowed_methods, reason = "there is nothing to wait for: to take time is all that is asked")]
fn take(time: Duration) {
    std::thread::sleep(time);
}

/// What a tool can see of itself.
fn inspect() -> anyhow::Result<Value> {
    let own = std::fs::metadata("/proc/self").context("reading /proc/self")?;
    let names: Vec<String> = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let api_token = Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists();
    Ok(
        json!({"user": own.uid(), "group": own.gid(), "variables": names, "apiToken": api_token, "rootWritable": std::fs::write("/probe", "x").is_ok()}),
    )
}

fn number(input: &Map<String, Value>, key: &str) -> anyhow::Result<u64> {
    need(input, key)?.as_u64().with_context(|| format!("{key} is not a whole number"))
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
    fn misbehaves_as_told() {
        let failed = receipt(Name::Fail, r#"{"message":"no funds"}"#).unwrap_err();
        assert_eq!(failed.to_string(), "no funds");
        let told = receipt(Name::Tell, r#"{"file":"/proc/self/comm"}"#).unwrap_err();
        assert!(!told.to_string().is_empty());
        assert!(receipt(Name::Large, r#"{"bytes":20000}"#).unwrap().to_string().len() > 20_000);
        assert_eq!(receipt(Name::Sleep, r#"{"seconds":0}"#).unwrap()["slept"], 0);
        assert!(receipt(Name::Inspect, "{}").unwrap()["user"].is_u64());
    }

    #[test]
    fn fails_on_what_it_cannot_use() {
        for bad in ["", "[]", "{", r#"{"to":"A","currency":"USD"}"#, r#"{"to":7,"amount":1,"currency":"USD"}"#] {
            assert!(receipt(Name::Transfer, bad).is_err(), "{bad}");
        }
    }
}
