//! A control plane made ready for another domain: what came since the operator ran first is deleted, but for
//! namespaces, accounts, permissions and the operator's authority. Those name no domain. Without the first three the
//! operator would wait for its own other half; without the last its controllers, no longer held up by that, would race
//! for who makes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{Discovery, verbs};
use kube::{Api, Client};
use serde_json::json;

use crate::environment::LookError;

/// Requests at once.
const AT_ONCE: usize = 16;
/// What the API server makes by itself.
const API_SERVER: &str = "kube-apiserver";

/// What stays.
const STAYS: [(&str, &str); 6] = [
    ("", "Namespace"),
    ("", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
];

/// The operator's authority.
const AUTHORITY: (&str, Option<&str>) = ("Secret", Some("tigera-ca-private"));

/// An object's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub group: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

/// What a control plane had at some time: its kinds and their objects.
pub(super) struct Baseline {
    /// Those that can be listed and deleted; looked up before any aggregated API comes.
    kinds: Vec<ApiResource>,
    keys: BTreeSet<Key>,
}

impl Baseline {
    /// Takes what is there now.
    pub(super) async fn take(client: &Client) -> Result<Self, LookError> {
        let discovery = Discovery::new(client.clone())
            .run_aggregated()
            .await
            .map_err(LookError::while_("asking the API server which kinds it has"))?;
        let mut kinds = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let is_event = resource.kind == "Event";
                let stays = STAYS.contains(&(resource.group.as_str(), resource.kind.as_str()));
                let can = |verb: &str| capabilities.supports_operation(verb);
                if can(verbs::LIST) && can(verbs::DELETE) && !is_event && !stays {
                    kinds.push(resource);
                }
            }
        }
        let mut baseline = Self { kinds, keys: BTreeSet::new() };
        baseline.keys = baseline.objects(client).await?.into_iter().map(|(_, key, _)| key).collect();
        Ok(baseline)
    }

    /// Every object that somebody else than the API server made.
    async fn objects(&self, client: &Client) -> Result<Vec<(ApiResource, Key, bool)>, LookError> {
        let lists = futures::stream::iter(self.kinds.iter().cloned().map(|resource| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            async move {
                let doing = format!("listing every {}", resource.kind);
                let list =
                    api.list_metadata(&ListParams::default()).await.map_err(LookError::while_(doing))?;
                let objects = list.items.into_iter().filter_map(|object| {
                    let managers = object.metadata.managed_fields.unwrap_or_default();
                    let own = |manager: &Option<String>| manager.as_deref() == Some(API_SERVER);
                    if managers.iter().all(|field| own(&field.manager)) {
                        return None;
                    }
                    if (resource.kind.as_str(), object.metadata.name.as_deref()) == AUTHORITY {
                        return None;
                    }
                    let key = Key {
                        group: resource.group.clone(),
                        kind: resource.kind.clone(),
                        namespace: object.metadata.namespace,
                        name: object.metadata.name?,
                    };
                    let finalizers = !object.metadata.finalizers.unwrap_or_default().is_empty();
                    Some((resource.clone(), key, finalizers))
                });
                Ok::<_, LookError>(objects.collect::<Vec<_>>())
            }
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Deletes what is not in the baseline, until nothing else is there.
    pub(super) async fn restore(&self, client: &Client) -> Result<(), LookError> {
        // Something may have been on its way while the first round went on; a third finds nothing.
        for _ in 0..ROUNDS {
            let extra: Vec<_> = self
                .objects(client)
                .await?
                .into_iter()
                .filter(|(_, key, _)| !self.keys.contains(key))
                .collect();
            if extra.is_empty() {
                return Ok(());
            }
            let deletions = extra.into_iter().map(|(resource, key, finalizers)| {
                let resource = Arc::new(resource);
                async move { delete(client, &resource, &key, finalizers).await }
            });
            futures::stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        }
        let left = self.objects(client).await?;
        let left: Vec<String> = left
            .iter()
            .filter(|(_, key, _)| !self.keys.contains(key))
            .map(|(_, key, _)| format!("{} {}", key.kind, key.name))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(LookError {
            doing: "clearing the control plane for another domain".to_owned(),
            why: format!("{} will not go", left.join(", ")),
        })
    }
}

/// Rounds of deletion.
const ROUNDS: usize = 4;

async fn delete(
    client: &Client,
    resource: &ApiResource,
    key: &Key,
    finalizers: bool,
) -> Result<(), LookError> {
    let doing = || format!("deleting {} {}", key.kind, key.name);
    let api: Api<DynamicObject> = match &key.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    // Nobody is left to do what a finalizer waits for.
    if finalizers {
        let none = json!({"metadata": {"finalizers": null}});
        gone(api.patch_metadata(&key.name, &PatchParams::default(), &Patch::Merge(&none)).await)
            .map_err(LookError::while_(doing()))?;
    }
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    gone(api.delete(&key.name, &params).await).map_err(LookError::while_(doing()))
}

/// What is gone already is deleted.
fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Ok(()),
    }
}
