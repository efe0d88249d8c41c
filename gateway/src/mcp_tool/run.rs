//! Sends a call that has begun: a conversation of its own for each try, within the Tool's time-out.

use std::time::{Duration, Instant};

use polity_api::reasons;
use polity_upstream::client::{Conversation, Endpoint, Failure, Farewell};
use serde_json::{Map, Value};

use super::{McpTools, Pass, answer};
use crate::http_tool::{Call, HttpTools, Ran, Tries, answer::masked, send::Channel};

/// Longest time for the end of a conversation, for which nobody waits.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a try ended.
#[derive(Debug)]
pub(super) enum Last {
    /// The tool was not called. None: not in time.
    NotCalled(Option<Failure>),
    /// Called, and this came instead of a result. None: nothing in time.
    Failed(Option<Failure>),
    /// The result as the server gave it.
    Result(Value),
}

impl Last {
    /// Whether another try may fare better.
    fn may_pass(&self) -> bool {
        match self {
            Self::NotCalled(Some(failure)) | Self::Failed(Some(failure)) => match failure {
                Failure::NotSent { .. } | Failure::Broken { .. } => true,
                Failure::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
                _ => false,
            },
            Self::NotCalled(None) | Self::Failed(None) => true,
            Self::Result(_) => false,
        }
    }

    /// Whether it says something of the server as a whole: true, it works; false, it does not. A call that takes long says nothing.
    fn works(&self) -> Option<bool> {
        match self {
            Self::Result(_) => Some(true),
            Self::NotCalled(None) => Some(false),
            Self::Failed(None) => None,
            Self::NotCalled(Some(failure)) | Self::Failed(Some(failure)) => Some(match failure {
                Failure::NotSent { .. } | Failure::Broken { .. } | Failure::Protocol(_) => false,
                Failure::Status { status, .. } => !(*status == 429 || *status >= 500),
                Failure::TooLarge | Failure::Refused { .. } => true,
            }),
        }
    }
}

impl McpTools {
    /// Runs the call to its end, within the Tool's time-out.
    pub async fn run(&self, http: &HttpTools, call: Call<'_>, pass: Pass) -> Ran {
        let Some(mcp) = call.tool.spec.runtime.mcp.as_ref() else {
            return Ran::not_done(reasons::TOOL_NOT_READY, "the Tool has no mcp runtime");
        };
        let timeout = Duration::from_secs(u64::try_from(call.tool.spec.timeout_seconds).unwrap_or(1).max(1));
        let mut tries = Tries::new(call.tool.spec.idempotent, Instant::now() + timeout);
        let opened = tokio::time::timeout(timeout, Channel::open(http, &call.tool.namespace, &mcp.endpoint(), call.trace)).await;
        let Channel { client, url, headers, secrets } = match opened {
            Ok(Ok(channel)) => channel,
            Ok(Err(ran)) => return ran,
            Err(_) => return Ran::not_done(reasons::TIMED_OUT, format!("no address of the server within {} s", timeout.as_secs())),
        };
        let endpoint = Endpoint { client, url, headers };
        loop {
            let last = once(endpoint.clone(), &mcp.tool, call, &tries, &pass).await;
            match last.works() {
                Some(true) => pass.upstream.worked(),
                Some(false) => pass.upstream.failed(),
                None => {}
            }
            if !tries.again(last.may_pass()).await {
                return answer::judge(last, call.tool, &pass.definition, timeout, &|text| masked(text, &secrets));
            }
        }
    }
}

async fn once(endpoint: Endpoint, name: &str, call: Call<'_>, tries: &Tries, pass: &Pass) -> Last {
    let mut conversation = match tokio::time::timeout(tries.left(), Conversation::open(endpoint)).await {
        Ok(Ok(conversation)) => conversation,
        Ok(Err(failure)) => return Last::NotCalled(Some(failure)),
        Err(_) => return Last::NotCalled(None),
    };
    let empty = Map::new();
    let input = call.input.as_object().unwrap_or(&empty);
    // Dropped in the middle, it tells the server that nobody waits any more.
    let leave = Leave::after(&conversation);
    let called = tokio::time::timeout(tries.left(), conversation.call(name, input, pass.definition.part("inputSchema"), call.trace)).await;
    if conversation.list_changed {
        pass.upstream.forget();
    }
    match called {
        Err(_) => Last::Failed(None),
        Ok(result) => {
            leave.end();
            result.map_or_else(|failure| Last::Failed(Some(failure)), Last::Result)
        }
    }
}

/// Ends a conversation, in the background; says before that nobody waits, unless told that it was answered.
pub(super) struct Leave(Option<Farewell>);

impl Leave {
    /// To be made before the request that may be dropped.
    pub fn after(conversation: &Conversation) -> Self {
        Self(Some(conversation.farewell()))
    }

    /// It was answered.
    pub fn end(mut self) {
        if let Some(farewell) = self.0.take() {
            background(async move { farewell.end().await });
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(farewell) = self.0.take() {
            background(async move { farewell.cancel().await });
        }
    }
}

fn background(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { tokio::time::timeout(FAREWELL, work).await });
    }
}
