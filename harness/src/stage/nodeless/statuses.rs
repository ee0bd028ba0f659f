//! Writes the statuses of workloads as the controllers of a cluster with nodes would, so that the operator goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::kubelet::{Ready, all_ready};
use crate::stage::api::dynamic;
use crate::wait::tick;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(400);
/// The kinds that get a status.
const KINDS: [(&str, &str); 4] =
    [("apps/v1", "Deployment"), ("apps/v1", "DaemonSet"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job")];

/// The pods that really run, by `namespace/workload`: those are ready when they are. Of all others it is said that
/// they are.
pub(super) type Running = BTreeMap<String, Ready>;

/// Writes statuses for as long as it is polled.
pub(super) async fn write(client: Client, running: impl Fn() -> Running) {
    loop {
        for (api_version, kind) in KINDS {
            // What fails now is tried again.
            let _ = write_kind(&client, api_version, kind, &running()).await;
        }
        tick(EVERY).await;
    }
}

async fn write_kind(
    client: &Client,
    api_version: &str,
    kind: &str,
    running: &Running,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let all = dynamic(client, &json!({"apiVersion": api_version, "kind": kind}))?;
    for object in all.list(&ListParams::default()).await?.items {
        let (namespace, name) =
            (object.metadata.namespace.unwrap_or_default(), object.metadata.name.unwrap_or_default());
        let ready = running.get(&format!("{namespace}/{name}")).is_none_or(all_ready);
        let generation = object.metadata.generation.unwrap_or_default();
        let status = status(kind, &object.data, generation, ready);
        let has = |(key, value): (&String, &Value)| {
            matches!(key.as_str(), "conditions" | "completionTime")
                || object.data["status"].get(key) == Some(value)
        };
        let now = object.data["status"].as_object().is_some()
            && status.as_object().is_some_and(|s| s.iter().all(has));
        if now {
            continue;
        }
        let api: Api<kube::api::DynamicObject> = dynamic(
            client,
            &json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace}}),
        )?;
        let patch = Patch::Merge(json!({"status": status}));
        // One that is not taken is no reason to leave the others out.
        let _ = api.patch_status(&name, &PatchParams::default(), &patch).await;
    }
    Ok(())
}

fn status(kind: &str, object: &Value, generation: i64, ready: bool) -> Value {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let ready_count = if ready { wanted } else { 0 };
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|t| t.format(&Rfc3339).ok());
    let condition = |name: &str, holds: bool| {
        json!({"type": name, "status": if holds { "True" } else { "False" }, "reason": "Catwalk",
               "message": "written by Catwalk: there is no node", "lastTransitionTime": now, "lastUpdateTime": now})
    };
    match kind {
        "Deployment" => json!({
            "observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
            "readyReplicas": ready_count, "availableReplicas": ready_count,
            "conditions": [condition("Available", ready), condition("Progressing", true)],
        }),
        "StatefulSet" => json!({
            "observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted,
            "readyReplicas": ready_count, "availableReplicas": ready_count,
        }),
        "DaemonSet" => json!({
            "observedGeneration": generation, "desiredNumberScheduled": 1, "currentNumberScheduled": 1,
            "updatedNumberScheduled": 1, "numberReady": 1, "numberAvailable": 1, "numberMisscheduled": 0,
        }),
        _ => {
            let done = |name: &str| json!({"type": name, "status": "True", "reason": "Catwalk", "lastTransitionTime": now, "lastProbeTime": now});
            json!({
                "startTime": object.pointer("/metadata/creationTimestamp").cloned().unwrap_or_else(|| json!(now)),
                "completionTime": now, "succeeded": 1, "uncountedTerminatedPods": {},
                "conditions": [done("SuccessCriteriaMet"), done("Complete")],
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_runs_is_ready_when_it_is() {
        let deployment = json!({"spec": {"replicas": 2}});
        let said = |ready| {
            let status = status("Deployment", &deployment, 3, ready);
            (
                status["readyReplicas"].clone(),
                status["conditions"][0]["status"].clone(),
                status["observedGeneration"].clone(),
            )
        };
        assert_eq!(said(true), (json!(2), json!("True"), json!(3)));
        assert_eq!(said(false), (json!(0), json!("False"), json!(3)));
    }
}
