//! A scripted stand-in for a mail service, for examples and tests: any POST of a JSON object is answered with a receipt that says
//! that it is one. It sends nothing, keeps nothing, and reads no more than it must.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

/// Most bytes of a request's head, and of its body.
const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// Longest time for one request.
const LIMIT: Duration = Duration::from_secs(10);

/// Where to listen.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// Address and port.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How long each receipt takes, in milliseconds: a slow service.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..8000))]
    pub delay_ms: u64,
}

/// Serves until asked to end.
///
/// # Errors
/// The address is taken.
pub async fn run(settings: &Settings) -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("listening on {}", settings.listen))?;
    let delay = Duration::from_millis(settings.delay_ms);
    println!("SCRIPTED MAILER (sends nothing) on {}", listener.local_addr()?);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => return Ok(()),
        };
        if let Ok((stream, _)) = accepted {
            tokio::spawn(async move {
                match tokio::time::timeout(LIMIT, one(stream, delay)).await {
                    Ok(Ok(line)) => println!("{line}"),
                    Ok(Err(error)) => println!("refused: {error:#}"),
                    Err(_) => println!("refused: too slow"),
                }
            });
        }
    }
}

/// One request on one connection; the line that the log gets.
async fn one(mut stream: impl AsyncRead + AsyncWrite + Unpin, delay: Duration) -> Result<String> {
    let (status, answer, line) = match read(&mut stream).await {
        Ok(input) => {
            let recipients = input.get("recipients").and_then(Value::as_array).map_or(0, Vec::len);
            // Said before the answer: from here on the mail counts as sent, whether or not anybody hears of it.
            println!("received {}", input.get("subject").and_then(Value::as_str).unwrap_or_default());
            tokio::time::sleep(delay).await;
            ("200 OK", json!({"accepted": recipients, "scripted": true}), format!("accepted {recipients} recipients"))
        }
        Err(error) => ("400 Bad Request", json!({"error": format!("{error:#}")}), format!("refused: {error:#}")),
    };
    let body = answer.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(line)
}

/// The JSON object of a POST with a Content-Length.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Map<String, Value>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        ensure!(bytes.len() < MAX_HEAD, "the head of the request is too large");
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the request broke off");
    };
    let head = std::str::from_utf8(&bytes[..end]).context("the head is not text")?;
    ensure!(head.starts_with("POST "), "only POST");
    let length = head.lines().filter_map(|l| l.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let Some((_, length)) = length else { bail!("no Content-Length") };
    let length: usize = length.trim().parse().context("Content-Length")?;
    ensure!(length <= MAX_BODY, "the body is too large");
    while bytes.len() < end + 4 + length {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the body broke off");
    }
    serde_json::from_slice(&bytes[end + 4..end + 4 + length]).context("the body is not a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &str) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(one(server, Duration::ZERO));
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_a_post_with_a_receipt() {
        let body = r#"{"recipients":["a@example.com","b@example.com"],"subject":"Hello"}"#;
        let answer = ask(&format!("POST /send HTTP/1.1\r\nHost: mailer\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"accepted":2,"scripted":true}"#), "{answer}");
    }

    #[tokio::test]
    async fn refuses_what_it_cannot_read() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 70000\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]",
            "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}",
        ] {
            assert!(ask(bad).await.starts_with("HTTP/1.1 400 "), "{bad}");
        }
    }
}
