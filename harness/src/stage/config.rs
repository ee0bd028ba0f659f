//! Cluster configurations: `kind-configs/*.yaml`, one per cluster domain and DNS profile, merged over `base.yaml`.

use std::path::Path;

use catwalk_fixtures::{ClusterDomain, DnsProfile};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stage::NoEnvironment;

/// The configurations of a folder.
#[derive(Clone, Debug)]
pub struct Configs {
    base: Base,
    named: Vec<ClusterConfig>,
}

/// What all clusters share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base {
    /// Parts of kind's `Cluster` (kind.x-k8s.io/v1alpha4).
    cluster: Value,
    /// A JSON merge patch (RFC 7386) for Calico's Installation.
    installation: Value,
}

/// One cluster domain under one DNS profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterConfig {
    /// The domain.
    pub cluster_domain: String,
    /// What the cluster's DNS serves.
    pub dns: DnsProfile,
    /// The stages that run it when no domain is named.
    #[serde(default)]
    pub default_on: Vec<String>,
    /// A JSON merge patch over the base's `cluster`.
    #[serde(default)]
    cluster: Value,
    /// A JSON merge patch over the base's `installation`.
    #[serde(default)]
    installation: Value,
}

/// What the pods of a new cluster are connected by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// Calico's calico-node, as Calico's users have it.
    Calico,
    /// kind's own.
    Kind,
    /// One that the node image brings.
    None,
}

impl Configs {
    /// Reads a folder.
    pub fn read(folder: &Path) -> Result<Self, NoEnvironment> {
        let bad = |file: &Path, why: &dyn std::fmt::Display| {
            NoEnvironment::because(format!("reading {}: {why}", file.display()))
        };
        let read = |file: &Path| std::fs::read_to_string(file).map_err(|e| bad(file, &e));
        let base_file = folder.join("base.yaml");
        let base = serde_saphyr::from_str(&read(&base_file)?).map_err(|e| bad(&base_file, &e))?;
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .map_err(|e| bad(folder, &e))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "yaml") && *path != base_file)
            .collect();
        files.sort();
        let mut named: Vec<ClusterConfig> = Vec::new();
        for file in files {
            let config: ClusterConfig = serde_saphyr::from_str(&read(&file)?).map_err(|e| bad(&file, &e))?;
            ClusterDomain::configured(&config.cluster_domain).map_err(|e| bad(&file, &e))?;
            if named.iter().any(|c| c.cluster_domain == config.cluster_domain && c.dns == config.dns) {
                return Err(bad(&file, &"another file configures this domain and profile already"));
            }
            named.push(config);
        }
        Ok(Self { base, named })
    }

    /// The named configurations.
    pub fn named(&self) -> &[ClusterConfig] {
        &self.named
    }

    /// kind's configuration for a cluster.
    pub fn cluster(
        &self,
        domain: &ClusterDomain,
        dns: DnsProfile,
        cni: Cni,
        node_image: Option<&str>,
    ) -> Value {
        let mut cluster = self.merged(domain, dns, |base| &base.cluster, |config| &config.cluster);
        cluster["kind"] = json!("Cluster");
        cluster["apiVersion"] = json!("kind.x-k8s.io/v1alpha4");
        if !cluster["nodes"].is_array() {
            cluster["nodes"] = json!([{"role": "control-plane"}]);
        }
        if let Some(image) = node_image {
            for node in cluster["nodes"].as_array_mut().into_iter().flatten() {
                node["image"] = json!(image);
            }
        }
        cluster["networking"]["disableDefaultCNI"] = json!(cni != Cni::Kind);
        // Without apiVersion: kind drops a patch whose version is not the one that it generates, without a word.
        let patch = format!("kind: ClusterConfiguration\nnetworking:\n  dnsDomain: {domain}\n");
        let mut patches = vec![json!(patch)];
        patches.extend(cluster["kubeadmConfigPatches"].as_array().cloned().unwrap_or_default());
        cluster["kubeadmConfigPatches"] = json!(patches);
        cluster
    }

    /// The merge patch for Calico's Installation; its IP pool lies in the cluster's pod subnet, or the operator
    /// refuses it.
    pub fn installation(&self, domain: &ClusterDomain, dns: DnsProfile) -> Value {
        self.merged(domain, dns, |base| &base.installation, |config| &config.installation)
    }

    fn merged(
        &self,
        domain: &ClusterDomain,
        dns: DnsProfile,
        of_base: fn(&Base) -> &Value,
        of_config: fn(&ClusterConfig) -> &Value,
    ) -> Value {
        let mut value = of_base(&self.base).clone();
        let named = self.named.iter().find(|c| c.cluster_domain == domain.as_str() && c.dns == dns);
        if let Some(config) = named {
            merge(&mut value, of_config(config));
        }
        value
    }
}

/// Shows a folder of this machine to every node, read-only.
pub(super) fn mount(cluster: &mut Value, from: &Path, to: &str) {
    for node in cluster["nodes"].as_array_mut().into_iter().flatten() {
        let mut mounts = node["extraMounts"].as_array().cloned().unwrap_or_default();
        mounts.push(json!({"hostPath": from, "containerPath": to, "readOnly": true}));
        node["extraMounts"] = json!(mounts);
    }
}

/// JSON merge patch (RFC 7386, 2), but that a whole patch of `null` changes nothing.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Null => {}
        Value::Object(patch) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in patch {
                if value.is_null() {
                    target.as_object_mut().map(|object| object.remove(key));
                } else {
                    merge(&mut target[key.as_str()], value);
                }
            }
        }
        other => *target = other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs() -> Configs {
        Configs::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs")).unwrap()
    }

    #[test]
    fn every_file_is_named_after_what_it_configures() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs");
        for config in configs().named() {
            let file = folder.join(format!("{}-{}.yaml", config.cluster_domain, config.dns));
            assert!(file.exists(), "{}", file.display());
        }
    }

    #[test]
    fn the_domain_is_patched_without_a_version_and_the_host_s_search_domains_stay_out() {
        let domain = ClusterDomain::observed("never.named");
        let cluster = configs().cluster(&domain, DnsProfile::Strict, Cni::Calico, Some("node:1"));
        let patch = cluster["kubeadmConfigPatches"][0].as_str().unwrap();
        assert!(patch.contains("dnsDomain: never.named") && !patch.contains("apiVersion"), "{patch}");
        assert_eq!(cluster["networking"]["dnsSearch"], json!([]));
        assert_eq!(cluster["networking"]["disableDefaultCNI"], json!(true));
        assert_eq!(cluster["nodes"][0]["image"], json!("node:1"));
        let pool =
            &configs().installation(&domain, DnsProfile::Strict)["spec"]["calicoNetwork"]["ipPools"][0];
        assert_eq!(pool["cidr"], cluster["networking"]["podSubnet"]);
    }

    #[test]
    fn merging_is_that_of_rfc_7386() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut target, &json!({"a": {"b": null, "e": 3}, "d": [2]}));
        assert_eq!(target, json!({"a": {"c": 2, "e": 3}, "d": [2]}));
    }
}
