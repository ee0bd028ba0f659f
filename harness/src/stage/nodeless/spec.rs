//! From a pod's specification to what a kubelet would make of it: files, environment, users, probes. Pure: the API
//! server's objects are given, the engine is not known.
//!
//! What a specification has and nobody here carries out is listed, never dropped silently.

mod env;
mod probing;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, KeyToPath, PodSecurityContext, PodSpec, Secret, SecurityContext,
    Volume,
};
use serde_json::Value;

use crate::stage::NoEnvironment;
use crate::stage::containers::{VolumeFile, VolumeMount};

use env::expand;
pub(super) use probing::{Check, Probing};

/// Where a service account's files are (kubelet, `serviceaccount` admission).
const ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The volume with those files.
const ACCOUNT_VOLUME: &str = "catwalk-service-account";
/// Fields of a pod's specification that are carried out.
const POD: [&str; 14] = [
    "containers",
    "initContainers",
    "volumes",
    "hostAliases",
    "dnsPolicy",
    "dnsConfig",
    "hostname",
    "serviceAccount",
    "serviceAccountName",
    "automountServiceAccountToken",
    "securityContext",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "hostNetwork",
];
/// Fields that mean nothing where nothing is scheduled.
const SCHEDULING: [&str; 8] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "schedulerName",
    "priorityClassName",
    "priority",
    "topologySpreadConstraints",
    "enableServiceLinks",
];
/// Fields of a container that are carried out, or that say only how its end is reported.
const CONTAINER: [&str; 15] = [
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "securityContext",
    "readinessProbe",
    "livenessProbe",
    "ports",
    "terminationMessagePath",
    "terminationMessagePolicy",
];

/// What the API server knows that the pod refers to.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
}

/// Who the pod is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub node: String,
}

/// A service account's files.
#[derive(Clone)]
pub(super) struct Account {
    pub token: String,
    /// The API server's authority, PEM.
    pub authority: String,
}

/// One container as it is to run.
#[derive(Clone, Debug, Default)]
pub(super) struct Planned {
    pub name: String,
    pub image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub mounts: Vec<VolumeMount>,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub security: Vec<String>,
    pub read_only_root: bool,
    pub readiness: Option<Probing>,
    pub liveness: Option<Probing>,
}

/// The names of the ConfigMaps and Secrets that a specification refers to.
pub(super) fn refers_to(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
        }
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret_ref.iter().map(|source| source.name.clone()));
        }
    }
    (maps, secrets)
}

/// Lines of `/etc/hosts` for the pod's aliases.
pub(super) fn hosts(spec: &PodSpec) -> Option<String> {
    let aliases = spec.host_aliases.iter().flatten();
    let lines: Vec<String> = aliases
        .map(|alias| {
            format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
            )
        })
        .collect();
    (!lines.is_empty()).then(|| format!("\n# Entries added by HostAliases.\n{}", lines.concat()))
}

/// One pod's plan in the making.
pub(super) struct Planner<'a> {
    pub spec: &'a PodSpec,
    pub identity: &'a Identity,
    pub sources: &'a Sources,
    pub account: Option<&'a Account>,
    /// Whether the engine can mount a part of a volume.
    pub mounts_parts: bool,
    pub not_carried_out: BTreeSet<String>,
}

impl Planner<'_> {
    fn bad(&self, why: impl std::fmt::Display) -> NoEnvironment {
        NoEnvironment::because(format!(
            "starting pod {}/{}: {why}",
            self.identity.namespace, self.identity.name
        ))
    }

    fn note(&mut self, what: impl Into<String>) {
        self.not_carried_out.insert(what.into());
    }

    /// Lists what is not carried out of the specification as a whole.
    pub(super) fn note_what_is_left_out(&mut self) {
        let given = |value: &Value| {
            !matches!(value, Value::Null)
                && *value != serde_json::json!({})
                && *value != serde_json::json!([])
        };
        let pod = serde_json::to_value(self.spec).unwrap_or_default();
        for (field, value) in pod.as_object().into_iter().flatten().filter(|(_, value)| given(value)) {
            if SCHEDULING.contains(&field.as_str()) {
                self.note("scheduling");
            } else if !POD.contains(&field.as_str()) {
                self.note(format!("{field}: {value}"));
            }
        }
        if self.spec.host_network == Some(true) {
            self.note("hostNetwork: it has an address of its own");
        }
        for list in ["initContainers", "containers"] {
            for container in pod[list].as_array().into_iter().flatten() {
                let name = container["name"].as_str().unwrap_or_default();
                for (field, value) in container.as_object().into_iter().flatten().filter(|(_, v)| given(v)) {
                    if !CONTAINER.contains(&field.as_str()) {
                        self.note(format!("container {name}, {field}: {value}"));
                    }
                }
            }
        }
    }

    /// A container as it is to run in a pod of that address.
    pub(super) fn container(
        &mut self,
        container: &Container,
        address: IpAddr,
        api_server: (IpAddr, u16),
    ) -> Result<Planned, NoEnvironment> {
        let env = self.env(container, address, api_server)?;
        let expand = |words: &Option<Vec<String>>| {
            words.iter().flatten().map(|word| expand(word, &env)).collect::<Vec<String>>()
        };
        let (command, args) = (expand(&container.command), expand(&container.args));
        let pod = self.spec.security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        let security = self.security(&container.name, &pod, &own)?;
        let mounts = self.mounts(container)?;
        let user = own.run_as_user.or(pod.run_as_user);
        let group = own.run_as_group.or(pod.run_as_group);
        let user = match (user, group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_string()),
            (None, _) => None,
        };
        let groups =
            pod.supplemental_groups.iter().flatten().chain(&pod.fs_group).map(i64::to_string).collect();
        let capabilities = own.capabilities.clone().unwrap_or_default();
        let readiness = self.probing(container, container.readiness_probe.as_ref());
        let liveness = self.probing(container, container.liveness_probe.as_ref());
        Ok(Planned {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            command,
            args,
            env,
            working_dir: container.working_dir.clone(),
            user,
            groups,
            mounts,
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            security,
            read_only_root: own.read_only_root_filesystem == Some(true),
            readiness,
            liveness,
        })
    }

    fn security(
        &mut self,
        container: &str,
        pod: &PodSecurityContext,
        own: &SecurityContext,
    ) -> Result<Vec<String>, NoEnvironment> {
        let must_not_be_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
        match own.run_as_user.or(pod.run_as_user) {
            Some(0) if must_not_be_root => {
                return Err(self.bad(format!("container {container} has runAsNonRoot and runs as user 0")));
            }
            None if must_not_be_root => {
                self.note(format!("container {container}, runAsNonRoot: of the image's own user"))
            }
            _ => {}
        }
        if own.privileged == Some(true) {
            self.note(format!("container {container}, privileged"));
        }
        for (what, given) in [
            ("seLinuxOptions", own.se_linux_options.is_some()),
            ("appArmorProfile", own.app_armor_profile.is_some()),
            ("procMount", own.proc_mount.is_some()),
        ] {
            if given {
                self.note(format!("container {container}, {what}"));
            }
        }
        let mut options = Vec::new();
        if own.allow_privilege_escalation == Some(false) {
            options.push("no-new-privileges".to_owned());
        }
        match own
            .seccomp_profile
            .as_ref()
            .or(pod.seccomp_profile.as_ref())
            .map(|profile| profile.type_.as_str())
        {
            // The engine's own default is the runtime's.
            None | Some("RuntimeDefault") => {}
            Some("Unconfined") => options.push("seccomp=unconfined".to_owned()),
            Some(other) => self.note(format!("container {container}, seccompProfile {other}")),
        }
        Ok(options)
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
