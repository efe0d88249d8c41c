//! One stream: reads the chain page by page and hands it to one reader, with a sign of life in between. Asks for the next page only when the last
//! one was taken, so what it holds is bounded however slow the reader is.
//!
//! Never goes on after the reader's token or right has ended, and never over a gap: then it says why and ends.

use std::{fmt::Write as _, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use polity_api::reasons;
use polity_ledger::{Page, Refused};
use polity_runtime::internal::{MAX_WAIT_SECONDS, RecordsRequest};
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{lost, slots::Slot};
use crate::{problem::Problem, state::Gateway};

/// Pause before core is asked again when it does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long a reader should wait before it comes again, in milliseconds.
const COME_AGAIN: u32 = 2000;
/// Name of the event that says why a stream ends. No kind of record has it.
pub const END: &str = "polity-end";

/// Who reads.
pub struct Reader {
    pub token: String,
    pub username: String,
    pub org: String,
    pub uid: String,
    /// When token and right were last found good.
    pub checked: Instant,
}

/// Why a stream ends.
enum End {
    /// The reader has gone.
    Left,
    /// The reader takes nothing.
    Stalled,
    /// This replica stops.
    Stopping,
    /// Token, right, Org or chain are not what they were.
    Over(Box<Problem>),
}

impl End {
    fn label(&self) -> &'static str {
        match self {
            Self::Left => "reader",
            Self::Stalled => "stalled",
            Self::Stopping => "stopping",
            Self::Over(problem) => match problem.reason() {
                reasons::UNAUTHENTICATED => "token",
                reasons::NOT_PERMITTED => "rights",
                reasons::RECORDS_DROPPED | reasons::AHEAD_OF_CHAIN => "gap",
                reasons::NOT_FOUND => "org",
                _ => "unavailable",
            },
        }
    }
}

/// A stream on its way to one reader.
pub struct Feed {
    pub gateway: Arc<Gateway>,
    pub reader: Reader,
    pub request: RecordsRequest,
    pub out: mpsc::Sender<Bytes>,
    /// Id that the reader knows.
    pub told: Option<i64>,
    pub slot: Slot,
}

impl Feed {
    /// Feeds until there is a reason not to.
    pub async fn run(mut self, first: Page) {
        let metrics = self.gateway.metrics.clone();
        metrics.streams.inc();
        let end = self.feed(first).await;
        metrics.streams.dec();
        metrics.streams_ended.with_label_values(&[end.label()]).inc();
        tracing::debug!(org = self.reader.org, user = self.reader.username, after = self.request.after, end = end.label(), "a stream ends");
        if let End::Over(problem) = &end {
            let told = serde_json::to_string(&problem.body()).unwrap_or_default();
            let _ = self.send(format!("event: {END}\ndata: {told}\n\n")).await;
        }
        drop(self.slot);
    }

    async fn feed(&mut self, first: Page) -> End {
        let every = self.gateway.streams.limits.heartbeat;
        let mut pulse = interval_at(Instant::now() + every, every);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gateway = self.gateway.clone();
        let mut page = Ok(first);
        let mut opening = format!("retry: {COME_AGAIN}\n\n");
        loop {
            let pause = if page.is_ok() { Duration::ZERO } else { RETRY };
            let answered = match page {
                Ok(page) => self.deliver(page, std::mem::take(&mut opening)).await,
                Err(refused) => self.send(format!(": core does not answer: {}\n\n", one_line(&refused))).await,
            };
            if let Err(end) = answered {
                return end;
            }
            let (uid, request) = (self.reader.uid.clone(), self.request.clone());
            let mut next = pin!(async {
                sleep(pause).await;
                gateway.core.records(&uid, &request).await
            });
            page = loop {
                let beaten = tokio::select! {
                    answer = &mut next => break answer,
                    () = gateway.stop.cancelled() => return End::Stopping,
                    () = self.out.closed() => return End::Left,
                    _ = pulse.tick() => self.beat().await,
                };
                if let Err(end) = beaten {
                    return end;
                }
            };
        }
    }

    /// Hands over a page and remembers how far it went.
    async fn deliver(&mut self, page: Page, mut text: String) -> Result<(), End> {
        if let Some(problem) = lost(&page, self.request.after) {
            return Err(End::Over(Box::new(problem)));
        }
        if !page.lines.is_empty() && self.reader.checked.elapsed() >= self.gateway.streams.limits.heartbeat {
            self.check().await?;
        }
        let count = page.lines.len();
        for line in &page.lines {
            let (seq, kind) = head_of(line)?;
            let _ = write!(text, "id: {seq}\nevent: {kind}\ndata: {line}\n\n");
            self.told = Some(seq);
        }
        if self.told.is_none() {
            // From the first moment on the reader knows where to go on.
            let _ = write!(text, "id: {}\n\n", page.next);
            self.told = Some(page.next);
        }
        if !text.is_empty() {
            self.send(text).await?;
        }
        self.gateway.metrics.events.inc_by(u64::try_from(count).unwrap_or_default());
        self.request.after = page.next;
        self.request.wait = if page.next < page.head { 0 } else { MAX_WAIT_SECONDS };
        Ok(())
    }

    /// A sign of life, with how far the chain was looked through when a filter lets nothing of it through.
    async fn beat(&mut self) -> Result<(), End> {
        self.check().await?;
        let mut text = ": heartbeat\n".to_owned();
        if self.told.is_none_or(|told| told < self.request.after) {
            let _ = writeln!(text, "id: {}", self.request.after);
            self.told = Some(self.request.after);
        }
        text.push('\n');
        self.send(text).await
    }

    /// Whether the token is still good, the same user's, and the user may still read this chain.
    async fn check(&mut self) -> Result<(), End> {
        let Reader { token, username, org, uid, .. } = &self.reader;
        let over = |problem: Problem| End::Over(Box::new(problem));
        let caller = self.gateway.identities.again(token).await.map_err(|e| over(e.into()))?;
        let (now, namespace) = self.gateway.chain_of(org).map_err(over)?;
        if caller.username != *username || now != *uid {
            return Err(over(Problem::not_found(format!("Org {org} is not the one that was asked for any more"))));
        }
        self.gateway.may_read(&caller, &namespace).await.map_err(over)?;
        self.reader.checked = Instant::now();
        Ok(())
    }

    async fn send(&self, text: String) -> Result<(), End> {
        match timeout(self.gateway.streams.limits.stall, self.out.send(text.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Stalled),
        }
    }
}

/// Sequence and kind of a record's line. A kind that would not fit a line of the protocol is no name of an event.
fn head_of(line: &str) -> Result<(i64, String), End> {
    #[derive(Deserialize)]
    struct Head {
        seq: i64,
        kind: String,
    }
    let wrong = |what: String| End::Over(Box::new(Problem::unavailable(reasons::LEDGER_UNAVAILABLE, what)));
    let head: Head = serde_json::from_str(line).map_err(|e| wrong(format!("core gave a line that is no record: {e}")))?;
    if line.contains(['\n', '\r']) {
        return Err(wrong(format!("record {} does not fit one line", head.seq)));
    }
    let named = !head.kind.is_empty() && head.kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    Ok((head.seq, if named { head.kind } else { "record".to_owned() }))
}

fn one_line(refused: &Refused) -> String {
    refused.to_string().replace(['\n', '\r'], " ")
}
