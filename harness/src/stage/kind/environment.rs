//! A Calico on a kind cluster, looked at through its API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::pki::{Leaf, LeafRequest};
use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE, SearchList};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use serde_json::Value;

use super::forward::{forward, forward_or_refusal};
use super::ready::{State, state};
use super::traffic;
use crate::environment::{
    About, Capability, Claims, Environment, LookError, Pace, Reached, Stream, WhiskerDoor, WhiskerSide,
};
use crate::owner::{Ledger, Owned};
use crate::report::write_whole;
use crate::sight::Vantage;
use crate::stage::api::pods;
use crate::stage::calico::{Calico, RENDERING};
use crate::stage::{NoEnvironment, Provisioned, reap};

/// One cluster of a run.
pub(super) struct KindEnvironment {
    pub(super) about: About,
    pub(super) cluster: String,
    pub(super) ledger: Ledger,
    pub(super) calico: Calico,
    /// The TigeraStatus that tell that all is rendered.
    pub(super) statuses: Vec<String>,
    pub(super) provenance: BTreeMap<String, String>,
    /// The image that makes traffic, or why there is none, where calico-node would see it.
    pub(super) traffic: Option<Result<String, NoEnvironment>>,
}

#[async_trait]
impl Environment for KindEnvironment {
    fn about(&self) -> &About {
        &self.about
    }

    fn can(&self) -> Vec<Capability> {
        let mut can = vec![Capability::PushFlow, Capability::AskWhisker, Capability::ListRendered];
        if self.traffic.is_some() {
            can.push(Capability::NodeFlows);
        }
        can
    }

    fn pace(&self) -> Pace {
        Pace {
            every: Duration::from_millis(500),
            settle: Duration::from_secs(3),
            // A dial that policy drops is answered after 20 s.
            answer: Duration::from_secs(30),
            step: Duration::from_secs(5),
            patience: Duration::from_secs(120),
        }
    }

    fn vantage(&self) -> Vantage {
        Vantage::PortForward
    }

    async fn whisker_side(&self) -> Result<WhiskerSide, LookError> {
        // The kubelet's own domain: provisioning has read it on the node.
        self.calico.whisker_side(SearchList::of_pod(CALICO_NAMESPACE, &self.about.domain)).await
    }

    async fn connect_dns(&self) -> Result<Box<dyn Stream>, String> {
        forward(&self.calico.client, "kube-system", "k8s-app=kube-dns", 53).await.map_err(|e| e.to_string())
    }

    async fn connect_goldmane(&self, _: Option<(IpAddr, u16)>) -> Result<Reached, LookError> {
        let port = self.calico.target_port("goldmane").await?;
        match forward_or_refusal(&self.calico.client, CALICO_NAMESPACE, "k8s-app=goldmane", port).await? {
            Ok(stream) => Ok(Reached::Open(stream)),
            Err(why) if why.contains("refused") => Ok(Reached::Refused),
            Err(why) if why.contains("timed out") || why.contains("timeout") => Ok(Reached::TimedOut),
            Err(why) => Err(LookError { doing: "connecting to Goldmane".to_owned(), why }),
        }
    }

    async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError> {
        self.calico.issue(request).await
    }

    async fn connect_whisker(&self) -> Result<WhiskerDoor, LookError> {
        let port = self.calico.target_port("whisker").await?;
        let connect = || forward(&self.calico.client, CALICO_NAMESPACE, "k8s-app=whisker", port);
        self.calico.whisker_door(connect).await
    }

    async fn whisker_log(&self) -> Result<String, LookError> {
        let (container, _) = self.calico.dialling_container().await?;
        let api: Api<Pod> = Api::namespaced(self.calico.client.clone(), CALICO_NAMESPACE);
        let mut log = String::new();
        for pod in pods(&self.calico.client, CALICO_NAMESPACE, "k8s-app=whisker").await? {
            let name = pod.metadata.name.unwrap_or_default();
            let statuses = pod.status.and_then(|s| s.container_statuses).unwrap_or_default();
            let restarted = statuses.iter().any(|s| s.name == container && s.restart_count > 0);
            for previous in [true, false] {
                if previous && !restarted {
                    continue;
                }
                let params =
                    LogParams { container: Some(container.clone()), previous, ..LogParams::default() };
                match api.logs(&name, &params).await {
                    Ok(text) => log.push_str(&text),
                    // A container that has not started yet has no log.
                    Err(kube::Error::Api(status)) if status.code == 400 => {}
                    Err(e) => return Err(LookError::while_("reading Whisker's log")(e)),
                }
            }
        }
        Ok(log)
    }

    async fn rendered(&self) -> Result<Vec<Value>, LookError> {
        self.calico.rendered().await
    }

    async fn services(&self) -> Result<Vec<String>, LookError> {
        Ok(self.calico.services().await?.into_keys().collect())
    }

    async fn rendering_ended(&self) -> Result<(), LookError> {
        self.calico.rendering_ended(&self.statuses, RENDERING).await
    }

    async fn claims(&self) -> Claims {
        let mut claims = Claims { tigera_status: self.calico.tigera_status().await, ..Claims::default() };
        for namespace in [OPERATOR_NAMESPACE, CALICO_NAMESPACE] {
            for pod in pods(&self.calico.client, namespace, "").await.unwrap_or_default() {
                let words = match state(&pod) {
                    State::Ready => "Ready".to_owned(),
                    State::NotYet(why)
                    | State::Unschedulable(why)
                    | State::Crashes(why)
                    | State::CannotHeal(why) => why,
                };
                claims.pods.insert(format!("{namespace}/{}", pod.metadata.name.unwrap_or_default()), words);
            }
        }
        claims
    }

    async fn send_traffic(&self) -> Result<(String, String), LookError> {
        let doing = "sending traffic";
        match &self.traffic {
            Some(Ok(image)) => traffic::start(&self.calico.client, image).await?,
            Some(Err(e)) => return Err(LookError::while_(doing)(e)),
            None => return Err(LookError::while_(doing)("calico-node does not see it here")),
        }
        Ok((traffic::NAMESPACE.to_owned(), traffic::SENDER.to_owned()))
    }
}

#[async_trait]
impl Provisioned for KindEnvironment {
    fn environment(self: Arc<Self>) -> Arc<dyn Environment> {
        self
    }

    async fn provenance(&self) -> BTreeMap<String, String> {
        self.provenance.clone()
    }

    async fn collect(&self, folder: &Path) -> Vec<String> {
        collect(&self.calico.client, folder).await
    }

    async fn finish(&self) -> Result<(), String> {
        reap::delete(&self.ledger, &self.cluster).await.map_err(|e| e.to_string())
    }

    async fn keep(&self) -> String {
        keep(&self.ledger, &self.cluster)
    }
}

/// Marks a cluster as kept on purpose; how to use it.
pub(super) fn keep(ledger: &Ledger, cluster: &str) -> String {
    if let Err(e) = ledger.keep(Owned::Cluster, cluster) {
        return format!("cluster {cluster} cannot be kept: writing the ledger: {e}");
    }
    format!(
        "kept: cluster {cluster}. Use it with `kind export kubeconfig --name {cluster}`; `cargo xtask clean --kept` deletes it"
    )
}

/// Lines of a container's log that are gathered.
const LOG_LINES: i64 = 200;

/// Writes the pods' states, and the logs of those that are not ready; what could not be gathered.
pub(super) async fn collect(client: &Client, folder: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    let mut states = String::new();
    let write = |name: &str, text: &str| {
        let written =
            std::fs::create_dir_all(folder).and_then(|()| write_whole(&folder.join(name), text.as_bytes()));
        written.err().map(|e| format!("writing {name}: {e}"))
    };
    for namespace in [OPERATOR_NAMESPACE, CALICO_NAMESPACE, "kube-system"] {
        let found = match pods(client, namespace, "").await {
            Ok(found) => found,
            Err(e) => {
                missing.push(e.to_string());
                continue;
            }
        };
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        for pod in found {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let state = state(&pod);
            states.push_str(&format!("{namespace}/{name}: {state:?}\n"));
            if state == State::Ready {
                continue;
            }
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let container = container.name.clone();
                let params = LogParams {
                    container: Some(container.clone()),
                    tail_lines: Some(LOG_LINES),
                    ..LogParams::default()
                };
                match api.logs(&name, &params).await {
                    Ok(text) => missing.extend(write(&format!("{name}.{container}.log"), &text)),
                    // One that never started has none.
                    Err(kube::Error::Api(status)) if status.code == 400 => {}
                    Err(e) => missing.push(format!("the log of {name}: {e}")),
                }
            }
        }
    }
    missing.extend(write("pods.txt", &states));
    missing
}
