//! A Calico on a kind cluster, looked at through its API server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::pki::{Authority, Identity, Leaf, LeafRequest};
use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE, SearchList};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{self, forward, forward_or_refusal, pods};
use super::ready::{State, state};
use super::{reap, traffic};
use crate::environment::{
    About, Capability, Claims, Environment, LookError, Pace, Reached, Stream, WhiskerDoor, WhiskerSide,
};
use crate::owner::{Ledger, Owned};
use crate::report::write_whole;
use crate::sight::Vantage;
use crate::stage::{NoEnvironment, Provisioned, objects};

/// The kinds that the operator renders and that may name a domain.
const RENDERED: [(&str, &str); 6] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("batch/v1", "Job"),
];

/// One cluster of a run.
pub(super) struct KindEnvironment {
    pub(super) about: About,
    pub(super) cluster: String,
    pub(super) ledger: Ledger,
    pub(super) client: Client,
    pub(super) provenance: BTreeMap<String, String>,
    /// The image that makes traffic, or why there is none, where calico-node would see it.
    pub(super) traffic: Option<Result<String, NoEnvironment>>,
    pub(super) authority: OnceCell<Authority>,
}

impl KindEnvironment {
    async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value, LookError> {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": CALICO_NAMESPACE}});
        let doing = format!("reading the {kind} {CALICO_NAMESPACE}/{name}");
        let got =
            api::dynamic(&self.client, &object)?.get(name).await.map_err(LookError::while_(doing.clone()))?;
        serde_json::to_value(got).map_err(LookError::while_(doing))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<(String, String), LookError> {
        let doing = format!("reading the Secret {namespace}/{name}");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let data = api.get(name).await.map_err(LookError::while_(doing.clone()))?.data.unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).ok_or_else(|| format!("it has no {key}"));
            let text = bytes.and_then(|b| String::from_utf8(b.0.clone()).map_err(|e| e.to_string()));
            text.map_err(LookError::while_(doing.clone()))
        };
        Ok((text("tls.crt")?, text("tls.key")?))
    }

    /// The container that dials Goldmane, and the name that it dials.
    async fn dialling_container(&self) -> Result<(String, String), LookError> {
        let deployment = self.get("apps/v1", "Deployment", "whisker").await?;
        let found = objects::container_with(&deployment, "GOLDMANE_HOST");
        found.map(|(container, host)| (container.to_owned(), host.to_owned())).ok_or_else(|| LookError {
            doing: "reading the Deployment calico-system/whisker".to_owned(),
            why: "none of its containers has GOLDMANE_HOST".to_owned(),
        })
    }

    /// The port behind a Service's first port: where its pods listen.
    async fn target_port(&self, service: &str) -> Result<u16, LookError> {
        let service_object = self.get("v1", "Service", service).await?;
        let port = service_object.pointer("/spec/ports/0").and_then(|port| {
            port.get("targetPort")
                .and_then(Value::as_u64)
                .or_else(|| port.get("port").and_then(Value::as_u64))
        });
        port.and_then(|port| u16::try_from(port).ok()).ok_or_else(|| LookError {
            doing: format!("reading the Service {CALICO_NAMESPACE}/{service}"),
            why: "it has no port number".to_owned(),
        })
    }
}

#[async_trait]
impl Environment for KindEnvironment {
    fn about(&self) -> &About {
        &self.about
    }

    fn can(&self) -> Vec<Capability> {
        let mut can = vec![Capability::PushFlow, Capability::AskWhisker];
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
        let (_, goldmane_host) = self.dialling_container().await?;
        let doing = "reading the ConfigMap calico-system/whisker-ca-bundle";
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), CALICO_NAMESPACE);
        let bundle = maps.get("whisker-ca-bundle").await.map_err(LookError::while_(doing))?;
        let trust = bundle.data.unwrap_or_default().into_values().collect::<Vec<_>>().join("\n");
        let (certificate, key) = self.secret(CALICO_NAMESPACE, "whisker-backend-key-pair").await?;
        Ok(WhiskerSide {
            goldmane_host,
            // The kubelet's own domain: provisioning has read it on the node.
            search: SearchList::of_pod(CALICO_NAMESPACE, &self.about.domain),
            trust,
            identity: Identity::from_pem(&certificate, &key)
                .map_err(LookError::while_("reading Whisker's certificate"))?,
        })
    }

    async fn connect_dns(&self) -> Result<Box<dyn Stream>, String> {
        forward(&self.client, "kube-system", "k8s-app=kube-dns", 53).await.map_err(|e| e.to_string())
    }

    async fn connect_goldmane(&self, _: Option<(IpAddr, u16)>) -> Result<Reached, LookError> {
        let port = self.target_port("goldmane").await?;
        match forward_or_refusal(&self.client, CALICO_NAMESPACE, "k8s-app=goldmane", port).await? {
            Ok(stream) => Ok(Reached::Open(stream)),
            Err(why) if why.contains("refused") => Ok(Reached::Refused),
            Err(why) if why.contains("timed out") || why.contains("timeout") => Ok(Reached::TimedOut),
            Err(why) => Err(LookError { doing: "connecting to Goldmane".to_owned(), why }),
        }
    }

    async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError> {
        let authority = self.authority.get_or_try_init(|| async {
            let (certificate, key) = self.secret(OPERATOR_NAMESPACE, "tigera-ca-private").await?;
            Authority::from_pem(&certificate, &key)
                .map_err(LookError::while_("reading the operator's authority"))
        });
        authority.await?.issue(request).map_err(LookError::while_("issuing a certificate"))
    }

    async fn connect_whisker(&self) -> Result<WhiskerDoor, LookError> {
        let port = self.target_port("whisker").await?;
        let stream = forward(&self.client, CALICO_NAMESPACE, "k8s-app=whisker", port).await?;
        Ok(WhiskerDoor { stream, prefix: "/whisker-backend" })
    }

    async fn whisker_log(&self) -> Result<String, LookError> {
        let (container, _) = self.dialling_container().await?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), CALICO_NAMESPACE);
        let mut log = String::new();
        for pod in pods(&self.client, CALICO_NAMESPACE, "k8s-app=whisker").await? {
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
        let mut all = Vec::new();
        for (api_version, kind) in RENDERED {
            for namespace in [CALICO_NAMESPACE, OPERATOR_NAMESPACE] {
                let types =
                    json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace}});
                let doing = format!("listing every {kind} of {namespace}");
                let list = api::dynamic(&self.client, &types)?
                    .list(&ListParams::default())
                    .await
                    .map_err(LookError::while_(doing.clone()))?;
                for object in list.items {
                    let mut object =
                        serde_json::to_value(object).map_err(LookError::while_(doing.clone()))?;
                    object["apiVersion"] = json!(api_version);
                    object["kind"] = json!(kind);
                    all.push(object);
                }
            }
        }
        Ok(all)
    }

    async fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        let types = json!({"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus"});
        if let Ok(api) = api::dynamic(&self.client, &types)
            && let Ok(list) = api.list(&ListParams::default()).await
        {
            for status in list.items {
                let name = status.metadata.name.clone().unwrap_or_default();
                claims.tigera_status.insert(name, conditions(&status.data));
            }
        }
        for namespace in [OPERATOR_NAMESPACE, CALICO_NAMESPACE] {
            for pod in pods(&self.client, namespace, "").await.unwrap_or_default() {
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
            Some(Ok(image)) => traffic::start(&self.client, image).await?,
            Some(Err(e)) => return Err(LookError::while_(doing)(e)),
            None => return Err(LookError::while_(doing)("calico-node does not see it here")),
        }
        Ok((traffic::NAMESPACE.to_owned(), traffic::SENDER.to_owned()))
    }
}

/// A TigeraStatus in one line: `Available`, `Available, Degraded: reason`, `Progressing`.
fn conditions(status: &Value) -> String {
    let conditions = status.pointer("/status/conditions").and_then(Value::as_array);
    let mut words: Vec<String> = conditions
        .into_iter()
        .flatten()
        .filter(|c| c.get("status").and_then(Value::as_str) == Some("True"))
        .map(|c| {
            let text = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default();
            if text("type") == "Degraded" {
                format!("Degraded: {}", text("message"))
            } else {
                text("type").to_owned()
            }
        })
        .collect();
    words.sort();
    if words.is_empty() { "says nothing".to_owned() } else { words.join(", ") }
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
        collect(&self.client, folder).await
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
    let kept = ledger.enter(Owned::Kept, cluster).and_then(|()| ledger.strike(Owned::Cluster, cluster));
    if let Err(e) = kept {
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
