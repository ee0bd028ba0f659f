//! Calico as the API server of its cluster shows it: what the operator rendered, and what it says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catwalk_fixtures::pki::{Authority, Identity, Leaf, LeafRequest};
use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE, SearchList};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::api::dynamic;
use super::objects;
use crate::audit;
use crate::environment::{LookError, Stream, WhiskerDoor, WhiskerSide};
use crate::probe::tls;
use crate::wait::{Probe, wait_for};

/// The kinds that the operator renders and that may name a domain; a Secret by its certificates alone.
const RENDERED: [(&str, &str); 14] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("v1", "Secret"),
    ("v1", "Namespace"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("apiregistration.k8s.io/v1", "APIService"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
];

/// The longest wait for the operator to have rendered everything.
pub(super) const RENDERING: Duration = Duration::from_secs(180);
/// The longest handshake with Whisker's listener.
const SHAKE: Duration = Duration::from_secs(5);
/// How long nothing may change before the operator is believed to be stuck.
const STUCK: Duration = Duration::from_secs(10);

/// How far the operator is.
#[derive(PartialEq)]
struct Progress {
    statuses: BTreeMap<String, String>,
    objects: BTreeSet<(String, Option<u64>)>,
}

/// A Calico behind an API server.
pub(super) struct Calico {
    pub(super) client: Client,
    authority: OnceCell<Authority>,
    /// Whether Whisker's listener speaks TLS.
    whisker_tls: OnceCell<bool>,
}

impl Calico {
    pub(super) fn new(client: Client) -> Self {
        Self { client, authority: OnceCell::new(), whisker_tls: OnceCell::new() }
    }

    /// An object of calico-system.
    pub(super) async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value, LookError> {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": CALICO_NAMESPACE}});
        let doing = format!("reading the {kind} {CALICO_NAMESPACE}/{name}");
        let got =
            dynamic(&self.client, &object)?.get(name).await.map_err(LookError::while_(doing.clone()))?;
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
    pub(super) async fn dialling_container(&self) -> Result<(String, String), LookError> {
        let deployment = self.get("apps/v1", "Deployment", "whisker").await?;
        let found = objects::container_with(&deployment, "GOLDMANE_HOST");
        found.map(|(container, host)| (container.to_owned(), host.to_owned())).ok_or_else(|| LookError {
            doing: "reading the Deployment calico-system/whisker".to_owned(),
            why: "none of its containers has GOLDMANE_HOST".to_owned(),
        })
    }

    /// The port behind a Service's first port: where its pods listen.
    pub(super) async fn target_port(&self, service: &str) -> Result<u16, LookError> {
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

    /// A way to Whisker's listener, over whatever opens a connection to it: with TLS where it speaks it, as from v3.33 on
    /// (operator, `pkg/render/whisker`: port 8443). No object says which, so the listener is asked, once.
    pub(super) async fn whisker_door<F>(&self, connect: impl Fn() -> F) -> Result<WhiskerDoor, LookError>
    where
        F: Future<Output = Result<Box<dyn Stream>, LookError>>,
    {
        let plain = |stream| WhiskerDoor { stream, prefix: "/whisker-backend" };
        if self.whisker_tls.get() == Some(&false) {
            return Ok(plain(connect().await?));
        }
        match timeout(SHAKE, tls::offer(connect().await?, "whisker")).await {
            Ok(Ok(Some(stream))) => {
                let _ = self.whisker_tls.set(true);
                Ok(plain(Box::new(stream)))
            }
            Ok(Ok(None)) => {
                let _ = self.whisker_tls.set(false);
                Ok(plain(connect().await?))
            }
            // Whatever is wrong with it is better asked for without TLS, unless it has spoken it before.
            Ok(Err(_)) | Err(_) if self.whisker_tls.get().is_none() => Ok(plain(connect().await?)),
            Ok(Err(e)) => Err(LookError::while_("shaking hands with Whisker's listener")(e)),
            Err(_) => Err(LookError::while_("shaking hands with Whisker's listener")("no answer")),
        }
    }

    /// Whisker's side of the link, with the search list of its resolver.
    pub(super) async fn whisker_side(&self, search: SearchList) -> Result<WhiskerSide, LookError> {
        let (_, goldmane_host) = self.dialling_container().await?;
        let doing = "reading the ConfigMap calico-system/whisker-ca-bundle";
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), CALICO_NAMESPACE);
        let bundle = maps.get("whisker-ca-bundle").await.map_err(LookError::while_(doing))?;
        let trust = bundle.data.unwrap_or_default().into_values().collect::<Vec<_>>().join("\n");
        let (certificate, key) = self.secret(CALICO_NAMESPACE, "whisker-backend-key-pair").await?;
        Ok(WhiskerSide {
            goldmane_host,
            search,
            trust,
            identity: Identity::from_pem(&certificate, &key)
                .map_err(LookError::while_("reading Whisker's certificate"))?,
        })
    }

    /// Issues a certificate by the operator's own authority, whose key stays in memory.
    pub(super) async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError> {
        let authority = self.authority.get_or_try_init(|| async {
            let (certificate, key) = self.secret(OPERATOR_NAMESPACE, "tigera-ca-private").await?;
            Authority::from_pem(&certificate, &key)
                .map_err(LookError::while_("reading the operator's authority"))
        });
        authority.await?.issue(request).map_err(LookError::while_("issuing a certificate"))
    }

    /// Every Service, rendered or not, as `name.namespace`, with its address; none where it has none.
    pub(super) async fn services(&self) -> Result<BTreeMap<String, Option<std::net::IpAddr>>, LookError> {
        let services: Api<k8s_openapi::api::core::v1::Service> = Api::all(self.client.clone());
        let list = services
            .list(&ListParams::default())
            .await
            .map_err(LookError::while_("listing every Service"))?;
        let one = |service: k8s_openapi::api::core::v1::Service| {
            let name = format!(
                "{}.{}",
                service.metadata.name.unwrap_or_default(),
                service.metadata.namespace.unwrap_or_default()
            );
            (name, service.spec.and_then(|spec| spec.cluster_ip?.parse().ok()))
        };
        Ok(list.items.into_iter().map(one).collect())
    }

    /// The objects that the operator rendered, in all namespaces: those that its custom resources own. Of a Secret
    /// only its certificates are among them, as `certificates`, PEM by key.
    pub(super) async fn rendered(&self) -> Result<Vec<Value>, LookError> {
        let lists = RENDERED.iter().map(|(api_version, kind)| self.list(api_version, kind));
        let lists = futures::future::try_join_all(lists).await?;
        Ok(lists
            .into_iter()
            .flatten()
            .filter(objects::is_rendered)
            .map(objects::certificates_alone)
            .collect())
    }

    async fn list(&self, api_version: &str, kind: &str) -> Result<Vec<Value>, LookError> {
        let types = json!({"apiVersion": api_version, "kind": kind});
        let doing = format!("listing every {kind}");
        let list = dynamic(&self.client, &types)?.list(&ListParams::default()).await;
        let objects = list.map_err(LookError::while_(doing.clone()))?.items.into_iter().map(|object| {
            let mut object = serde_json::to_value(object).map_err(LookError::while_(doing.clone()))?;
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            Ok(object)
        });
        objects.collect()
    }

    /// Waits until each of these TigeraStatus is Available, or until the operator stays Degraded over something else
    /// and renders nothing more.
    pub(super) async fn rendering_ended(
        &self,
        statuses: &[String],
        patience: Duration,
    ) -> Result<(), LookError> {
        let deadline = Instant::now() + patience;
        let held: Mutex<Option<(Progress, Instant)>> = Mutex::default();
        wait_for("the operator", deadline, Duration::from_millis(500), &|_, _| {}, || async {
            let now = match self.progress(statuses).await {
                Ok(now) => now,
                Err(e) => return Probe::NotYet(e.to_string()),
            };
            let waiting: Vec<String> = now
                .statuses
                .iter()
                .filter(|(_, line)| !line.contains("Available"))
                .map(|(name, line)| format!("TigeraStatus {name}: {line}"))
                .collect();
            if waiting.is_empty() {
                return Probe::Done(());
            }
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            match &*held {
                Some((earlier, since)) if *earlier == now => {
                    let is_stuck = waiting.iter().all(|line| line.contains("Degraded"));
                    if is_stuck && since.elapsed() >= STUCK {
                        return Probe::Done(());
                    }
                }
                _ => *held = Some((now, Instant::now())),
            }
            Probe::NotYet(waiting.join("; "))
        })
        .await
        .map_err(LookError::while_("waiting for the operator to have rendered everything"))
    }

    async fn progress(&self, statuses: &[String]) -> Result<Progress, LookError> {
        let said = self.tigera_status().await;
        let line =
            |name: &String| (name.clone(), said.get(name).cloned().unwrap_or_else(|| "not there".to_owned()));
        let objects = self.rendered().await?;
        let generation = |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_u64);
        Ok(Progress {
            statuses: statuses.iter().map(line).collect(),
            objects: objects.iter().map(|object| (audit::title(object), generation(object))).collect(),
        })
    }

    /// TigeraStatus by name, in a line each.
    pub(super) async fn tigera_status(&self) -> BTreeMap<String, String> {
        let types = json!({"apiVersion": "operator.tigera.io/v1", "kind": "TigeraStatus"});
        let Ok(api) = dynamic(&self.client, &types) else { return BTreeMap::new() };
        let Ok(list) = api.list(&ListParams::default()).await else { return BTreeMap::new() };
        let line = |status: kube::api::DynamicObject| {
            (status.metadata.name.clone().unwrap_or_default(), conditions(&status.data))
        };
        list.items.into_iter().map(line).collect()
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
