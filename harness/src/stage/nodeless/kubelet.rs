//! Plays kubelet: starts the pods of workloads from what the API server says of them, and probes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catwalk_fixtures::{ClusterDomain, SearchList};
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, PodTemplateSpec, Secret, ServiceAccount};
use kube::Api;
use tokio::task::JoinSet;

use super::images::ImageSource;
use super::plane::{API_PORT, NODE, Plane};
use super::pod::{Pod, Setup};
use super::spec::{self, Account, Check, Identity, Planned, Planner, Probing, Sources};
use crate::environment::{LookError, Reached, Stream, WhiskerDoor};
use crate::stage::NoEnvironment;
use crate::stage::containers::pod_name;
use crate::stage::engine::Engine;
use crate::wait::{Probe, tick, wait_for};

/// Between two probes of a container that was not ready yet; a kubelet would wait for the whole period.
const FIRST_PROBES: Duration = Duration::from_millis(500);

/// A started pod with what keeps looking at it.
pub(super) struct Started {
    pub pod: Pod,
    /// Its resolver's search list, as its containers read it.
    pub search: SearchList,
    /// Whether each container is ready; one without a probe is.
    pub ready: Ready,
    /// The images that its containers were started from.
    pub images: BTreeSet<String>,
    _probing: JoinSet<()>,
}

/// Readiness by container.
pub(super) type Ready = Arc<Mutex<BTreeMap<String, bool>>>;

/// What all pods of a domain share.
pub(super) struct Kubelet<'a> {
    pub engine: &'a Engine,
    pub plane: &'a Plane,
    pub images: &'a ImageSource,
    pub domain: &'a ClusterDomain,
    /// Search domains of the host that stand in front of the cluster's.
    pub host_search: &'a [String],
    /// What of the specifications is not carried out, by pod.
    pub not_carried_out: &'a Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Kubelet<'_> {
    /// Starts a pod of that template; `name` is the workload's.
    pub(super) async fn start(
        &self,
        namespace: &str,
        name: &str,
        template: &PodTemplateSpec,
    ) -> Result<Started, NoEnvironment> {
        let empty = PodSpec::default();
        let spec = template.spec.as_ref().unwrap_or(&empty);
        let identity = identity(namespace, name, template);
        let (sources, account) =
            tokio::try_join!(self.sources(namespace, spec), self.account(namespace, spec))
                .map_err(super::no)?;
        let mut planner = Planner {
            spec,
            identity: &identity,
            sources: &sources,
            account: account.as_ref(),
            mounts_parts: self.engine.mounts_parts(),
            not_carried_out: BTreeSet::new(),
        };
        planner.note_what_is_left_out();
        let resolv_conf = self.resolv_conf(namespace, spec);
        let setup = Setup {
            name: pod_name(&self.plane.name, &format!("{}-{name}", self.plane.served)),
            plane: self.plane.name.clone(),
            network: self.plane.network.clone(),
            sandbox_image: self.plane.images.own.clone(),
            hostname: identity.name.clone(),
            hosts: spec::hosts(spec),
            volumes: planner.volumes()?,
            resolv_conf: Some(resolv_conf.clone()),
            ..Setup::default()
        };
        let mut pod = Pod::create(self.engine, setup).await?;
        let mut images = BTreeSet::new();
        let api_server = (self.plane.address, API_PORT);
        let always = spec.restart_policy.as_deref().unwrap_or("Always") == "Always";
        for container in spec.init_containers.iter().flatten() {
            let planned = planner.container(container, pod.address, api_server)?;
            let image = self.images.have(&planned.image).await?;
            images.insert(image.clone());
            pod.run(&[(&planned, image)], false).await?;
            self.wait_for_end(&pod, &planned.name).await?;
        }
        let mut planned = Vec::new();
        for container in &spec.containers {
            planned.push(planner.container(container, pod.address, api_server)?);
        }
        let left_out = std::mem::take(&mut planner.not_carried_out);
        self.not_carried_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(format!("{namespace}/{name}"))
            .or_default()
            .extend(left_out);
        let mut with_images = Vec::new();
        for container in &planned {
            let image = self.images.have(&container.image).await?;
            images.insert(image.clone());
            with_images.push((container, image));
        }
        pod.run(&with_images, always).await?;
        let ready: Ready = Arc::default();
        let probing = self.probe(&pod, &planned, &ready);
        Ok(Started {
            search: SearchList::from_resolv_conf(&resolv_conf),
            pod,
            ready,
            images,
            _probing: probing,
        })
    }

    /// Brings the files of a running pod up to date with the ConfigMaps and Secrets of its template; whether its programs
    /// read them again is theirs.
    pub(super) async fn sync(
        &self,
        started: &Started,
        namespace: &str,
        name: &str,
        template: &PodTemplateSpec,
    ) -> Result<(), NoEnvironment> {
        let empty = PodSpec::default();
        let spec = template.spec.as_ref().unwrap_or(&empty);
        let identity = identity(namespace, name, template);
        let sources = self.sources(namespace, spec).await.map_err(super::no)?;
        let mut planner = Planner {
            spec,
            identity: &identity,
            sources: &sources,
            account: None,
            mounts_parts: self.engine.mounts_parts(),
            not_carried_out: BTreeSet::new(),
        };
        let changed: BTreeMap<_, _> = planner
            .volumes()?
            .into_iter()
            .filter(|(volume, files)| started.pod.files(volume) != Some(files))
            .collect();
        started.pod.write(&changed).await
    }

    async fn wait_for_end(&self, pod: &Pod, container: &str) -> Result<(), NoEnvironment> {
        let id = pod.container(container).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let what = format!("the end of init container {container}");
        wait_for(&what, deadline, Duration::from_millis(200), &|_, _| {}, || async {
            match self.engine.state(id).await {
                Ok(Some(state)) if state.running => Probe::NotYet("running".to_owned()),
                Ok(Some(state)) if state.exit_code == 0 => Probe::Done(()),
                Ok(Some(state)) => Probe::Never(format!("it ended with {}", state.exit_code)),
                Ok(None) => Probe::Never("it is gone".to_owned()),
                Err(e) => Probe::NotYet(e.to_string()),
            }
        })
        .await
        .map_err(|e| NoEnvironment::because(e.to_string()))
    }

    async fn sources(&self, namespace: &str, spec: &PodSpec) -> Result<Sources, LookError> {
        let (maps, secrets) = spec::refers_to(spec);
        let mut sources = Sources::default();
        let api: Api<ConfigMap> = Api::namespaced(self.plane.client.clone(), namespace);
        for name in maps {
            let got = api.get_opt(&name).await;
            let got = got.map_err(LookError::while_(format!("reading the ConfigMap {namespace}/{name}")))?;
            sources.config_maps.extend(got.map(|map| (name, map)));
        }
        let api: Api<Secret> = Api::namespaced(self.plane.client.clone(), namespace);
        for name in secrets {
            let got = api.get_opt(&name).await;
            let got = got.map_err(LookError::while_(format!("reading the Secret {namespace}/{name}")))?;
            sources.secrets.extend(got.map(|secret| (name, secret)));
        }
        Ok(sources)
    }

    async fn account(&self, namespace: &str, spec: &PodSpec) -> Result<Option<Account>, LookError> {
        let name = spec.service_account_name.as_deref().unwrap_or("default");
        let mounts = match spec.automount_service_account_token {
            Some(mounts) => mounts,
            None => {
                let api: Api<ServiceAccount> = Api::namespaced(self.plane.client.clone(), namespace);
                let got = api.get_opt(name).await;
                let got =
                    got.map_err(LookError::while_(format!("reading the ServiceAccount {namespace}/{name}")))?;
                got.and_then(|account| account.automount_service_account_token) != Some(false)
            }
        };
        if !mounts {
            return Ok(None);
        }
        let token = self.plane.token(namespace, name).await?;
        Ok(Some(Account { token, authority: self.plane.authority.clone() }))
    }

    /// `/etc/resolv.conf` by the pod's DNS policy (Kubernetes v1.34, kubelet, `network/dns`, `GetPodDNS`).
    pub(super) fn resolv_conf(&self, namespace: &str, spec: &PodSpec) -> String {
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let host_network = spec.host_network == Some(true);
        let cluster = match policy {
            "ClusterFirst" => !host_network,
            "ClusterFirstWithHostNet" => true,
            _ => false,
        };
        let mut servers = vec![self.plane.address.to_string()];
        let mut search = self.host_search.to_vec();
        let mut options = Vec::new();
        if cluster {
            let list = SearchList::of_pod(namespace, self.domain);
            search.extend(list.domains);
            options.push(format!("ndots:{}", list.ndots));
        } else if policy == "None" {
            servers.clear();
            search.clear();
        }
        if let Some(config) = &spec.dns_config {
            servers.extend(config.nameservers.iter().flatten().cloned());
            search.extend(config.searches.iter().flatten().cloned());
            options.extend(config.options.iter().flatten().filter_map(|option| {
                let name = option.name.clone()?;
                Some(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")))
            }));
        }
        let mut text = String::new();
        if !search.is_empty() {
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        for server in servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }

    /// Probes the containers for as long as the result lives.
    fn probe(&self, pod: &Pod, planned: &[Planned], ready: &Ready) -> JoinSet<()> {
        let mut set = JoinSet::new();
        for container in planned {
            let Some(id) = pod.container(&container.name).map(str::to_owned) else { continue };
            set_ready(ready, &container.name, container.readiness.is_none());
            let looker = Looker {
                engine: self.engine.clone(),
                plane: self.plane.relay.clone(),
                address: pod.address,
                id,
            };
            if let Some(probing) = container.readiness.clone() {
                let (ready, name, looker) = (ready.clone(), container.name.clone(), looker.clone());
                set.spawn(async move { looker.readiness(&probing, &name, &ready).await });
            }
            if let Some(probing) = container.liveness.clone() {
                set.spawn(async move { looker.liveness(&probing).await });
            }
        }
        set
    }
}

/// Who a workload's only pod is.
fn identity(namespace: &str, name: &str, template: &PodTemplateSpec) -> Identity {
    let metadata = template.metadata.clone().unwrap_or_default();
    Identity {
        name: format!("{name}-0"),
        namespace: namespace.to_owned(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        node: NODE.to_owned(),
    }
}

fn set_ready(ready: &Ready, container: &str, value: bool) {
    ready.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned(), value);
}

/// Whether every container is ready.
pub(super) fn all_ready(ready: &Ready) -> bool {
    ready.lock().unwrap_or_else(PoisonError::into_inner).values().all(|ready| *ready)
}

/// Looks at one container.
#[derive(Clone)]
struct Looker {
    engine: Engine,
    plane: super::relay::Relay,
    address: IpAddr,
    id: String,
}

impl Looker {
    async fn check(&self, probing: &Probing) -> bool {
        let limit = Duration::from_secs(probing.timeout);
        tokio::time::timeout(limit, self.check_once(&probing.check)).await.unwrap_or(false)
    }

    async fn check_once(&self, check: &Check) -> bool {
        match check {
            Check::Exec(command) => {
                let command: Vec<&str> = command.iter().map(String::as_str).collect();
                self.engine.exec(&self.id, &command).await.is_ok()
            }
            Check::Tcp(port) => self.open(*port).await.is_some(),
            Check::Http { port, path, tls } => {
                let Some(stream) = self.open(*port).await else { return false };
                http_status(stream, path, *tls).await.is_some_and(|status| (200..400).contains(&status))
            }
        }
    }

    async fn open(&self, port: u16) -> Option<Box<dyn Stream>> {
        match self.plane.connect(SocketAddr::new(self.address, port)).await {
            Ok(Reached::Open(stream)) => Some(stream),
            _ => None,
        }
    }

    async fn readiness(&self, probing: &Probing, name: &str, ready: &Ready) {
        let mut failures = 0;
        let mut was_ready = false;
        loop {
            if self.check(probing).await {
                failures = 0;
                was_ready = true;
            } else {
                failures += 1;
            }
            let now = was_ready && failures < probing.failures;
            set_ready(ready, name, now);
            tick(if was_ready { Duration::from_secs(probing.period) } else { FIRST_PROBES }).await;
        }
    }

    async fn liveness(&self, probing: &Probing) {
        let mut failures = 0;
        loop {
            tick(Duration::from_secs(probing.period)).await;
            failures = if self.check(probing).await { 0 } else { failures + 1 };
            if failures >= probing.failures {
                failures = 0;
                // The next failure tries again.
                let _ = self.engine.restart(&self.id).await;
            }
        }
    }
}

/// The status of a GET; over TLS a kubelet takes any certificate.
async fn http_status(stream: Box<dyn Stream>, path: &str, tls: bool) -> Option<u16> {
    let stream = if tls {
        Box::new(crate::probe::tls::offer(stream, "localhost").await.ok().flatten()?)
    } else {
        stream
    };
    let door = WhiskerDoor { stream, prefix: "" };
    match crate::probe::http::get(door, path, Duration::from_secs(5), |_: &str| false).await {
        crate::sight::Said::Answer { status, .. } => Some(status),
        _ => None,
    }
}
