//! On which nodes Whisker and Goldmane are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use catwalk_fixtures::CALICO_NAMESPACE;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::stage::NoEnvironment;
use crate::stage::api::pods;
use crate::wait::{Probe, Tell, wait_for};

/// The nodes, and who is on which.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// How many there are.
    nodes: usize,
    /// The node by program, without the cluster's name: `worker`.
    of: BTreeMap<&'static str, String>,
}

impl Placement {
    /// Whether the link between the two crosses nodes.
    pub(super) fn is_apart(&self) -> bool {
        self.of.get("whisker") != self.of.get("goldmane")
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.nodes)?;
        for (program, node) in &self.of {
            write!(f, ", {program} on {node}")?;
        }
        Ok(())
    }
}

/// Looks where they are. On a cluster of several nodes they must be on different ones, since that is what it is for.
pub(super) async fn seen(
    client: &Client,
    cluster: &str,
    deadline: Instant,
    tell: Tell<'_>,
) -> Result<Placement, NoEnvironment> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes
        .list(&ListParams::default())
        .await
        .map_err(|e| NoEnvironment::because(format!("listing nodes: {e}")))?;
    let of =
        wait_for("the nodes of Whisker and Goldmane", deadline, Duration::from_millis(500), tell, || async {
            match look(client, cluster).await {
                Ok(of) if of.len() == 2 => Probe::Done(of),
                Ok(of) => Probe::NotYet(format!("{of:?}")),
                Err(e) => Probe::NotYet(e),
            }
        });
    let of = of.await.map_err(|e| NoEnvironment::because(e.to_string()))?;
    let placement = Placement { nodes: nodes.items.len(), of };
    if placement.nodes > 1 && !placement.is_apart() {
        return Err(NoEnvironment::because(format!(
            "Whisker and Goldmane are on one node, and it has several so that they are not: {placement}"
        )));
    }
    Ok(placement)
}

async fn look(client: &Client, cluster: &str) -> Result<BTreeMap<&'static str, String>, String> {
    let all = pods(client, CALICO_NAMESPACE, "").await.map_err(|e| e.to_string())?;
    let mut of = BTreeMap::new();
    for pod in all {
        let app = pod.metadata.labels.iter().flatten().find(|(name, _)| *name == "k8s-app");
        let program = match app.map(|(_, app)| app.as_str()) {
            Some("whisker") => "whisker",
            Some("goldmane") => "goldmane",
            _ => continue,
        };
        let node = pod.spec.and_then(|spec| spec.node_name);
        if let Some(node) = node {
            let short = node.strip_prefix(cluster).map(|rest| rest.trim_start_matches('-'));
            of.insert(program, short.unwrap_or(&node).to_owned());
        }
    }
    Ok(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_crosses_nodes_where_they_differ() {
        let placement = |nodes, goldmane: &str| Placement {
            nodes,
            of: BTreeMap::from([("whisker", "worker".to_owned()), ("goldmane", goldmane.to_owned())]),
        };
        let apart = placement(2, "control-plane");
        assert!(apart.is_apart());
        assert_eq!(apart.to_string(), "2, goldmane on control-plane, whisker on worker");
        assert!(!placement(1, "worker").is_apart());
    }
}
