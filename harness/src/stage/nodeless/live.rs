//! What runs of one domain: its operator, its Goldmane and its Whisker.

mod dns;
mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PodTemplateSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::images::ImageSource;
use super::kubelet::{Kubelet, Started};
use super::plane::Plane;
use super::pod::Pod;
use super::spec;
use super::statuses;
use crate::environment::{About, LookError, Reached};
use crate::progress::Teller;
use crate::sight::DnsAnswer;
use crate::stage::calico::Calico;
use crate::stage::engine::Engine;
use crate::stage::{NoEnvironment, api};
use crate::wait::{Probe, wait_for};

/// The workload that serves projectcalico.org/v3, and its Service.
const API_SERVER: &str = "calico-apiserver";
const API_SERVICE: &str = "calico-api";
/// An address that nobody has (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Restarts from which a program is believed not to run.
const CRASHES: i64 = 2;

/// What a domain's programs are started from.
pub(super) struct Domain {
    pub engine: Engine,
    pub about: About,
    pub images: Arc<ImageSource>,
    /// The operator's Deployment, of the release's manifest; none with stand-ins.
    pub operator: Option<Deployment>,
    /// What of the pods' specifications is not carried out, by pod.
    pub not_carried_out: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
}

/// One domain's programs, with the control plane that they run on.
pub(super) struct Live {
    pub domain: Domain,
    pub plane: Plane,
    pub goldmane: Option<Started>,
    pub whisker: Option<Started>,
    pub api_server: Option<Started>,
    /// What the DNS was last given to serve.
    zone: Vec<u8>,
    /// What Goldmane and Whisker were started from.
    templates: [PodTemplateSpec; 2],
    /// When its programs began to start, in seconds since 1970: the operator's log holds earlier domains' too.
    pub started: i64,
    /// Whether the operator has rendered all that it was asked for.
    ended: bool,
    /// What writes statuses, while the operator runs.
    statuses: JoinSet<()>,
    running: Arc<Mutex<statuses::Running>>,
}

/// How long standing up may take, and who hears of it.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub deadline: Instant,
    pub teller: &'a Teller,
}

impl Live {
    pub(super) fn new(plane: Plane, domain: Domain) -> Self {
        Self {
            domain,
            plane,
            goldmane: None,
            whisker: None,
            api_server: None,
            zone: Vec::new(),
            templates: Default::default(),
            started: 0,
            ended: false,
            statuses: JoinSet::new(),
            running: Arc::default(),
        }
    }

    /// The pods that run, by name.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&'static str, &Started)> {
        let pods = [
            ("operator", &self.plane.operator),
            ("goldmane", &self.goldmane),
            ("whisker", &self.whisker),
            ("calico-apiserver", &self.api_server),
        ];
        pods.into_iter().filter_map(|(name, pod)| Some((name, pod.as_ref()?)))
    }

    /// Starts Goldmane and Whisker anew if they are rendered otherwise than they run; else what changed of their files
    /// is written.
    async fn roll(&mut self, watch: Watch<'_>) -> Result<(), NoEnvironment> {
        let rendered = self.rendered(watch).await?;
        if templates(&rendered) == self.templates {
            let pods = [("goldmane", &self.goldmane), ("whisker", &self.whisker)];
            for ((name, started), template) in pods.into_iter().zip(&self.templates) {
                if let Some(started) = started {
                    self.kubelet().sync(started, CALICO_NAMESPACE, name, template).await?;
                }
            }
            return Ok(());
        }
        for started in [self.goldmane.take(), self.whisker.take()].into_iter().flatten() {
            started.pod.end().await?;
        }
        self.start_pods(&rendered).await?;
        self.listens(watch).await
    }

    fn kubelet(&self) -> Kubelet<'_> {
        Kubelet {
            engine: &self.domain.engine,
            plane: &self.plane,
            images: &self.domain.images,
            domain: &self.domain.about.domain,
            host_search: &self.domain.about.host_search,
            not_carried_out: &self.domain.not_carried_out,
        }
    }

    pub(super) async fn apply(&self, objects: &[Value], watch: Watch<'_>) -> Result<(), NoEnvironment> {
        let tell = watch.teller.as_tell();
        api::apply(&self.plane.client, objects, watch.deadline, &tell).await.map_err(super::no)
    }

    /// Waits until the operator has made calico-system.
    pub(super) async fn has_namespace(&self, watch: Watch<'_>) -> Result<(), NoEnvironment> {
        let tell = watch.teller.as_tell();
        let namespaces: Api<Namespace> = Api::all(self.plane.client.clone());
        let every = Duration::from_millis(100);
        let what = format!("the namespace {CALICO_NAMESPACE}");
        let waited = wait_for(&what, watch.deadline, every, &tell, || async {
            if let Some(why) = self.operator_crashes().await {
                return Probe::Never(why);
            }
            match namespaces.get_metadata_opt(CALICO_NAMESPACE).await {
                Ok(Some(_)) => Probe::Done(()),
                Ok(None) => Probe::NotYet("none yet".to_owned()),
                Err(e) => Probe::NotYet(e.to_string()),
            }
        })
        .await;
        match waited {
            Ok(()) => Ok(()),
            Err(e) => Err(NoEnvironment::because(format!("{e}{}", self.operator_says().await))),
        }
    }

    /// Waits until the operator has rendered both Deployments with all that they refer to, and their Services.
    pub(super) async fn rendered(&self, watch: Watch<'_>) -> Result<[Deployment; 2], NoEnvironment> {
        let tell = watch.teller.as_tell();
        let every = Duration::from_millis(200);
        let waited = wait_for("what the operator renders", watch.deadline, every, &tell, || async {
            if let Some(why) = self.operator_crashes().await {
                return Probe::Never(why);
            }
            let of = |name| self.whole(CALICO_NAMESPACE, name, name);
            match tokio::try_join!(of("goldmane"), of("whisker")) {
                Ok((goldmane, whisker)) => Probe::Done([goldmane, whisker]),
                Err(why) => Probe::NotYet(why.to_string()),
            }
        })
        .await;
        match waited {
            Ok(both) => Ok(both),
            // Its log is long: it is read when there is something to explain.
            Err(e) => Err(NoEnvironment::because(format!("{e}{}", self.operator_says().await))),
        }
    }

    /// A Deployment, if all that its pods refer to is there, and its Service.
    async fn whole(&self, namespace: &str, name: &str, service: &str) -> Result<Deployment, LookError> {
        let client = &self.plane.client;
        let missing =
            |what: String| LookError { doing: format!("waiting for {name}"), why: format!("no {what} yet") };
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let got = deployments.get_opt(name).await.map_err(LookError::while_("reading a Deployment"))?;
        let deployment = got.ok_or_else(|| missing(format!("Deployment {name}")))?;
        let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let (maps, secrets) = template.map(spec::refers_to).unwrap_or_default();
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for map in maps {
            let got = api.get_opt(&map).await.map_err(LookError::while_("reading a ConfigMap"))?;
            got.ok_or_else(|| missing(format!("ConfigMap {map}")))?;
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for secret in secrets {
            let got = api.get_opt(&secret).await.map_err(LookError::while_("reading a Secret"))?;
            got.ok_or_else(|| missing(format!("Secret {secret}")))?;
        }
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        let got = api.get_opt(service).await.map_err(LookError::while_("reading a Service"))?;
        got.ok_or_else(|| missing(format!("Service {service}")))?;
        Ok(deployment)
    }

    /// Starts calico-apiserver from what was rendered, so that projectcalico.org/v3 is served.
    pub(super) async fn start_api_server(&mut self, watch: Watch<'_>) -> Result<(), NoEnvironment> {
        let tell = watch.teller.as_tell();
        let every = Duration::from_millis(200);
        let deployments: Api<Deployment> = Api::all(self.plane.client.clone());
        let found = wait_for("calico-apiserver's Deployment", watch.deadline, every, &tell, || async {
            let named = ListParams::default().fields(&format!("metadata.name={API_SERVER}"));
            let namespace = match deployments.list(&named).await {
                Ok(list) => list.items.into_iter().find_map(|deployment| deployment.metadata.namespace),
                Err(e) => return Probe::NotYet(e.to_string()),
            };
            let Some(namespace) = namespace else { return Probe::NotYet("not there".to_owned()) };
            match self.whole(&namespace, API_SERVER, API_SERVICE).await {
                Ok(deployment) => Probe::Done((namespace, deployment)),
                Err(e) => Probe::NotYet(e.to_string()),
            }
        });
        let (namespace, deployment) = found.await.map_err(|e| NoEnvironment::because(e.to_string()))?;
        let template = deployment.spec.map(|spec| spec.template).unwrap_or_default();
        let started = self.kubelet().start(&namespace, API_SERVER, &template).await?;
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(format!("{namespace}/{API_SERVER}"), started.ready.clone());
        let services: Api<Service> = Api::namespaced(self.plane.client.clone(), &namespace);
        let service = services.get(API_SERVICE).await.map_err(LookError::while_("reading a Service"));
        let slice = endpoints(&namespace, &service.map_err(super::no)?, started.pod.address);
        self.api_server = Some(started);
        api::apply(&self.plane.client, &[slice], watch.deadline, &tell).await.map_err(super::no)
    }

    /// Starts Goldmane and Whisker from what was rendered, and the DNS that knows where they are.
    pub(super) async fn start_pods(&mut self, rendered: &[Deployment; 2]) -> Result<(), NoEnvironment> {
        let [goldmane, whisker] = rendered;
        let kubelet = self.kubelet();
        let start = |name: &'static str, deployment: &Deployment| {
            let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
            let kubelet = &kubelet;
            async move { kubelet.start(CALICO_NAMESPACE, name, &template).await }
        };
        let (goldmane, whisker) = tokio::try_join!(start("goldmane", goldmane), start("whisker", whisker))?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).extend([
            (format!("{CALICO_NAMESPACE}/goldmane"), goldmane.ready.clone()),
            (format!("{CALICO_NAMESPACE}/whisker"), whisker.ready.clone()),
        ]);
        self.goldmane = Some(goldmane);
        self.whisker = Some(whisker);
        self.templates = templates(rendered);
        self.refresh_dns().await
    }

    /// Waits until Goldmane and Whisker listen, or crash: the cases find out why.
    pub(super) async fn listens(&self, watch: Watch<'_>) -> Result<(), NoEnvironment> {
        let tell = watch.teller.as_tell();
        let every = Duration::from_millis(100);
        let calico = Calico::new(self.plane.client.clone());
        let ports = tokio::try_join!(calico.target_port("goldmane"), calico.target_port("whisker"));
        let (goldmane, whisker) = ports.map_err(super::no)?;
        wait_for("Goldmane and Whisker to listen", watch.deadline, every, &tell, || async {
            for (name, started, port) in
                [("goldmane", &self.goldmane, goldmane), ("whisker", &self.whisker, whisker)]
            {
                let Some(started) = started else { continue };
                if let Reached::Open(_) =
                    match self.plane.relay.connect((started.pod.address, port).into()).await {
                        Ok(reached) => reached,
                        Err(e) => return Probe::NotYet(e.to_string()),
                    }
                {
                    continue;
                }
                let mut crashed = false;
                for (_, id) in started.pod.containers() {
                    let state = self.domain.engine.state(id).await.ok().flatten();
                    crashed |= state.is_none_or(|state| state.restarts >= CRASHES);
                }
                if !crashed {
                    return Probe::NotYet(format!("{name} does not listen at {port} yet"));
                }
            }
            Probe::Done(())
        })
        .await
        .map_err(|e| NoEnvironment::because(e.to_string()))
    }

    /// Ends what runs of the domain; the control plane that is left.
    pub(super) async fn end(mut self) -> Result<Plane, NoEnvironment> {
        self.rest().await;
        let started = [self.goldmane, self.whisker, self.api_server].into_iter().flatten().map(|s| s.pod);
        futures::future::try_join_all(started.map(Pod::end)).await?;
        Ok(self.plane)
    }
}

fn seconds_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

fn templates(deployments: &[Deployment; 2]) -> [PodTemplateSpec; 2] {
    deployments
        .each_ref()
        .map(|deployment| deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default())
}

/// The endpoint of a Service at a pod's address, as the controllers of a cluster would write it.
fn endpoints(namespace: &str, service: &Service, address: IpAddr) -> Value {
    let name = service.metadata.name.clone().unwrap_or_default();
    let ports: Vec<Value> = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .map(|port| {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => *number,
                _ => port.port,
            };
            json!({"name": port.name.clone().unwrap_or_default(), "port": target, "protocol": "TCP"})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-catwalk"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "catwalk"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true}}],
        "ports": ports,
    })
}
