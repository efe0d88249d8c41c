//! Stable reason codes of denials and conditions. A code never changes its meaning; the docs list every one.

/// Declares reason codes as constants and as a list with their meaning, from which the docs page is made.
macro_rules! reasons {
    ($(#[doc = $about:literal])+ $list:ident; $($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $code;)+
        $(#[doc = $about])+
        pub const $list: &[(&str, &str)] = &[$(($code, concat!($($doc),+))),+];
    };
}

/// Whether the docs list this word.
#[must_use]
pub fn is_listed(reason: &str) -> bool {
    ALL.iter().chain(STATES).any(|(code, _)| *code == reason)
}

reasons! {
    /// Every code of a denial or of a condition that is not met, with its meaning, in the order of this file.
    ALL;
    /// The caller is not an Agent of the Org.
    UNKNOWN_CALLER = "UnknownCaller";
    /// No Role of the caller grants this verb on this target.
    NOT_GRANTED = "NotGranted";
    /// A Policy rule with effect Deny did not hold.
    POLICY_DENIED = "PolicyDenied";
    /// A rule failed to evaluate; in Enforce that denies.
    POLICY_ERROR = "PolicyError";
    /// A Policy that selects this call does not compile.
    POLICY_INVALID = "PolicyInvalid";
    /// A Policy names arguments that the Tool does not have.
    POLICY_NOT_TYPED = "PolicyNotTyped";
    /// Two rules rewrite the input against each other: what one makes of it the other does not leave so.
    REWRITE_CONFLICT = "RewriteConflict";
    /// Rules in force now would change the input of this call, which is not changed any more; make a new call.
    REWRITE_CHANGED = "RewriteChanged";
    /// A rule reads counters or the history of the Task, and what they stand at is not known here.
    COUNTERS_UNKNOWN = "CountersUnknown";
    /// The budget of one decision (time or steps) was spent.
    DECISION_BUDGET_EXCEEDED = "DecisionBudgetExceeded";
    /// A rule panicked and is quarantined until its Policy changes.
    RULE_QUARANTINED = "RuleQuarantined";
    /// The view of the Org is older than 30 s.
    POLICY_STALE = "PolicyStale";
    /// A parent Org is missing, being deleted, or part of a cycle.
    ANCESTRY_BROKEN = "AncestryBroken";
    /// The namespace belongs to no Org, or the Org is not ready to take calls.
    ORG_NOT_READY = "OrgNotReady";
    /// The Org (or a parent) is suspended or has not reached `startAt`.
    ORG_SUSPENDED = "OrgSuspended";
    /// The Org is being deleted.
    ORG_DELETING = "OrgDeleting";
    /// The namespace does not consent to the Org, or no longer does.
    NAMESPACE_NOT_CONSENTING = "NamespaceNotConsenting";
    /// No such Tool is visible from the Org.
    TOOL_NOT_FOUND = "ToolNotFound";
    /// The Tool's own definition is not usable.
    TOOL_NOT_READY = "ToolNotReady";
    /// The MCP server lists another definition of the tool than the one pinned; the Tool is quarantined until its pin is changed.
    TOOL_DRIFTED = "ToolDrifted";
    /// What is behind a Tool cannot be asked now, has failed too often, or has too much under way already; nothing has run.
    UPSTREAM_UNAVAILABLE = "UpstreamUnavailable";
    /// The arguments do not match the Tool's input schema.
    INVALID_ARGUMENTS = "InvalidArguments";
    /// The input is larger than what is accepted inline.
    INPUT_TOO_LARGE = "InputTooLarge";
    /// The Task that the call names does not exist.
    TASK_NOT_FOUND = "TaskNotFound";
    /// The Task that the call names is canceled.
    TASK_CANCELED = "TaskCanceled";
    /// The call must wait for an Approval.
    APPROVAL_REQUIRED = "ApprovalRequired";
    /// A person denied the Approval.
    APPROVAL_DENIED = "ApprovalDenied";
    /// The Approval expired before it was complete; that counts as denied.
    APPROVAL_EXPIRED = "ApprovalExpired";
    /// The Approval does not fit what is about to run.
    APPROVAL_MISMATCH = "ApprovalMismatch";
    /// An Approval was used before; each is good for one run.
    ALREADY_USED = "AlreadyUsed";
    /// A budget or counter limit would be exceeded.
    BUDGET_EXCEEDED = "BudgetExceeded";
    /// Counters kept moving while the call was decided; try again.
    CONTENDED = "Contended";
    /// The idempotency key was used for another request.
    IDEMPOTENCY_KEY_REUSED = "IdempotencyKeyReused";
    /// This request has run already.
    ALREADY_EXECUTED = "AlreadyExecuted";
    /// The ledger cannot be reached or cannot write; nothing runs without its record.
    LEDGER_UNAVAILABLE = "LedgerUnavailable";
    /// The view that decided is not one that core knows as current; try again.
    STALE_SNAPSHOT = "StaleSnapshot";
    /// A guard or webhook configuration of Polity is missing or changed.
    ADMISSION_NOT_ENFORCED = "AdmissionNotEnforced";
    /// The call's caller was not stamped by Polity.
    CALLER_NOT_STAMPED = "CallerNotStamped";
    /// The caller canceled the call, or its Task was canceled.
    CANCELED = "Canceled";
    /// The tool ran and failed.
    TOOL_FAILED = "ToolFailed";
    /// The tool did not finish within its time-out and was stopped.
    TIMED_OUT = "TimedOut";
    /// The tool's result is larger than what is kept.
    RESULT_TOO_LARGE = "ResultTooLarge";
    /// The tool's result is not what its output schema says.
    INVALID_RESULT = "InvalidResult";
    /// A Policy's condition on results does not hold: the tool has run, and nothing of its result is delivered.
    POSTCONDITION_FAILED = "PostconditionFailed";
    /// What a Policy demands of results cannot be applied to this one: the tool has run, and nothing of its result is delivered.
    OBLIGATION_FAILED = "ObligationFailed";
    /// Polity refuses to connect to where the tool points.
    EGRESS_REFUSED = "EgressRefused";
    /// Nobody knows whether the tool took effect; a person settles it with `spec.resolution`.
    OUTCOME_UNKNOWN = "OutcomeUnknown";
    /// A person settled an unknown outcome.
    RESOLVED = "Resolved";
    /// The author of a Tool may not read the Secret that the Tool names.
    SECRET_NOT_READABLE = "SecretNotReadable";
    /// No node can run Pods here (simulated node): calls that need a Pod are refused.
    NO_POD_RUNTIME = "NoPodRuntime";
    /// The API server refuses the Pod that the call would run in; the message has its words.
    POD_REFUSED = "PodRefused";
    /// The call was deleted while it waited; what it had reserved is given back.
    CALL_DELETED = "CallDeleted";
    /// The person counts for no requirement of the Approval, or it is about the person's own request.
    NOT_AN_APPROVER = "NotAnApprover";
    /// The Approval is decided or withdrawn; no entry can be added any more.
    APPROVAL_ENDED = "ApprovalEnded";
    /// The user's Kubernetes rights lack a verb that this change needs.
    NOT_PERMITTED = "NotPermitted";
    /// The object can never be right as it is written.
    INVALID_DEFINITION = "InvalidDefinition";
    /// No Org may live in this namespace, or another Org does already.
    NAMESPACE_REFUSED = "NamespaceRefused";
    /// Another Agent of the Org tree has this username.
    USERNAME_TAKEN = "UsernameTaken";
    /// Roles report to each other in a circle.
    REPORTING_CYCLE = "ReportingCycle";
    /// A resolution is accepted once, and only for a call of phase Unknown.
    RESOLUTION_REFUSED = "ResolutionRefused";
    /// Admission could not be finished: a fault of Polity, or no time left. A retry may help.
    ADMISSION_FAILED = "AdmissionFailed";
    /// The request itself is malformed.
    INVALID_REQUEST = "InvalidRequest";
    /// The request carries no token that the API server accepts for audience `polity`.
    UNAUTHENTICATED = "Unauthenticated";
    /// There is no such thing here, or it is not yours to see.
    NOT_FOUND = "NotFound";
    /// Records after that sequence were dropped by retention: start with the oldest one that is left.
    RECORDS_DROPPED = "RecordsDropped";
    /// The chain ends before that sequence: it was restored from a backup, or is another one. Start anew.
    AHEAD_OF_CHAIN = "AheadOfChain";
    /// Too much is under way; try again a little later.
    TOO_MANY_REQUESTS = "TooManyRequests";
    /// Whoever runs the call did not stop it in time; it ends within its time-out.
    NOT_CANCELABLE = "NotCancelable";
    /// Something that Polity needs to answer cannot be reached; try again.
    UNAVAILABLE = "Unavailable";
    /// Another object has the name of one that Polity must make.
    NAME_TAKEN = "NameTaken";
    /// The namespace is being deleted; it is made anew when it is gone.
    NAMESPACE_TERMINATING = "NamespaceTerminating";
    /// Orgs below exist; an Org is deleted after them.
    CHILDREN_EXIST = "ChildrenExist";
    /// A member's name starts with `system:`.
    MEMBER_REFUSED = "MemberRefused";
    /// A quantity of the quota cannot be read.
    QUOTA_INVALID = "QuotaInvalid";
    /// The Org asks more quota than its parent has left.
    QUOTA_UNAVAILABLE = "QuotaUnavailable";
    /// Quota is to shrink, or to come from another Org, but is still in use.
    QUOTA_IN_USE = "QuotaInUse";
    /// The Role that a Role reports to does not exist, or is not exported.
    SUPERIOR_NOT_FOUND = "SuperiorNotFound";
    /// An Agent that a Role is assigned to does not exist.
    AGENT_NOT_FOUND = "AgentNotFound";
    /// A ServiceAccount or another name of the system is not a person.
    NOT_HUMAN = "NotHuman";
    /// Workers cannot be made: quota or policy of the cluster refuses them.
    SCALING_LIMITED = "ScalingLimited";
    /// Workers end again and again.
    CRASH_LOOPING = "CrashLooping";
    /// Polity cannot read the object as it is stored.
    UNDECODABLE = "Undecodable";
}

reasons! {
    /// Every word for how things are where nothing is refused.
    STATES;
    /// Polity has not seen the object yet.
    NOT_SEEN = "NotSeen";
    /// The stages before this one are not done.
    WAITING = "Waiting";
    /// Kubernetes does not count a quota yet that it will limit by; that takes up to a minute on a new cluster, and nothing starts before.
    QUOTA_NOT_COUNTED = "QuotaNotCounted";
    /// This stage is done.
    DONE = "Done";
    /// Everything of the Org is there.
    PROVISIONED = "Provisioned";
    /// The Org, or a parent, has a `startAt` that has not come.
    NOT_YET_STARTED = "NotYetStarted";
    /// Calls and workers of the Org may run.
    STARTED = "Started";
    /// The Policy's rules and obligations bind.
    IN_FORCE = "InForce";
    /// Calls of the Tool can run, as far as its definition goes.
    USABLE = "Usable";
    /// Something about the Tool is a reason for people to look: text hidden from them, or a name that looks like another's.
    LOOKS_SUSPICIOUS = "LooksSuspicious";
    /// Decisions know the Agent by its usernames.
    KNOWN = "Known";
    /// Workers are asked for and not all ready.
    STARTING = "Starting";
    /// All workers are ready; or, of a call, the tool runs.
    RUNNING = "Running";
    /// The Role's holders are known.
    ASSIGNED = "Assigned";
    /// Calls may name the Task.
    OPEN = "Open";
    /// Enough of the right people approved.
    APPROVED = "Approved";
    /// The Org is gone and its chain is closed.
    ORG_CLOSED = "OrgClosed";
    /// The ledger was restored from a backup, and the operator said so.
    LEDGER_RESTORED = "LedgerRestored";
    /// The same request ran before; this is its outcome.
    IDEMPOTENCY_REPLAY = "IdempotencyReplay";
}
