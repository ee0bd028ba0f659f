//! Port-forwards: ways into a cluster's pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};

use crate::environment::{LookError, Stream};
use crate::stage::api::pods;

/// Connects to a port of the first running pod with that label.
///
/// A refusal shows as a connection that ends at once.
pub(super) async fn forward(
    client: &Client,
    namespace: &str,
    labels: &str,
    port: u16,
) -> Result<Box<dyn Stream>, LookError> {
    forward_watched(client, namespace, labels, port).await.map(|(stream, _)| stream)
}

/// The same, and waits a moment for the node's refusal, so that it can be told from a peer that hangs up.
pub(super) async fn forward_or_refusal(
    client: &Client,
    namespace: &str,
    labels: &str,
    port: u16,
) -> Result<Result<Box<dyn Stream>, String>, LookError> {
    let (stream, refusal) = forward_watched(client, namespace, labels, port).await?;
    // The node connects after it has accepted the forward, and says a refusal on a channel of its own.
    match tokio::time::timeout(REFUSAL, refusal).await {
        Ok(Some(why)) => Ok(Err(why)),
        Ok(None) | Err(_) => Ok(Ok(stream)),
    }
}

async fn forward_watched(
    client: &Client,
    namespace: &str,
    labels: &str,
    port: u16,
) -> Result<(Box<dyn Stream>, impl Future<Output = Option<String>> + use<>), LookError> {
    let doing = || format!("connecting to port {port} of pod {labels} in {namespace}");
    let pods = pods(client, namespace, labels).await?;
    let running = pods.iter().find(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    });
    let Some(name) = running.and_then(|pod| pod.metadata.name.clone()) else {
        return Err(LookError { doing: doing(), why: "no such pod is running".to_owned() });
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = api.portforward(&name, &[port]).await.map_err(LookError::while_(doing()))?;
    let none = || LookError { doing: doing(), why: "the port-forward has no stream".to_owned() };
    let stream = forwarder.take_stream(port).ok_or_else(none)?;
    let refusal = forwarder.take_error(port).ok_or_else(none)?;
    Ok((Box::new(stream), refusal))
}

/// How long a refusal of a port-forward takes to arrive.
const REFUSAL: Duration = Duration::from_millis(150);
