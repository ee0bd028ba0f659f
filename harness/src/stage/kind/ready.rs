//! When a cluster's Calico is worth asking: Goldmane has an endpoint.
//!
//! Before that Whisker must not be asked at all: its own policy drops the dial, the answer takes 20 s, and gRPC backs
//! off. Neither TigeraStatus nor readiness of Whisker is waited for: both say healthy while nothing is delivered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;
use time::OffsetDateTime;

use crate::environment::LookError;
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::stage::api::{dynamic, pods};
use crate::stage::config::Cni;
use crate::wait::{Probe, Tell, wait_for};

/// Seconds after which a ready node counts for an unschedulable pod.
const SETTLED_SECONDS: i64 = 20;
/// Restarts from which a crash loop is believed.
const CRASHES: i32 = 3;

/// Waits until Goldmane has an endpoint and Whisker's containers have started.
pub(super) async fn goldmane_has_an_endpoint(
    client: &Client,
    cni: Cni,
    deadline: Instant,
    tell: Tell<'_>,
) -> Result<(), NoEnvironment> {
    let what = "an endpoint of Goldmane";
    wait_for(what, deadline, Duration::from_millis(500), tell, || async {
        match look(client, cni).await {
            Ok(probe) => probe,
            Err(e) => Probe::NotYet(e.to_string()),
        }
    })
    .await
    .map_err(|e| NoEnvironment::because(e.to_string()))
}

/// Waits until the operator has rendered Whisker's network policy: a link that is good before it proves less.
///
/// v3.30 and v3.31 render a NetworkPolicy of Kubernetes at once; v3.32 one of Calico's, and only once
/// projectcalico.org/v3 is served.
pub(super) async fn whisker_has_its_policy(client: &Client, deadline: Instant, teller: &Teller) -> bool {
    let of = |api_version: &str| json!({"apiVersion": api_version, "kind": "NetworkPolicy", "metadata": {"namespace": CALICO_NAMESPACE}});
    let kinds = [of("networking.k8s.io/v1"), of("crd.projectcalico.org/v1"), of("projectcalico.org/v3")];
    let tell = teller.as_tell();
    wait_for("Whisker's network policy", deadline, Duration::from_secs(1), &tell, || async {
        for kind in &kinds {
            let Ok(api) = dynamic(client, kind) else { continue };
            // A kind that is not served has no policies.
            let Ok(list) = api.list(&ListParams::default()).await else { continue };
            let names: Vec<&str> = list.items.iter().filter_map(|p| p.metadata.name.as_deref()).collect();
            if names.iter().any(|name| name.contains("whisker")) {
                return Probe::Done(());
            }
        }
        Probe::NotYet("none".to_owned())
    })
    .await
    .is_ok()
}

async fn look(client: &Client, cni: Cni) -> Result<Probe<()>, LookError> {
    let mut all = pods(client, OPERATOR_NAMESPACE, "").await?;
    all.extend(pods(client, CALICO_NAMESPACE, "").await?);
    let nodes_settled = nodes_settled(client).await?;
    let mut states = BTreeMap::new();
    for pod in &all {
        let name_of_app = app(pod);
        // A network that the node image brings does without calico-node, and so do those who wait for it.
        let accepted = cni != Cni::Calico
            && matches!(
                name_of_app,
                "calico-node"
                    | "calico-typha"
                    | "csi-node-driver"
                    | "calico-kube-controllers"
                    | "calico-apiserver"
            );
        match state(pod) {
            State::Ready => {}
            State::Unschedulable(why) | State::CannotHeal(why)
                if !accepted && (nodes_settled || matches!(state(pod), State::CannotHeal(_))) =>
            {
                return Ok(Probe::Never(format!("pod {}: {why}", name(pod))));
            }
            State::Crashes(why)
                if !accepted && matches!(name_of_app, "tigera-operator" | "calico-node" | "calico-typha") =>
            {
                return Ok(Probe::Never(format!("pod {}: {why}", name(pod))));
            }
            State::CannotHeal(why) | State::Crashes(why) | State::Unschedulable(why) | State::NotYet(why) => {
                states.insert(name_of_app.to_owned(), why);
            }
        }
    }
    // A Goldmane or a Whisker that crashes is a finding, and the cases find it.
    let crashes =
        |name: &str| all.iter().any(|pod| app(pod) == name && matches!(state(pod), State::Crashes(_)));
    let whisker_started = all.iter().any(|pod| app(pod) == "whisker" && matches!(state(pod), State::Ready));
    let goldmane = crashes("goldmane") || has_endpoint(client).await?;
    if goldmane && (whisker_started || crashes("whisker")) {
        return Ok(Probe::Done(()));
    }
    let waiting = ["tigera-operator", "calico-node", "goldmane", "whisker"];
    let words: Vec<String> = waiting
        .iter()
        .filter_map(|name| match states.get(*name) {
            Some(why) => Some(format!("{name}: {why}")),
            None if all.iter().any(|pod| app(pod) == *name) => None,
            None => Some(format!("{name}: not there")),
        })
        .collect();
    Ok(Probe::NotYet(if words.is_empty() { "pods ready, no endpoint".to_owned() } else { words.join("; ") }))
}

async fn has_endpoint(client: &Client) -> Result<bool, LookError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), CALICO_NAMESPACE);
    let slices = api
        .list(&ListParams::default().labels("kubernetes.io/service-name=goldmane"))
        .await
        .map_err(LookError::while_("listing Goldmane's endpoints"))?;
    Ok(slices.items.iter().any(|slice| {
        slice
            .endpoints
            .iter()
            .any(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true) && !e.addresses.is_empty())
    }))
}

/// Whether every node has been ready for so long that the scheduler knows.
async fn nodes_settled(client: &Client) -> Result<bool, LookError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.map_err(LookError::while_("listing the nodes"))?;
    let ready_for = |node: &Node| {
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
        let since = ready.last_transition_time.as_ref()?.0.as_second();
        Some(OffsetDateTime::now_utc().unix_timestamp() - since)
    };
    Ok(!nodes.items.is_empty()
        && nodes.items.iter().all(|n| ready_for(n).is_some_and(|s| s >= SETTLED_SECONDS)))
}

fn app(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|l| l.get("k8s-app").or_else(|| l.get("name"))).map_or("", String::as_str)
}

fn name(pod: &Pod) -> String {
    format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    )
}

/// What keeps a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Ready,
    /// Something that passes.
    NotYet(String),
    /// No node takes it; it passes as long as nodes are still getting ready.
    Unschedulable(String),
    /// A program that ends again and again.
    Crashes(String),
    /// Something that does not pass by itself.
    CannotHeal(String),
}

/// Reads it from the pod's status.
pub(super) fn state(pod: &Pod) -> State {
    let Some(status) = &pod.status else { return State::NotYet("no status".to_owned()) };
    let condition = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    if let Some(scheduled) = condition("PodScheduled")
        && scheduled.reason.as_deref() == Some("Unschedulable")
    {
        let message = scheduled.message.clone().unwrap_or_default();
        return State::Unschedulable(format!("unschedulable: {message}"));
    }
    let containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut waiting_for = None;
    for container in containers {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else { continue };
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let message = waiting.message.as_deref().unwrap_or_default();
        let words = format!("container {}: {reason} {message}", container.name).trim().to_owned();
        match reason {
            "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => return State::CannotHeal(words),
            "CrashLoopBackOff" if container.restart_count >= CRASHES => return State::Crashes(words),
            _ => waiting_for = Some(words),
        }
    }
    if condition("Ready").is_some_and(|c| c.status == "True") {
        return State::Ready;
    }
    State::NotYet(waiting_for.unwrap_or_else(|| {
        let phase = status.phase.as_deref().unwrap_or("Unknown");
        if phase == "Running" { "running, not ready".to_owned() } else { phase.to_owned() }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn waiting(reason: &str, restarts: i32) -> Pod {
        pod(json!({"phase": "Pending", "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": restarts,
            "state": {"waiting": {"reason": reason, "message": "because"}},
        }]}))
    }

    #[test]
    fn what_cannot_heal_is_told_from_what_passes() {
        let words = |reason: &str| format!("container c: {reason} because");
        assert_eq!(state(&waiting("ImagePullBackOff", 0)), State::CannotHeal(words("ImagePullBackOff")));
        assert_eq!(state(&waiting("ErrImagePull", 0)), State::NotYet(words("ErrImagePull")));
        assert_eq!(state(&waiting("CrashLoopBackOff", 1)), State::NotYet(words("CrashLoopBackOff")));
        assert_eq!(state(&waiting("CrashLoopBackOff", 3)), State::Crashes(words("CrashLoopBackOff")));
        assert_eq!(state(&waiting("ContainerCreating", 0)), State::NotYet(words("ContainerCreating")));
        let unschedulable = pod(json!({"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
        }]}));
        assert_eq!(
            state(&unschedulable),
            State::Unschedulable("unschedulable: 0/1 nodes are available".into())
        );
        let ready = pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(state(&ready), State::Ready);
    }
}
