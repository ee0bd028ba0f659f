//! The API server of one cluster.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::discovery::Discovery;
use kube::{Api, Client, Config};
use serde_json::Value;

use crate::environment::LookError;
use crate::wait::{NOTHING_YET, Probe, Tell, wait_for};

/// The field manager of what this project applies.
const MANAGER: &str = "catwalk";
/// Objects applied at once.
const AT_ONCE: usize = 8;
/// The longest that one request may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A client of the cluster that the kubeconfig's text names.
pub(super) async fn client(kubeconfig: &str) -> Result<Client, LookError> {
    let doing = "reading the cluster's kubeconfig";
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).map_err(LookError::while_(doing))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(LookError::while_(doing))?;
    config.connect_timeout = Some(Duration::from_secs(10));
    // Of one answer; logs and port-forwards are not read that long without a word either.
    config.read_timeout = Some(REQUEST);
    // The cluster is on this machine: no proxy is on the way to it.
    config.proxy_url = None;
    Client::try_from(config).map_err(LookError::while_("making a client for the cluster"))
}

/// The API for objects of that kind.
pub(super) fn dynamic(client: &Client, object: &Value) -> Result<Api<DynamicObject>, LookError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let types = TypeMeta {
        api_version: text("/apiVersion").unwrap_or_default().to_owned(),
        kind: text("/kind").unwrap_or_default().to_owned(),
    };
    let gvk = GroupVersionKind::try_from(types).map_err(LookError::while_("reading an object's kind"))?;
    let resource = ApiResource::from_gvk(&gvk);
    Ok(match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Applies objects by server-side apply, several at once; the API server's refusals of what does not exist yet
/// (a kind, an account) are waited out until the deadline. Namespaces go first.
pub(super) async fn apply(
    client: &Client,
    objects: &[Value],
    deadline: Instant,
    tell: Tell<'_>,
) -> Result<(), LookError> {
    let (namespaces, others): (Vec<Value>, Vec<Value>) =
        objects.iter().cloned().partition(|object| object["kind"] == "Namespace");
    for objects in [namespaces, others] {
        futures::stream::iter(objects)
            .map(|object| async move { apply_one(client, &object, deadline, tell).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}

async fn apply_one(
    client: &Client,
    object: &Value,
    deadline: Instant,
    tell: Tell<'_>,
) -> Result<(), LookError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    let what = format!("applying {} {name}", text("/kind"));
    let api = dynamic(client, object)?;
    let params = PatchParams::apply(MANAGER).force();
    // Of the many that go at once only those that are held up are worth a word.
    let tell_trouble = |what: &str, last: &str| {
        if last != NOTHING_YET {
            tell(what, last);
        }
    };
    wait_for(&what, deadline, Duration::from_millis(300), &tell_trouble, || async {
        match tokio::time::timeout(REQUEST, api.patch(name, &params, &Patch::Apply(object))).await {
            Ok(Ok(_)) => Probe::Done(()),
            Ok(Err(kube::Error::Api(status))) => {
                // Not found: the kind or the namespace is to come. Server errors and conflicts pass. An account that
                // is missing is forbidden. The rest will not pass.
                let to_come = status.code == 403 && status.message.contains("not found");
                if to_come || matches!(status.code, 404 | 409 | 429 | 500..) {
                    Probe::NotYet(status.message.clone())
                } else {
                    Probe::Never(status.message.clone())
                }
            }
            Ok(Err(e)) => Probe::NotYet(e.to_string()),
            Err(_) => Probe::NotYet(format!("no answer within {} s", REQUEST.as_secs())),
        }
    })
    .await
    .map_err(LookError::while_(what.clone()))
}

/// Waits until the API server serves the kinds of these CRDs.
pub(super) async fn served(
    client: &Client,
    crds: &[Value],
    deadline: Instant,
    tell: Tell<'_>,
) -> Result<(), LookError> {
    let text = |crd: &Value, pointer: &str| {
        crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let wanted: Vec<(String, String)> =
        crds.iter().map(|crd| (text(crd, "/spec/group"), text(crd, "/spec/names/kind"))).collect();
    // Its list is two requests; the CRDs themselves are megabytes.
    wait_for("the CRDs to be served", deadline, Duration::from_millis(100), tell, || async {
        let discovery = match Discovery::new(client.clone()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(e) => return Probe::NotYet(e.to_string()),
        };
        let served = |(group, kind): &&(String, String)| {
            discovery
                .get(group)
                .is_some_and(|group| group.recommended_resources().iter().any(|(r, _)| r.kind == *kind))
        };
        match wanted.iter().filter(|crd| !served(crd)).count() {
            0 => Probe::Done(()),
            missing => Probe::NotYet(format!("{missing} of {} not yet", wanted.len())),
        }
    })
    .await
    .map_err(LookError::while_("waiting for the CRDs"))
}

/// The pods of a namespace with that label.
pub(super) async fn pods(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>, LookError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(labels)).await;
    list.map(|list| list.items).map_err(LookError::while_(format!("listing the pods of {namespace}")))
}
