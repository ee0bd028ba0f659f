//! Containers, volumes and networks in the engine, each labelled with its owner before it exists.

mod removal;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::mem::ManuallyDrop;
use std::net::IpAddr;

use futures::TryStreamExt;
use testcontainers::bollard::API_DEFAULT_VERSION;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::{
    HostConfig, Mount, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkCreateRequest,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::NoEnvironment;
use super::engine::{Engine, failed};
use crate::owner::RunId;
use crate::task::AbortOnDrop;

pub(super) use volumes::{VolumeFile, VolumeMount};

/// The name in the engine of a pod of a control plane, with which the names of its containers and volumes begin.
pub(super) fn pod_name(plane: &str, pod: &str) -> String {
    format!("catwalk-{plane}-{pod}")
}

/// The label by which containers and volumes tell the control plane that owns them.
pub(super) const PLANE_LABEL: &str = "dev.catwalk.plane";
/// The first API in which a part of a volume can be mounted (Docker 26).
const SUBPATH_SINCE: [usize; 2] = [1, 45];

/// A container in the engine. It goes when it is removed, by itself or with its control plane, and not when this value
/// does: for that testcontainers would block a thread, for minutes where the engine stands still, and it does not know
/// who else is leaving the network.
pub(super) struct Running(ManuallyDrop<ContainerAsync<GenericImage>>);

impl Running {
    pub(super) fn id(&self) -> &str {
        self.0.id()
    }

    /// Lets its program end by itself, for so many seconds.
    pub(super) async fn stop(&self, grace: i32) -> Result<(), NoEnvironment> {
        self.0.stop_with_timeout(Some(grace)).await.map_err(|e| failed("stopping a container", &e))
    }

    /// Starts its stopped program.
    pub(super) async fn start_again(&self) -> Result<(), NoEnvironment> {
        self.0.start().await.map_err(|e| failed("starting a container again", &e))
    }
}

/// What a new container is to be.
#[derive(Clone, Debug)]
pub(super) struct NewContainer {
    pub name: String,
    pub image: String,
    /// The control plane that owns it.
    pub plane: String,
    /// Where it is reached.
    pub network: Network,
    pub hostname: Option<String>,
    /// In place of the image's entrypoint; empty leaves it.
    pub command: Vec<String>,
    /// In place of the image's arguments; empty leaves them where the entrypoint is left.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub working_dir: Option<String>,
    pub mounts: Vec<VolumeMount>,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub security: Vec<String>,
    pub read_only_root: bool,
    /// Whether the engine starts it again whenever it ends.
    pub restarts: bool,
    /// TCP ports that this machine alone can reach, on ports that the engine chooses.
    pub published: Vec<u16>,
    /// A line of its output that is waited for.
    pub ready_line: Option<String>,
}

/// What a container is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// A network, by name.
    Named(String),
    /// That of another container, by id.
    Shared(String),
}

/// A container of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub labels: HashMap<String, String>,
    /// Whether its network is another container's.
    pub shares_network: bool,
}

/// How a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerState {
    pub running: bool,
    pub exit_code: i64,
    pub restarts: i64,
    /// Its address on its network; none for one that shares another's.
    pub address: Option<IpAddr>,
    /// The port of this machine by published port.
    pub published: BTreeMap<u16, u16>,
}

impl NewContainer {
    /// One of that name and image, and otherwise as the image says.
    pub(super) fn new(name: String, image: &str, plane: &str, network: Network) -> Self {
        Self {
            name,
            image: image.to_owned(),
            plane: plane.to_owned(),
            network,
            hostname: None,
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            groups: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            security: Vec::new(),
            read_only_root: false,
            restarts: false,
            published: Vec::new(),
            ready_line: None,
        }
    }
}

impl Engine {
    /// Starts a container, through testcontainers.
    ///
    /// Volumes of memory are made as they are first mounted, so that no key lies on a disk.
    pub(super) async fn start(&self, new: NewContainer) -> Result<Running, NoEnvironment> {
        let doing = format!("starting container {}", new.name);
        let (repository, tag) = split_reference(&new.image);
        let mut image = GenericImage::new(repository, tag);
        let mut command = new.command.iter();
        if let Some(first) = command.next() {
            image = image.with_entrypoint(first);
        }
        for port in &new.published {
            image = image.with_exposed_port(port.tcp());
        }
        if let Some(line) = &new.ready_line {
            image = image.with_wait_for(WaitFor::message_on_stdout(line));
        }
        let mut request = image
            .with_cmd(command.chain(&new.args).cloned())
            .with_container_name(&new.name)
            .with_label(PLANE_LABEL, &new.plane)
            .with_readonly_rootfs(new.read_only_root);
        for (name, value) in &new.env {
            request = request.with_env_var(name, value);
        }
        if let Some(hostname) = &new.hostname {
            request = request.with_hostname(hostname);
        }
        if let Some(user) = &new.user {
            request = request.with_user(user);
        }
        if let Some(dir) = &new.working_dir {
            request = request.with_working_dir(dir);
        }
        for capability in &new.add_capabilities {
            request = request.with_cap_add(capability);
        }
        for capability in &new.drop_capabilities {
            request = request.with_cap_drop(capability);
        }
        for option in &new.security {
            request = request.with_security_opt(option);
        }
        let speaks_older = self.api_below_testcontainers();
        let request = request.with_host_config_modifier(move |config| {
            if speaks_older {
                lower_version();
            }
            complete(config, &new);
        });
        // A task of its own: the hook blocks its thread for a lock, which may be on its way to another start; were both in
        // one task, neither would go on.
        let starting = async { request.start().await.map(|running| Running(ManuallyDrop::new(running))) };
        match AbortOnDrop(tokio::spawn(starting)).await {
            Ok(started) => started.map_err(|e| failed(&doing, &e)),
            Err(e) => Err(failed(&doing, &e)),
        }
    }

    /// Whether the engine does not know the version of the API that testcontainers begins with.
    fn api_below_testcontainers(&self) -> bool {
        let [major, minor] = self.api();
        (major, minor) < (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version)
    }

    /// Whether a part of a volume can be mounted.
    pub(super) fn mounts_parts(&self) -> bool {
        self.api() >= SUBPATH_SINCE
    }

    /// How a container is; none if it is gone.
    pub(super) async fn state(&self, container: &str) -> Result<Option<ContainerState>, NoEnvironment> {
        let inspected = self.docker().inspect_container(container, None::<InspectContainerOptions>).await;
        let inspected = match inspected {
            Ok(inspected) => inspected,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
            Err(e) => return Err(failed("looking at a container", &e)),
        };
        let state = inspected.state.unwrap_or_default();
        let network = inspected.network_settings.unwrap_or_default();
        let address =
            network.networks.unwrap_or_default().into_values().find_map(|n| n.ip_address?.parse().ok());
        let published = network.ports.unwrap_or_default().into_iter().filter_map(|(port, bindings)| {
            let here = bindings?.into_iter().find_map(|binding| binding.host_port?.parse().ok())?;
            Some((port.split('/').next()?.parse().ok()?, here))
        });
        Ok(Some(ContainerState {
            running: state.running.unwrap_or_default(),
            exit_code: state.exit_code.unwrap_or_default(),
            restarts: inspected.restart_count.unwrap_or_default(),
            address,
            published: published.collect(),
        }))
    }

    /// Starts a container again.
    pub(super) async fn restart(&self, container: &str) -> Result<(), NoEnvironment> {
        let restarted = self.docker().restart_container(container, None).await;
        restarted.map_err(|e| failed(&format!("restarting {container}"), &e))
    }

    /// Everything that a container has said since that second since 1970, both streams as they came.
    pub(super) async fn logs(&self, container: &str, since: i64) -> Result<String, NoEnvironment> {
        let since = i32::try_from(since).unwrap_or(i32::MAX);
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).since(since).build();
        let parts: Vec<_> = self
            .docker()
            .logs(container, Some(options))
            .try_collect()
            .await
            .map_err(|e| failed(&format!("reading the log of {container}"), &e))?;
        let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.into_bytes()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Creates a network of a run.
    pub(super) async fn create_network(&self, name: &str, run: &RunId) -> Result<(), NoEnvironment> {
        let labels = HashMap::from([(super::engine::RUN_LABEL.to_owned(), run.to_string())]);
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        let created = self.docker().create_network(request).await;
        created.map(drop).map_err(|e| {
            NoEnvironment::with_fix(
                format!("creating network {name}: {e}"),
                "If the engine has no addresses left for another network, `docker network prune` removes unused ones",
            )
        })
    }

    /// The containers that carry a label, running or not, by name.
    pub(super) async fn with_label(&self, label: &str, value: &str) -> Result<Vec<Listed>, NoEnvironment> {
        self.listed(HashMap::from([("label", vec![format!("{label}={value}")])])).await
    }

    /// The containers that pass the engine's filters, running or not, by name.
    pub(super) async fn listed(
        &self,
        filters: HashMap<&str, Vec<String>>,
    ) -> Result<Vec<Listed>, NoEnvironment> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let list = self.docker().list_containers(Some(options)).await;
        let list = list.map_err(|e| failed("listing containers", &e))?;
        let listed = list.into_iter().filter_map(|container| {
            let name = container.names?.into_iter().next()?.trim_start_matches('/').to_owned();
            let mode = container.host_config.and_then(|config| config.network_mode).unwrap_or_default();
            Some(Listed {
                name,
                labels: container.labels.unwrap_or_default(),
                shares_network: mode.starts_with("container:"),
            })
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}

/// testcontainers 0.28 begins with the newest version of the API and asks no engine which it knows. All its requests
/// share one connection with its version, so it is lowered here: in the only hook between its connecting and its
/// first request.
fn lower_version() {
    let lower = async {
        if let Ok(docker) = docker_client_instance().await {
            // An engine that does not answer says so to the request itself.
            let _ = docker.negotiate_version().await;
        }
    };
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(lower));
}

/// What testcontainers has no words for.
fn complete(config: &mut HostConfig, new: &NewContainer) {
    let labels = HashMap::from([(PLANE_LABEL.to_owned(), new.plane.clone())]);
    let memory = MountVolumeOptionsDriverConfig {
        name: Some("local".to_owned()),
        options: Some(HashMap::from([
            ("type".to_owned(), "tmpfs".to_owned()),
            ("device".to_owned(), "tmpfs".to_owned()),
        ])),
    };
    let mounts = new.mounts.iter().map(|mount| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(mount.volume.clone()),
        target: Some(mount.path.clone()),
        read_only: Some(mount.read_only),
        volume_options: Some(MountVolumeOptions {
            // What an image has at that path stays hidden, as under Kubernetes.
            no_copy: Some(true),
            labels: Some(labels.clone()),
            driver_config: Some(memory.clone()),
            subpath: mount.sub_path.clone(),
        }),
        ..Mount::default()
    });
    config.mounts = Some(mounts.collect());
    // testcontainers would create a network of the name that it does not know, also one called `container:ID`.
    config.network_mode = Some(match &new.network {
        Network::Named(name) => name.clone(),
        Network::Shared(container) => format!("container:{container}"),
    });
    config.group_add = Some(new.groups.clone());
    config.publish_all_ports = Some(false);
    let bindings = new.published.iter().map(|port| {
        let here = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
        (format!("{port}/tcp"), Some(vec![here]))
    });
    config.port_bindings = Some(bindings.collect());
    if new.restarts {
        config.restart_policy =
            Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None });
    }
}

/// `repository:tag`, or `repository@sha256:digest`, in two.
fn split_reference(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_split_where_its_tag_begins() {
        assert_eq!(split_reference("registry.k8s.io/etcd:3.6.5-0"), ("registry.k8s.io/etcd", "3.6.5-0"));
        assert_eq!(split_reference("localhost:5000/etcd"), ("localhost:5000/etcd", "latest"));
        assert_eq!(split_reference("a/b@sha256:0f"), ("a/b@sha256", "0f"));
    }
}
