//! From a pod's specification to what a kubelet would make of it: files, environment, users, probes. Pure: the API
//! server's objects are given, the engine is not known.
//!
//! What a specification has and nobody here carries out is listed, never dropped silently.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, KeyToPath, PodSecurityContext, PodSpec, Secret, SecurityContext,
    Volume,
};
use serde_json::Value;

use crate::stage::NoEnvironment;
use crate::stage::containers::{VolumeFile, VolumeMount};

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

/// A probe and its rhythm, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probing {
    pub check: Check,
    pub period: u64,
    pub timeout: u64,
    pub failures: u32,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Exec(Vec<String>),
    Tcp(u16),
    Http { port: u16, path: String },
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

    /// The files of each volume.
    pub(super) fn volumes(&mut self) -> Result<BTreeMap<String, Vec<VolumeFile>>, NoEnvironment> {
        let group = self.spec.security_context.as_ref().and_then(|context| context.fs_group).unwrap_or(0);
        let group = u64::try_from(group).unwrap_or(0);
        let mut volumes = BTreeMap::new();
        for volume in self.spec.volumes.iter().flatten() {
            let mut files = self.files(volume)?;
            for file in &mut files {
                file.group = group;
                if group != 0 {
                    // The kubelet lets the volume's group read what the owner reads (volume_linux.go, `SetVolumeOwnership`).
                    file.mode |= (file.mode & 0o700) >> 3 & 0o440;
                }
            }
            volumes.insert(volume.name.clone(), files);
        }
        if let Some(account) = self.account {
            let file = |path: &str, text: &str| VolumeFile {
                path: path.to_owned(),
                mode: 0o644,
                group,
                bytes: text.as_bytes().to_vec(),
            };
            let files = vec![
                file("token", &account.token),
                file("ca.crt", &account.authority),
                file("namespace", &self.identity.namespace),
            ];
            volumes.insert(ACCOUNT_VOLUME.to_owned(), files);
        }
        Ok(volumes)
    }

    fn files(&mut self, volume: &Volume) -> Result<Vec<VolumeFile>, NoEnvironment> {
        if let Some(source) = &volume.config_map {
            return self.of_config_map(
                &source.name,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
            );
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            return self.of_secret(name, source.items.as_deref(), source.default_mode, source.optional);
        }
        if volume.empty_dir.is_some() {
            return Ok(Vec::new());
        }
        if let Some(projected) = &volume.projected {
            let mut files = Vec::new();
            for source in projected.sources.iter().flatten() {
                let mode = projected.default_mode;
                if let Some(map) = &source.config_map {
                    files.extend(self.of_config_map(&map.name, map.items.as_deref(), mode, map.optional)?);
                } else if let Some(secret) = &source.secret {
                    files.extend(self.of_secret(
                        &secret.name,
                        secret.items.as_deref(),
                        mode,
                        secret.optional,
                    )?);
                } else {
                    self.note(format!(
                        "volume {}: a projected source that is no ConfigMap and no Secret",
                        volume.name
                    ));
                }
            }
            return Ok(files);
        }
        self.note(match &volume.host_path {
            Some(path) => {
                format!("volume {}: an empty folder in place of the node's {}", volume.name, path.path)
            }
            None => format!("volume {}: an empty folder in place of its source", volume.name),
        });
        Ok(Vec::new())
    }

    fn of_config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let Some(map) = self.sources.config_maps.get(name) else {
            return if optional == Some(true) {
                Ok(Vec::new())
            } else {
                Err(self.bad(format!("there is no ConfigMap {name}")))
            };
        };
        let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.as_bytes().to_vec()));
        let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        self.of_keys(texts.chain(binary).collect(), items, mode, optional)
    }

    fn of_secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let Some(secret) = self.sources.secrets.get(name) else {
            return if optional == Some(true) {
                Ok(Vec::new())
            } else {
                Err(self.bad(format!("there is no Secret {name}")))
            };
        };
        let keys = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        self.of_keys(keys.collect(), items, mode, optional)
    }

    fn of_keys(
        &self,
        mut keys: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let file = |path: String, mode: Option<i32>, bytes| VolumeFile {
            path,
            mode: mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644),
            group: 0,
            bytes,
        };
        let Some(items) = items else {
            return Ok(keys.into_iter().map(|(key, bytes)| file(key, mode, bytes)).collect());
        };
        let mut files = Vec::new();
        for item in items {
            match keys.remove(&item.key) {
                Some(bytes) => files.push(file(item.path.clone(), item.mode.or(mode), bytes)),
                None if optional == Some(true) => {}
                None => {
                    return Err(
                        self.bad(format!("a volume refers to the key {}, which is not there", item.key))
                    );
                }
            }
        }
        Ok(files)
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

    fn mounts(&mut self, container: &Container) -> Result<Vec<VolumeMount>, NoEnvironment> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let known = self.spec.volumes.iter().flatten().any(|volume| volume.name == mount.name);
            if !known {
                return Err(self
                    .bad(format!("container {} mounts {}, which is no volume", container.name, mount.name)));
            }
            if mount.sub_path_expr.is_some() || (mount.sub_path.is_some() && !self.mounts_parts) {
                self.note(format!(
                    "container {}, {}: its part of a volume (the engine must be Docker 26 or newer)",
                    container.name, mount.mount_path
                ));
                continue;
            }
            mounts.push(VolumeMount {
                volume: mount.name.clone(),
                path: mount.mount_path.clone(),
                read_only: mount.read_only == Some(true),
                sub_path: mount.sub_path.clone(),
            });
        }
        if self.account.is_some() && !mounts.iter().any(|mount| mount.path == ACCOUNT_PATH) {
            mounts.push(VolumeMount {
                volume: ACCOUNT_VOLUME.to_owned(),
                path: ACCOUNT_PATH.to_owned(),
                read_only: true,
                sub_path: None,
            });
        }
        Ok(mounts)
    }

    /// The environment: where the API server is, then `envFrom`, then `env`, each of which may refer to those before.
    fn env(
        &mut self,
        container: &Container,
        address: IpAddr,
        (api_host, api_port): (IpAddr, u16),
    ) -> Result<BTreeMap<String, String>, NoEnvironment> {
        let mut env = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST".to_owned(), api_host.to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), api_port.to_string()),
            ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), api_port.to_string()),
        ]);
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            if let Some(reference) = &source.config_map_ref {
                match self.sources.config_maps.get(&reference.name) {
                    Some(map) => env
                        .extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                    None if reference.optional == Some(true) => {}
                    None => return Err(self.bad(format!("there is no ConfigMap {}", reference.name))),
                }
            }
            if let Some(reference) = &source.secret_ref {
                match self.sources.secrets.get(&reference.name) {
                    Some(secret) => {
                        env.extend(secret.data.iter().flatten().map(|(k, v)| {
                            (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())
                        }))
                    }
                    None if reference.optional == Some(true) => {}
                    None => return Err(self.bad(format!("there is no Secret {}", reference.name))),
                }
            }
        }
        for variable in container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) => Some(expand(value, &env)),
                (None, Some(source)) => self.value_from(container, &variable.name, source, address)?,
                (None, None) => Some(String::new()),
            };
            if let Some(value) = value {
                env.insert(variable.name.clone(), value);
            }
        }
        Ok(env)
    }

    fn value_from(
        &mut self,
        container: &Container,
        variable: &str,
        source: &EnvVarSource,
        address: IpAddr,
    ) -> Result<Option<String>, NoEnvironment> {
        if let Some(field) = &source.field_ref {
            let value = self.field(&field.field_path, address);
            if value.is_none() {
                self.note(format!(
                    "container {}, {variable}: the field {}",
                    container.name, field.field_path
                ));
            }
            return Ok(value);
        }
        if let Some(key) = &source.config_map_key_ref {
            let map = self.sources.config_maps.get(&key.name);
            let value = map.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
            return match value {
                None if key.optional != Some(true) => Err(self.bad(format!(
                    "{variable} refers to the key {} of ConfigMap {}, which is not there",
                    key.key, key.name
                ))),
                value => Ok(value),
            };
        }
        if let Some(key) = &source.secret_key_ref {
            let secret = self.sources.secrets.get(&key.name);
            let value = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key).cloned());
            return match value {
                None if key.optional != Some(true) => Err(self.bad(format!(
                    "{variable} refers to the key {} of Secret {}, which is not there",
                    key.key, key.name
                ))),
                value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
            };
        }
        self.note(format!("container {}, {variable}: its source", container.name));
        Ok(None)
    }

    /// A field of the pod (Kubernetes, downward API).
    fn field(&self, path: &str, address: IpAddr) -> Option<String> {
        let of = |map: &BTreeMap<String, String>, key: &str| {
            map.get(key.trim_matches(['\'', '"'])).cloned().unwrap_or_default()
        };
        let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']');
        if let Some(key) = subscript("metadata.labels") {
            return Some(of(&self.identity.labels, key));
        }
        if let Some(key) = subscript("metadata.annotations") {
            return Some(of(&self.identity.annotations, key));
        }
        Some(match path {
            "metadata.name" => self.identity.name.clone(),
            "metadata.namespace" => self.identity.namespace.clone(),
            "spec.nodeName" => self.identity.node.clone(),
            "spec.serviceAccountName" => {
                self.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned())
            }
            "status.podIP" | "status.hostIP" | "status.podIPs" | "status.hostIPs" => address.to_string(),
            _ => return None,
        })
    }

    fn probing(
        &mut self,
        container: &Container,
        probe: Option<&k8s_openapi::api::core::v1::Probe>,
    ) -> Option<Probing> {
        let probe = probe?;
        let port = |port: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString| {
            use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
            match port {
                IntOrString::Int(number) => u16::try_from(*number).ok(),
                IntOrString::String(name) => container
                    .ports
                    .iter()
                    .flatten()
                    .find(|port| port.name.as_ref() == Some(name))
                    .and_then(|port| u16::try_from(port.container_port).ok()),
            }
        };
        let check = if let Some(exec) = &probe.exec {
            Some(Check::Exec(exec.command.clone().unwrap_or_default()))
        } else if let Some(tcp) = &probe.tcp_socket {
            port(&tcp.port).map(Check::Tcp)
        } else if let Some(http) =
            probe.http_get.as_ref().filter(|http| http.scheme.as_deref() != Some("HTTPS"))
        {
            port(&http.port)
                .map(|port| Check::Http { port, path: http.path.clone().unwrap_or_else(|| "/".to_owned()) })
        } else {
            None
        };
        let Some(check) = check else {
            self.note(format!(
                "container {}: a probe that is neither exec nor tcpSocket nor httpGet over HTTP",
                container.name
            ));
            return None;
        };
        let number = |value: Option<i32>, default: u64| {
            value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default).max(1)
        };
        Some(Probing {
            check,
            period: number(probe.period_seconds, 10),
            timeout: number(probe.timeout_seconds, 1),
            failures: u32::try_from(number(probe.failure_threshold, 3)).unwrap_or(3),
        })
    }
}

/// Puts variables in for `$(NAME)`; `$$` is a dollar sign, and what is not defined stays (Kubernetes,
/// `third_party/forked/golang/expansion`).
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
