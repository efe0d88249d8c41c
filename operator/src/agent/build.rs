//! Account and worker Pods of an AI Agent. Pure.
//!
//! A worker is restricted, has no API access, and speaks to the edge with one projected token of audience `polity`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
        PodSecurityContext, PodSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccount,
        ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{ResourceExt, api::ObjectMeta};
use polity_api::{Agent, Org, names};
use sha2::{Digest, Sha256};

use crate::apply::{labels, owner};

/// On a worker: how often its place had failed in a row when it was made.
pub const ATTEMPT: &str = "polity.dev/attempt";
/// User and group of workers.
const NOBODY: i64 = 65532;
const TOKEN_DIR: &str = "/var/run/polity/token";
const CA_DIR: &str = "/var/run/polity/ca";

/// The account of an AI Agent; it has no rights.
pub fn account(agent: &Agent, org: &Org) -> ServiceAccount {
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(names::agent_account(&agent.name_any())),
            namespace: agent.namespace(),
            labels: Some(labels(&org.name_any(), "Agent", &agent.name_any())),
            owner_references: Some(vec![owner(agent)]),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// What every worker of an Agent has in common.
pub struct Template {
    agent: String,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    owner: OwnerReference,
    spec: PodSpec,
}

impl Template {
    /// Digest of what a worker is made of: a change of it rolls out.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(&self.spec).unwrap_or_default();
        hex::encode(&Sha256::digest(&text)[..8])
    }

    /// One worker.
    pub fn pod(&self, suffix: &str, attempt: u32) -> Pod {
        let mut labels = self.labels.clone();
        labels.insert(names::LABEL_TEMPLATE.to_owned(), self.digest());
        Pod {
            metadata: ObjectMeta {
                name: Some(format!("agent-{}-{suffix}", self.agent)),
                namespace: self.namespace.clone(),
                labels: Some(labels),
                annotations: (attempt > 0).then(|| [(ATTEMPT.to_owned(), attempt.to_string())].into()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec.clone()),
            ..Pod::default()
        }
    }
}

/// The template of an Agent's workers.
pub fn template(agent: &Agent, org: &Org, edge_url: &str) -> Template {
    Template {
        agent: agent.name_any(),
        namespace: agent.namespace(),
        labels: labels(&org.name_any(), "Agent", &agent.name_any()),
        owner: owner(agent),
        spec: PodSpec {
            service_account_name: Some(names::agent_account(&agent.name_any())),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Never".to_owned()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                run_as_group: Some(NOBODY),
                fs_group: Some(NOBODY),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(agent, org, edge_url)],
            volumes: Some(volumes()),
            ..PodSpec::default()
        },
    }
}

fn container(agent: &Agent, org: &Org, edge_url: &str) -> Container {
    let spec = &agent.spec;
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    // Polity's own come last and win, though the schema refuses others of these names.
    let own = [
        value("POLITY_URL", format!("{}/v1/orgs/{}", edge_url.trim_end_matches('/'), org.name_any())),
        value("POLITY_ORG", org.name_any()),
        value("POLITY_AGENT", agent.name_any()),
        value("POLITY_TOKEN_FILE", format!("{TOKEN_DIR}/token")),
        value("POLITY_CA_FILE", format!("{CA_DIR}/ca.crt")),
        EnvVar {
            name: "POLITY_POD_UID".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.uid".to_owned() }),
                ..EnvVarSource::default()
            }),
        },
    ];
    let given = spec.env.iter().flatten().filter(|e| !e.name.starts_with("POLITY_")).map(|e| value(&e.name, e.value.clone()));
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    Container {
        name: "worker".to_owned(),
        image: spec.image.clone(),
        command: spec.command.clone(),
        env: Some(given.chain(own).collect()),
        resources: spec.resources.as_ref().map(|r| ResourceRequirements {
            requests: (!r.requests.is_empty()).then(|| r.requests.clone()),
            limits: (!r.limits.is_empty()).then(|| r.limits.clone()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount("tmp", "/tmp", None), mount("token", TOKEN_DIR, Some(true)), mount("ca", CA_DIR, Some(true))]),
        ..Container::default()
    }
}

fn volumes() -> Vec<Volume> {
    let token = ServiceAccountTokenProjection {
        audience: Some(names::AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: "token".to_owned(),
    };
    vec![
        Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() },
        Volume {
            name: "token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "ca".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: names::CA_CONFIGMAP.to_owned(), ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
    ]
}
