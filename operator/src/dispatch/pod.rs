//! The Pod of one container call, built from what was decided. Pure: never talks to the cluster.
//!
//! The Pod runs under the Org's rightless account without an API token. An init container copies the shim in;
//! the tool's own image then starts under it. The one token in the Pod has audience `polity` and lives ten minutes
//! at least, so that the edge can tell which Pod asks.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, Pod, PodSecurityContext, PodSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference};
use kube::api::ObjectMeta;
use polity_api::{agent::Resources, names, tool::Container as ToolContainer};
use polity_runtime::subject;

/// Where the shim is copied to.
const BIN: &str = "/run/polity/bin";
/// Where token and CA are mounted.
const IDENTITY: &str = "/run/polity/identity";
/// Where the tool's Secrets are mounted, one directory each.
const SECRETS: &str = "/run/polity/secrets";

/// What a Pod is built from.
pub struct ToolPod<'a> {
    /// Name of the Org.
    pub org: &'a str,
    /// Namespace of the Org.
    pub namespace: &'a str,
    /// Id of the call.
    pub id: &'a str,
    /// The tool's container.
    pub container: &'a ToolContainer,
    /// Seconds the tool may run.
    pub timeout_seconds: i32,
    /// Seconds the Pod may exist beyond that, for start and report.
    pub grace_seconds: i64,
    /// Image that has the shim.
    pub shim_image: &'a str,
    /// Base URL of the edge.
    pub edge_url: &'a str,
    /// The ToolCall, when there is one.
    pub owner: Option<OwnerReference>,
    /// W3C traceparent.
    pub trace: &'a str,
}

/// Builds the Pod.
#[must_use]
pub fn build(call: &ToolPod<'_>) -> Pod {
    let mut mounts = vec![mount("bin", BIN, true), mount("identity", IDENTITY, true), mount("tmp", "/tmp", false)];
    let mut volumes = vec![empty("bin"), empty("tmp"), identity()];
    for (index, secret) in call.container.secrets.iter().enumerate() {
        let name = format!("secret-{index}");
        mounts.push(mount(&name, &format!("{SECRETS}/{}", secret.name), true));
        volumes.push(Volume {
            name,
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                default_mode: Some(0o444),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    let mut command = vec![format!("{BIN}/polity-shim"), "run".to_owned(), "--".to_owned()];
    command.extend(call.container.command.iter().cloned());
    Pod {
        metadata: ObjectMeta {
            name: Some(subject::pod_name(call.id)),
            namespace: Some(call.namespace.to_owned()),
            labels: Some(subject::pod_labels(call.org, call.id)),
            owner_references: call.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            service_account_name: Some(names::TOOL_ACCOUNT.to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: Some(i64::from(call.timeout_seconds) + call.grace_seconds),
            termination_grace_period_seconds: Some(2),
            security_context: Some(pod_security()),
            init_containers: Some(vec![Container {
                name: "shim".to_owned(),
                image: Some(call.shim_image.to_owned()),
                command: Some(vec!["/polity-shim".to_owned(), "install".to_owned(), BIN.to_owned()]),
                volume_mounts: Some(vec![mount("bin", BIN, false)]),
                security_context: Some(container_security()),
                resources: Some(small()),
                ..Container::default()
            }]),
            containers: vec![Container {
                name: "tool".to_owned(),
                image: Some(call.container.image.clone()),
                command: Some(command),
                env: Some(env(call)),
                volume_mounts: Some(mounts),
                security_context: Some(container_security()),
                resources: call.container.resources.as_ref().map(resources),
                working_dir: Some("/tmp".to_owned()),
                ..Container::default()
            }],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn env(call: &ToolPod<'_>) -> Vec<EnvVar> {
    let var = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let mut env: Vec<EnvVar> = call.container.env.iter().map(|e| var(&e.name, &e.value)).collect();
    env.extend([
        var("POLITY_URL", call.edge_url),
        var("POLITY_CALL_ID", call.id),
        var("POLITY_TOKEN_FILE", &format!("{IDENTITY}/token")),
        var("POLITY_CA_FILE", &format!("{IDENTITY}/ca.crt")),
        var("POLITY_TIMEOUT_SECONDS", &call.timeout_seconds.to_string()),
        var("TRACEPARENT", call.trace),
    ]);
    env
}

/// Token and CA certificate in one read-only volume.
fn identity() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(names::AUDIENCE.to_owned()),
        expiration_seconds: Some(600),
        path: "token".to_owned(),
    };
    let ca = ConfigMapVolumeSource { name: names::CA_CONFIGMAP.to_owned(), ..ConfigMapVolumeSource::default() };
    Volume {
        name: "identity".to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o444),
            sources: Some(vec![
                VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
                VolumeProjection {
                    config_map: Some(k8s_openapi::api::core::v1::ConfigMapProjection { name: ca.name, ..Default::default() }),
                    ..VolumeProjection::default()
                },
            ]),
        }),
        ..Volume::default()
    }
}

fn empty(name: &str) -> Volume {
    let source = EmptyDirVolumeSource { size_limit: Some(Quantity("64Mi".to_owned())), ..EmptyDirVolumeSource::default() };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: Some(read_only), ..VolumeMount::default() }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(65_532),
        run_as_group: Some(65_532),
        fs_group: Some(65_532),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..SecurityContext::default()
    }
}

fn small() -> ResourceRequirements {
    let amount = |cpu: &str, memory: &str| {
        BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned())), ("memory".to_owned(), Quantity(memory.to_owned()))])
    };
    ResourceRequirements { requests: Some(amount("10m", "16Mi")), limits: Some(amount("500m", "64Mi")), ..ResourceRequirements::default() }
}

fn resources(given: &Resources) -> ResourceRequirements {
    let some = |map: &BTreeMap<String, Quantity>| (!map.is_empty()).then(|| map.clone());
    ResourceRequirements { requests: some(&given.requests), limits: some(&given.limits), ..ResourceRequirements::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let container = ToolContainer {
            image: "docker.io/acme/pay:1".to_owned(),
            command: vec!["/pay".to_owned(), "now".to_owned()],
            secrets: vec![polity_api::tool::SecretRef { name: "bank".to_owned() }],
            ..ToolContainer::default()
        };
        build(&ToolPod {
            org: "acme",
            namespace: "acme",
            id: "u-1",
            container: &container,
            timeout_seconds: 30,
            grace_seconds: 60,
            shim_image: "docker.io/polity/polity:dev",
            edge_url: "https://polity-edge.polity-system.svc",
            owner: None,
            trace: "00-0-0-01",
        })
    }

    #[test]
    fn has_no_rights_and_one_token() {
        let pod = serde_json::to_value(pod()).unwrap();
        let spec = &pod["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["serviceAccountName"], names::TOOL_ACCOUNT);
        for container in ["initContainers", "containers"] {
            let context = &spec[container][0]["securityContext"];
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
        }
        let tokens: Vec<_> = spec["volumes"].as_array().unwrap().iter().filter(|v| v.to_string().contains("serviceAccountToken")).collect();
        assert_eq!(tokens.len(), 1);
        assert!(tokens[0].to_string().contains(r#""audience":"polity""#));
    }

    #[test]
    fn runs_the_tool_under_the_shim_within_its_time() {
        let pod = serde_json::to_value(pod()).unwrap();
        assert_eq!(pod["spec"]["containers"][0]["command"], serde_json::json!(["/run/polity/bin/polity-shim", "run", "--", "/pay", "now"]));
        assert_eq!(pod["spec"]["activeDeadlineSeconds"], 90);
        assert_eq!(pod["metadata"]["name"], "call-u-1");
        assert!(pod["spec"]["containers"][0]["volumeMounts"].to_string().contains("/run/polity/secrets/bank"));
    }
}
