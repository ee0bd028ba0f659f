//! Cluster configurations: `kind-configs/*.yaml`, one per cluster domain and DNS profile, merged over `base.yaml`; and
//! `kind-configs/with/*.yaml`, what is set up beside Calico as released: objects, and parts of kind's `Cluster`.

use std::path::{Path, PathBuf};

use catwalk_fixtures::{ClusterDomain, DnsProfile};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stage::NoEnvironment;

/// The configurations of a folder.
#[derive(Clone, Debug)]
pub struct Configs {
    folder: PathBuf,
    base: Base,
    named: Vec<ClusterConfig>,
}

/// The annotation on a Secret in `kind-configs/with` for which certificates and a key are to be made when it is
/// applied: no key is in a file. Its value says which; `managed-cluster` is guardian's.
pub const KEY_PAIR: &str = "catwalk.dev/key-pair";

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
        Ok(Self { folder: folder.to_owned(), base, named })
    }

    /// The named configurations.
    pub fn named(&self) -> &[ClusterConfig] {
        &self.named
    }

    /// The objects of `with/NAME.yaml` for each name, in order.
    pub fn extras(&self, names: &[String]) -> Result<Vec<Value>, NoEnvironment> {
        Ok(self.documents(names)?.into_iter().filter(|document| !is_cluster(document)).collect())
    }

    /// Which of the names need a cluster of kind's: there is a part of its configuration in them.
    pub fn of_clusters<'n>(&self, names: &'n [String]) -> Result<Vec<&'n str>, NoEnvironment> {
        let mut found = Vec::new();
        for name in names {
            if self.documents(std::slice::from_ref(name))?.iter().any(is_cluster) {
                found.push(name.as_str());
            }
        }
        Ok(found)
    }

    fn documents(&self, names: &[String]) -> Result<Vec<Value>, NoEnvironment> {
        let known = self.known_extras();
        let mut objects = Vec::new();
        for name in names {
            if !known.contains(name) {
                return Err(NoEnvironment::with_fix(
                    format!("nothing is called {name:?} in kind-configs/with"),
                    format!("There are {}", known.join(", ")),
                ));
            }
            let file = self.folder.join("with").join(format!("{name}.yaml"));
            let bad = |why: &dyn std::fmt::Display| {
                NoEnvironment::because(format!("reading {}: {why}", file.display()))
            };
            let text = std::fs::read_to_string(&file).map_err(|e| bad(&e))?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|e| bad(&e))?;
            objects.extend(documents.into_iter().filter(Value::is_object));
        }
        Ok(objects)
    }

    /// The names of what is in `with`, sorted.
    fn known_extras(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("with")).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let yaml = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let mut names: Vec<String> =
            yaml.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    }

    /// kind's configuration for a cluster.
    pub fn cluster(
        &self,
        domain: &ClusterDomain,
        dns: DnsProfile,
        cni: Cni,
        node_image: Option<&str>,
        with: &[String],
    ) -> Result<Value, NoEnvironment> {
        let mut cluster = self.merged(domain, dns, |base| &base.cluster, |config| &config.cluster);
        for patch in self.documents(with)?.iter().filter(|document| is_cluster(document)) {
            merge(&mut cluster, patch);
        }
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
        Ok(cluster)
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

/// Whether it is kind's own.
fn is_cluster(document: &Value) -> bool {
    document["kind"] == "Cluster"
        && document["apiVersion"].as_str().is_some_and(|v| v.starts_with("kind.x-k8s.io/"))
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
        let cluster =
            configs().cluster(&domain, DnsProfile::Strict, Cni::Calico, Some("node:1"), &[]).unwrap();
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
    fn extras_are_objects_and_an_unknown_one_is_answered_with_those_there_are() {
        let extras = |names: &[&str]| {
            configs().extras(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert!(extras(&[]).unwrap().is_empty());
        let kinds: Vec<Value> =
            extras(&["gatewayapi", "managementcluster"]).unwrap().iter().map(|o| o["kind"].clone()).collect();
        assert_eq!(kinds, ["GatewayAPI", "ManagementClusterConnection", "Secret"]);
        for unknown in ["nonsense", "../base", ""] {
            let error = extras(&["gatewayapi", unknown]).unwrap_err().to_string();
            assert!(error.ends_with("There are gatewayapi, managementcluster, worker"), "{error}");
        }
    }

    #[test]
    fn a_worker_is_a_second_node_of_the_same_image_and_objects_that_say_who_is_on_it() {
        let with = ["worker".to_owned()];
        let domain = ClusterDomain::observed("never.named");
        let cluster =
            configs().cluster(&domain, DnsProfile::Strict, Cni::Calico, Some("node:1"), &with).unwrap();
        let nodes: Vec<(&Value, &Value)> =
            cluster["nodes"].as_array().unwrap().iter().map(|node| (&node["role"], &node["image"])).collect();
        assert_eq!(
            nodes,
            [(&json!("control-plane"), &json!("node:1")), (&json!("worker"), &json!("node:1"))]
        );
        assert_eq!(cluster["networking"]["podSubnet"], "192.168.0.0/16", "the base's parts stay");
        let kinds: Vec<Value> = configs().extras(&with).unwrap().iter().map(|o| o["kind"].clone()).collect();
        assert_eq!(kinds, ["Whisker", "Goldmane"]);
        let both = ["gatewayapi".to_owned(), "worker".to_owned()];
        assert_eq!(configs().of_clusters(&both).unwrap(), ["worker"]);
    }

    #[test]
    fn no_extra_brings_a_key_and_each_secret_says_which_to_make() {
        let configs = configs();
        for object in configs.extras(&configs.known_extras()).unwrap() {
            assert!(object["metadata"]["name"].is_string(), "{object}");
            if object["kind"] == "Secret" {
                assert!(object["metadata"]["annotations"][KEY_PAIR].is_string(), "{object}");
                assert_eq!(
                    (&object["data"], &object["stringData"]),
                    (&Value::Null, &Value::Null),
                    "{object}"
                );
            }
        }
    }

    #[test]
    fn merging_is_that_of_rfc_7386() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut target, &json!({"a": {"b": null, "e": 3}, "d": [2]}));
        assert_eq!(target, json!({"a": {"c": 2, "e": 3}, "d": [2]}));
    }
}
