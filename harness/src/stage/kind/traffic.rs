//! Two pods of which one sends to the other: what calico-node has to report.

use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};

use crate::environment::LookError;
use crate::stage::api;

/// Their namespace.
pub(super) const NAMESPACE: &str = "catwalk-traffic";
/// The name of the pod that sends.
pub(super) const SENDER: &str = "client";
const PORT: u16 = 8080;

/// Applies two pods of which one sends to the other, for as long as the cluster is there.
pub(super) async fn start(client: &Client, image: &str) -> Result<(), LookError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    // By the Service's address the client can be started before the server has one of its own.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": NAMESPACE},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": PORT}]},
    });
    api::apply(client, &[namespace, service.clone()], deadline, &|_, _| {}).await?;
    let doing = "reading the Service catwalk-traffic/server";
    let service = api::dynamic(client, &service)?.get("server").await.map_err(LookError::while_(doing))?;
    let address = service.data.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default();
    let pods = [
        pod(image, "server", &["serve", &PORT.to_string()]),
        pod(image, SENDER, &["send", &format!("{address}:{PORT}")]),
    ];
    api::apply(client, &pods, deadline, &|_, _| {}).await
}

/// A pod that runs the project's own program and may do nothing else.
fn pod(image: &str, name: &str, words: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": name,
                "image": image,
                "imagePullPolicy": "Never",
                "args": words,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "runAsNonRoot": true,
                    "runAsUser": 10001,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}
