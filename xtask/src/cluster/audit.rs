//! The audit policy: who did what to which object, without bodies, so that writes can be counted.

/// Every request once, when it is complete.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
";
