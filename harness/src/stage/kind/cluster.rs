//! One cluster: its creation, its domain, its DNS, its images.

use std::path::Path;
use std::time::{Duration, Instant};

use catwalk_fixtures::DnsProfile;
use kube::Client;
use serde_json::{Value, json};

use super::environment::KindEnvironment;
use super::images::Archive;
use super::{Kind, corefile, images, no};
use crate::environment::{About, Environment};
use crate::owner::Owned;
use crate::probe::dns;
use crate::progress::Teller;
use crate::sight::DnsAnswer;
use crate::stage::{NoEnvironment, api, command, config};
use crate::wait::{Probe, wait_for};

/// A file that goes with this value.
struct RemovedFile<'a>(&'a Path);

impl Drop for RemovedFile<'_> {
    fn drop(&mut self) {
        // What is left of it `reap` removes first.
        let _ = std::fs::remove_file(self.0);
    }
}

impl Kind {
    /// Creates the cluster and gives a client for it; its kubeconfig is a file no longer than that takes.
    pub(super) async fn create(
        &self,
        cluster: &str,
        about: &About,
        teller: &Teller,
    ) -> Result<Client, NoEnvironment> {
        let options = &self.options;
        let image = options.node_image.as_deref();
        let mut config =
            options.configs.cluster(&about.domain, about.dns, options.cni, image, &about.with)?;
        if self.shared()?.info.local {
            config::mount(&mut config, &options.ledger.files(), images::IN_NODE);
        }
        let config = serde_json::to_vec(&config)
            .map_err(|e| NoEnvironment::because(format!("writing kind's configuration: {e}")))?;
        let ledger = &options.ledger;
        let file = ledger.folder().join(format!("{cluster}.kubeconfig"));
        let path = file.to_string_lossy();
        let bad = |e: std::io::Error| NoEnvironment::because(format!("writing the ledger: {e}"));
        // It has a client's key in it: it is gone however this ends.
        let _removed = RemovedFile(&file);
        ledger.enter(Owned::Cluster, cluster).map_err(bad)?;
        let words = ["create", "cluster", "--name", cluster, "--config", "-", "--kubeconfig", &path];
        let tell = |line: &str| teller.tell("creating the cluster", line);
        let created = command::kind(ledger, &words, Some(&config), &tell).await;
        created?;
        let kubeconfig = std::fs::read_to_string(&file)
            .map_err(|e| NoEnvironment::because(format!("reading the cluster's kubeconfig: {e}")))?;
        api::client(&kubeconfig).await.map_err(no)
    }

    /// Loads an archive into a cluster's nodes.
    pub(super) async fn load(&self, cluster: &str, archive: &Archive) -> Result<(), NoEnvironment> {
        let shared = self.shared()?;
        if shared.info.local {
            images::load_from_mount(&shared.engine, cluster, &archive.path).await?;
        } else {
            let path = archive.path.to_string_lossy();
            let words = ["load", "image-archive", &path, "--name", cluster];
            command::kind(&self.options.ledger, &words, None, &|_| {}).await?;
        }
        images::name_substitutes(&shared.engine, cluster, archive).await
    }

    /// kind drops a patch that it does not understand, without a word: then this would be a test of cluster.local.
    pub(super) async fn check_domain(&self, cluster: &str, about: &About) -> Result<(), NoEnvironment> {
        let engine = &self.shared()?.engine;
        let nodes = engine.nodes(cluster).await?;
        if nodes.is_empty() {
            return Err(NoEnvironment::with_fix(
                "kind's nodes are not on the engine that answers",
                "kind and this program must mean the same one: compare `docker context show` with DOCKER_HOST",
            ));
        }
        for node in nodes {
            let text = engine.exec(&node, &["cat", "/var/lib/kubelet/config.yaml"]).await?;
            let config: Value = serde_saphyr::from_str(&text).map_err(|e| {
                NoEnvironment::because(format!("reading the kubelet's configuration on {node}: {e}"))
            })?;
            let domain = config.get("clusterDomain").and_then(Value::as_str).unwrap_or_default();
            if domain != about.domain.as_str() {
                return Err(NoEnvironment::with_fix(
                    format!(
                        "the kubelet on {node} has the cluster domain {domain:?}, not {:?}",
                        about.domain.as_str()
                    ),
                    "kind dropped the patch of its ClusterConfiguration; compare kind's version with the node image's",
                ));
            }
        }
        Ok(())
    }

    /// Puts the DNS profile into CoreDNS before its pods start, or starts them anew.
    pub(super) async fn configure_dns(
        &self,
        client: &Client,
        about: &About,
        deadline: Instant,
        teller: &Teller,
    ) -> Result<(), NoEnvironment> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": corefile::corefile(&about.domain, about.dns)},
        });
        api::apply(client, &[map], deadline, &teller.as_tell()).await.map_err(no)?;
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(client.clone(), "kube-system");
        let labelled = kube::api::ListParams::default().labels("k8s-app=kube-dns");
        pods.delete_collection(&kube::api::DeleteParams::default().grace_period(0), &labelled)
            .await
            .map(|_| ())
            .map_err(|e| NoEnvironment::because(format!("restarting CoreDNS: {e}")))
    }

    /// Asks CoreDNS until it answers by the profile.
    pub(super) async fn dns_in_force(
        &self,
        env: &KindEnvironment,
        deadline: Instant,
        teller: &Teller,
    ) -> Result<(), NoEnvironment> {
        let about = &env.about;
        let own = format!("kubernetes.default.svc.{}.", about.domain);
        let foreign = if about.domain.is_default() {
            "kubernetes.default.svc.catwalk.invalid.".to_owned()
        } else {
            "kubernetes.default.svc.cluster.local.".to_owned()
        };
        let tell = teller.as_tell();
        wait_for("the DNS profile", deadline, Duration::from_millis(500), &tell, || async {
            let mut stream = match env.connect_dns().await {
                Ok(stream) => stream,
                Err(why) => return Probe::NotYet(why),
            };
            let own_answer = dns::ask(&mut stream, &own).await;
            let foreign_answer = dns::ask(&mut stream, &foreign).await;
            let found = |answer: &DnsAnswer| matches!(answer, DnsAnswer::Addresses(a) if !a.is_empty());
            let as_profile = match about.dns {
                DnsProfile::Dual if !about.domain.is_default() => found(&foreign_answer),
                DnsProfile::Strict | DnsProfile::Dual => foreign_answer == DnsAnswer::NoSuchName,
                DnsProfile::UpstreamDown => matches!(foreign_answer, DnsAnswer::Failed(_)),
            };
            if found(&own_answer) && as_profile {
                Probe::Done(())
            } else {
                Probe::NotYet(format!("{own} {own_answer:?}, {foreign} {foreign_answer:?}"))
            }
        })
        .await
        .map_err(|e| NoEnvironment::because(e.to_string()))
    }
}
