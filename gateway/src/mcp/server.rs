//! What one MCP request is answered. The SDK speaks the protocol; this says what the server is, lists, and hands calls on.

use std::{sync::Arc, time::Duration};

use polity_api::{Caller, reasons};
use polity_policy::Snapshot;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
        ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use tokio::time::Instant;

use super::{list, meta::Told, resources, result, session};
use crate::{
    calls::Patience,
    decide::{Ask, VERB, busy},
    id,
    metrics::Door,
    state::Gateway,
    trace,
};

/// How often a client that asked for progress hears that its call still runs.
const PROGRESS: Duration = Duration::from_secs(2);
/// What a Tool's own time is waited for beyond it, so that the time-out's own answer arrives.
const BEYOND: Duration = Duration::from_secs(10);
/// Longest that a request is held open.
const LONGEST: Duration = Duration::from_secs(900);

const INSTRUCTIONS: &str = "Every call is decided by the rules of the organisation, recorded, and only then run. A result with isError says in its text \
    whether the call was denied (with rule, reason and what would pass), failed, or waits for a person; nothing has run where it says so. The resources are \
    your own calls and what they wait for.";

/// One request's view of an Org.
#[derive(Clone)]
pub struct Server {
    gateway: Arc<Gateway>,
    org: String,
    caller: Arc<Caller>,
    traceparent: Option<String>,
    session: Option<String>,
}

impl Server {
    /// For one request of a caller, in the session that it names.
    pub fn new(gateway: Arc<Gateway>, org: String, caller: Arc<Caller>, traceparent: Option<String>, session: Option<String>) -> Self {
        Self { gateway, org, caller, traceparent, session }
    }

    /// Only Agents of the Org have anything here. The lists that ask this have one page.
    fn agent(&self, page: Option<&PaginatedRequestParams>) -> Result<(), ErrorData> {
        let view = self.gateway.view(&self.org).map_err(|problem| result::refusal(&problem))?;
        if view.agent_by_username(&self.caller.username).is_none() {
            let message = format!("{:?} is not the username of exactly one Agent of Org {}", self.caller.username, self.org);
            return Err(result::refused(reasons::UNKNOWN_CALLER, &message));
        }
        match page.and_then(|page| page.cursor.as_ref()) {
            Some(_) => Err(ErrorData::invalid_params("the cursor is none that was given out", None)),
            None => Ok(()),
        }
    }

    /// The Tools listed to this caller, or why there are none.
    fn listed(&self) -> Result<Vec<rmcp::model::Tool>, ErrorData> {
        let view = self.gateway.view(&self.org).map_err(|problem| result::refusal(&problem))?;
        let reachable = view.reachable(VERB, &self.caller.username, self.gateway.clock.now());
        let reachable = reachable.map_err(|(reason, message)| result::refused(reason, &message))?;
        Ok(list::tools(&self.org, &reachable, |name| self.is_tool(&view, name)))
    }

    /// Whether a name is that of a Tool, usable or not.
    fn is_tool(&self, view: &Snapshot, name: &str) -> bool {
        let (org, tool) = list::named(name);
        view.tool(tool, org).is_some()
    }

    /// Org and name of the Tool that a client calls so.
    fn meant(&self, view: &Snapshot, name: &str) -> (Option<String>, String) {
        let (org, tool) = list::named(name);
        if !self.is_tool(view, name)
            && let Ok(reachable) = view.reachable(VERB, &self.caller.username, self.gateway.clock.now())
            && let Some(facts) = list::aliased(name, &reachable, |name| self.is_tool(view, name))
        {
            return (Some(facts.org.clone()).filter(|org| *org != self.org), facts.name.clone());
        }
        (org.map(str::to_owned), tool.to_owned())
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let name = Implementation::new("polity", env!("CARGO_PKG_VERSION")).with_title(format!("Polity: Org {}", self.org));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_resources().build())
            .with_server_info(name)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        list::page(self.listed()?, request.and_then(|r| r.cursor).as_deref())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.agent(request.as_ref())?;
        Ok(resources::list(&self.org))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        self.agent(request.as_ref())?;
        Ok(resources::templates(&self.org))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.agent(None)?;
        Ok(resources::read(&self.gateway, &self.org, &self.caller, &request.uri).await?.into())
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let told = Told::of(&context.meta)?;
        let Ok(_slot) = self.gateway.call_slots.try_acquire() else { return Ok(result::of_problem(&busy()).into()) };
        let view = match self.gateway.view(&self.org) {
            Ok(view) => view,
            Err(problem) => return Ok(result::of_problem(&problem).into()),
        };
        let (tool_org, tool) = self.meant(&view, &request.name);
        let tool_org = tool_org.as_deref();
        let spec = told.spec(&tool, tool_org, request.arguments.unwrap_or_default()).map_err(|problem| result::refusal(&problem))?;
        let takes = view.tool(&tool, tool_org).map_or(0, |t| u64::try_from(t.spec.timeout_seconds).unwrap_or_default());
        let run = told.wait.unwrap_or(Duration::from_secs(takes) + BEYOND).min(LONGEST);
        let id = id::new(view.org_uid(), &self.caller.username, rand::random());
        let key = spec.idempotency_key.clone();
        let traced = trace::of_text(context.meta.get_traceparent().or(self.traceparent.as_deref()), rand::random());
        let ask = Ask::new(&self.org, self.caller.as_ref().clone(), spec, id, traced);

        // Since 2026-07-28 a client that closes the stream cancels; before, it had only lost it, and cancels by a notice of its session.
        let modern = context.protocol_version().is_some_and(|v| v.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
        let session = self.session.as_deref().filter(|_| !modern);
        let named = session.map(|name| session::key(view.org_uid(), &self.caller.username, name, &context.id));
        let leash = self.gateway.under_way.leash(named.into_iter().chain([ask.id.clone()]).collect());
        let guard = modern.then(|| leash.token().clone().drop_guard());
        let call = self.gateway.call(Door::Mcp, ask, Patience { run, people: Duration::ZERO }, leash);
        let answer = tokio::select! {
            answer = call => answer,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("canceled", None)),
            () = progress(&context) => return Err(ErrorData::internal_error("no progress", None)),
        };
        if let Some(guard) = guard {
            guard.disarm();
        }
        match answer {
            Ok(answer) => Ok(result::of_answer(&answer, &self.org, &request.name, key.as_deref()).into()),
            Err(problem) if result::is_unknown_tool(&problem) => Err(result::refusal(&problem)),
            Err(problem) => Ok(result::of_problem(&problem).into()),
        }
    }
}

/// Tells a client that asked for it how long its call has been under way. Never ends.
async fn progress(context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    let started = Instant::now();
    loop {
        tokio::time::sleep(PROGRESS).await;
        let seconds = started.elapsed().as_secs();
        let said = ProgressNotificationParam::new(token.clone(), started.elapsed().as_secs_f64())
            .with_message(format!("under way for {seconds} s"));
        // Who does not listen to progress may still want the answer.
        let _ = context.peer.notify_progress(said).await;
    }
}
