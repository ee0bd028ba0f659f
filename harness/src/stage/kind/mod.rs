//! kind: clusters with the domain that a case asks for, and Calico in them as its users get it.

mod api;
mod command;
mod config;
mod corefile;
mod engine;
mod environment;
mod images;
mod manifests;
mod preflight;
mod programs;
mod ready;
mod reap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use catwalk_fixtures::pki::Authority;
use catwalk_fixtures::standin::operator;
use catwalk_fixtures::{DnsProfile, OPERATOR_SIGNER, Release};
pub use config::{ClusterConfig, Cni, Configs};
use engine::{Engine, EngineInfo};
use environment::KindEnvironment;
use futures::FutureExt;
use images::{Archive, Images};
use kube::Client;
use manifests::Manifests;
pub use reap::{Reaped, clean};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{NoEnvironment, Provisioned, Stage};
use crate::environment::{About, Environment, LookError};
use crate::owner::{Ledger, Owned};
use crate::probe::dns;
use crate::progress::Teller;
use crate::sight::DnsAnswer;
use crate::timing::Stopwatch;
use crate::wait::{Probe, wait_for};

/// What the stage is told.
pub struct KindOptions {
    /// Cluster configurations.
    pub configs: Configs,
    /// The releases that can be asked for.
    pub releases: Vec<Release>,
    /// A folder with manifests; without it they are downloaded.
    pub manifests: Option<PathBuf>,
    /// Whether the project's stand-ins run in place of Calico's programs.
    pub standin: bool,
    /// What connects the pods.
    pub cni: Cni,
    /// A node image in place of kind's own default.
    pub node_image: Option<String>,
    /// The run's ledger.
    pub ledger: Ledger,
    /// This project's folder, from which its own programs are built.
    pub workspace: PathBuf,
    /// The longest that one environment may take to stand.
    pub timeout: Duration,
}

/// The stage.
pub struct Kind {
    options: KindOptions,
    count: AtomicUsize,
    shared: OnceCell<Shared>,
    /// Clusters that are being made, by environment.
    half_made: Mutex<BTreeMap<String, HalfMade>>,
    /// What came to light about what the results do not cover.
    not_covered: Mutex<BTreeSet<String>>,
}

/// A cluster that is being made.
#[derive(Clone)]
struct HalfMade {
    cluster: String,
    client: Option<Client>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that goes with this value.
struct RemovedFile<'a>(&'a Path);

impl Drop for RemovedFile<'_> {
    fn drop(&mut self) {
        // What is left of it `reap` removes first.
        let _ = std::fs::remove_file(self.0);
    }
}

/// What the environments of a run share.
struct Shared {
    engine: Engine,
    info: EngineInfo,
    kind_version: String,
    images: Images,
    /// By Calico version; none with stand-ins.
    manifests: BTreeMap<String, manifests::Files>,
}

fn no(error: LookError) -> NoEnvironment {
    NoEnvironment::because(error.to_string())
}

impl Kind {
    /// The stage with its options.
    pub fn new(options: KindOptions) -> Self {
        Self {
            options,
            count: AtomicUsize::new(0),
            shared: OnceCell::new(),
            half_made: Mutex::default(),
            not_covered: Mutex::default(),
        }
    }

    fn release(&self, calico: &str) -> Result<&Release, NoEnvironment> {
        self.options.releases.iter().find(|release| release.calico == calico).ok_or_else(|| {
            NoEnvironment::because(format!("Calico {calico} is in no table: fixtures/data/releases.json"))
        })
    }

    fn shared(&self) -> Result<&Shared, NoEnvironment> {
        self.shared.get().ok_or_else(|| NoEnvironment::because("the stage was not prepared"))
    }

    /// Creates the cluster and gives a client for it; its kubeconfig is a file no longer than that takes.
    async fn create(&self, cluster: &str, about: &About, teller: &Teller) -> Result<Client, NoEnvironment> {
        let options = &self.options;
        let mut config =
            options.configs.cluster(&about.domain, about.dns, options.cni, options.node_image.as_deref());
        if self.shared()?.info.local {
            config::mount(&mut config, &images::folder(&options.ledger), images::IN_NODE);
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
    async fn load(&self, cluster: &str, archive: &Archive) -> Result<(), NoEnvironment> {
        let shared = self.shared()?;
        if shared.info.local {
            return images::load_from_mount(&shared.engine, cluster, &archive.path).await;
        }
        let path = archive.path.to_string_lossy();
        let words = ["load", "image-archive", &path, "--name", cluster];
        command::kind(&self.options.ledger, &words, None, &|_| {}).await.map(|_| ())
    }

    /// kind drops a patch that it does not understand, without a word: then this would be a test of cluster.local.
    async fn check_domain(&self, cluster: &str, about: &About) -> Result<(), NoEnvironment> {
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
    async fn configure_dns(
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
    async fn dns_in_force(
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

    /// Looks for what would make the results say less than they seem to.
    async fn note_what_is_not_covered(
        &self,
        env: &KindEnvironment,
        deadline: Instant,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) {
        let built_here = env.provenance.values().any(|digest| digest.ends_with(engine::BUILT_HERE));
        if built_here && !self.options.standin {
            let calico = &env.about.calico;
            lock(&self.not_covered).insert(format!(
                "Calico {calico} as published: some of its images were built locally, not pulled (see provenance)"
            ));
        }
        if self.options.cni == Cni::Calico {
            let until = deadline.min(Instant::now() + Duration::from_secs(120));
            let policy = ready::whisker_has_its_policy(&env.client, until, teller);
            if !stopwatch.part("policy", true, policy).await {
                let id = env.about.id();
                lock(&self.not_covered)
                    .insert(format!("network policy in {id}: Whisker's was not there in time"));
            }
        }
    }

    /// Everything up to the custom resources, while the images are still on their way.
    async fn apply_before_images(
        &self,
        client: &Client,
        manifests: Option<Manifests>,
        deadline: Instant,
        teller: &Teller,
    ) -> Result<Applied, NoEnvironment> {
        let tell = teller.as_tell();
        let Some(manifests) = manifests else {
            return Ok(Applied { operator: Vec::new(), custom_resources: Vec::new() });
        };
        teller.tell("applying Calico's CRDs", "");
        api::apply(client, &manifests.crds, deadline, &tell).await.map_err(no)?;
        let (late, early) =
            manifests.operator.into_iter().partition(|object| object["kind"] == json!("Deployment"));
        let early: Vec<Value> = early;
        api::apply(client, &early, deadline, &tell).await.map_err(no)?;
        Ok(Applied { operator: late, custom_resources: manifests.custom_resources })
    }
}

/// What is still to be applied once the images are there.
struct Applied {
    operator: Vec<Value>,
    custom_resources: Vec<Value>,
}

#[async_trait]
impl Stage for Kind {
    fn name(&self) -> &'static str {
        "kind"
    }

    fn modelled(&self) -> bool {
        self.options.standin
    }

    fn carries(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = preflight::available_memory().map_or(usize::MAX, |bytes| {
            usize::try_from(bytes / preflight::MEMORY_PER_CLUSTER).unwrap_or(usize::MAX)
        });
        // Most of a cluster's time is waiting for probes and timers.
        (2 * cores).min(memory).max(1)
    }

    fn not_covered(&self) -> Vec<String> {
        let mut axes = vec![
            "other Kubernetes versions, the eBPF and nftables data planes, BGP, dual stack, several nodes"
                .to_owned(),
        ];
        axes.extend(lock(&self.not_covered).iter().cloned());
        if self.options.cni != Cni::Calico {
            axes.push(
                "network policy: calico-node did not connect the pods, so none was enforced".to_owned(),
            );
        }
        axes
    }

    async fn prepare(
        &self,
        wanted: &[About],
        jobs: usize,
        teller: &Teller,
    ) -> Result<(), Vec<NoEnvironment>> {
        let one = |problem| vec![problem];
        teller.tell("looking at this machine", "");
        let engine = Engine::connect().await.map_err(one)?;
        let info = engine.info().await.map_err(one)?;
        let ledger = &self.options.ledger;
        let machine = preflight::Machine::read(ledger, &info).await.map_err(one)?;
        let complaints = machine.complaints(jobs.min(wanted.len()));
        if !complaints.is_empty() {
            return Err(complaints);
        }
        // The nodes mount it, so it is there before them.
        std::fs::create_dir_all(images::folder(ledger))
            .map_err(|e| one(NoEnvironment::because(format!("making a folder for images: {e}"))))?;
        let mut manifests = BTreeMap::new();
        for about in wanted {
            let release = self.release(&about.calico).map_err(one)?;
            if !self.options.standin && !manifests.contains_key(&about.calico) {
                teller.tell("getting Calico's manifests", &about.calico);
                let folder = self.options.manifests.as_deref();
                let files = manifests::get(release, folder, &manifests::cache_folder()).await.map_err(one)?;
                manifests.insert(about.calico.clone(), files);
            }
        }
        let images = Images::new(
            engine.clone(),
            info.clone(),
            ledger.clone(),
            self.options.workspace.clone(),
            self.options.standin,
        );
        let shared = Shared { engine, info, kind_version: machine.kind, images, manifests };
        self.shared.set(shared).map_err(|_| vec![NoEnvironment::because("the stage was prepared twice")])
    }

    async fn provision(
        &self,
        about: &About,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Arc<dyn Provisioned>, NoEnvironment> {
        let shared = self.shared()?;
        let release = self.release(&about.calico)?;
        let deadline = Instant::now() + self.options.timeout;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let cluster = format!("catwalk-{}-{number}", self.options.ledger.run());

        let half = HalfMade { cluster: cluster.clone(), client: None };
        lock(&self.half_made).insert(about.id(), half.clone());
        // The archive is on its way while the cluster is created, and is loaded while the CRDs are applied.
        let created = async { stopwatch.part("create", true, self.create(&cluster, about, teller)).await };
        let created = created.boxed().shared();
        let load = async {
            let archive =
                async { stopwatch.part("images", true, shared.images.archive(release, teller)).await };
            let (archive, _) = tokio::try_join!(archive, created.clone())?;
            teller.tell("loading the images", "");
            stopwatch.part("load", true, self.load(&cluster, &archive)).await?;
            Ok::<_, NoEnvironment>(archive)
        };
        let configure = async {
            let parsed = async {
                match shared.manifests.get(&about.calico) {
                    Some(files) => files.clone().parse().await.map(Some),
                    None => Ok(None),
                }
            };
            let (manifests, client) = tokio::try_join!(parsed, created.clone())?;
            lock(&self.half_made).insert(about.id(), HalfMade { client: Some(client.clone()), ..half });
            stopwatch.part("check domain", false, self.check_domain(&cluster, about)).await?;
            let dns = self.configure_dns(&client, about, deadline, teller);
            stopwatch.part("configure dns", false, dns).await?;
            let applying = self.apply_before_images(&client, manifests, deadline, teller);
            let applied = stopwatch.part("apply CRDs", false, applying).await?;
            Ok((client, applied))
        };
        let (archive, (client, applied)) = tokio::try_join!(load, configure)?;
        let sees_traffic = !self.options.standin && self.options.cni == Cni::Calico;
        let traffic = sees_traffic.then_some(archive.traffic);

        let tell = teller.as_tell();
        let applying = async {
            if self.options.standin {
                let authority = Authority::generate(OPERATOR_SIGNER)
                    .map_err(|e| NoEnvironment::because(format!("making an authority: {e}")))?;
                let image = programs::Program::Standin.image(&self.options.ledger);
                let objects = operator::render(release, &about.domain, &authority, &image)
                    .map_err(|e| NoEnvironment::because(format!("rendering the stand-in's objects: {e}")))?;
                api::apply(&client, &objects, deadline, &tell).await.map_err(no)
            } else {
                api::apply(&client, &applied.operator, deadline, &tell).await.map_err(no)?;
                let patch = self.options.configs.installation(&about.domain, about.dns);
                let mut resources = applied.custom_resources.clone();
                for resource in resources.iter_mut().filter(|r| r["kind"] == json!("Installation")) {
                    config::merge(resource, &patch);
                }
                api::apply(&client, &resources, deadline, &tell).await.map_err(no)
            }
        };
        stopwatch.part("apply", false, applying).await?;
        if let Some(Ok(image)) = &traffic {
            let started = environment::start_traffic(&client, image);
            stopwatch.part("start traffic", false, started).await.map_err(no)?;
        }
        let ready = ready::goldmane_has_an_endpoint(&client, self.options.cni, deadline, &tell);
        stopwatch.part("ready", true, ready).await?;

        let mut provenance: BTreeMap<String, String> = BTreeMap::from([
            ("kind".to_owned(), shared.kind_version.clone()),
            ("engine".to_owned(), shared.info.version.clone()),
            ("operator".to_owned(), release.operator.clone()),
        ]);
        if let Ok(version) = client.apiserver_version().await {
            provenance.insert("kubernetes".to_owned(), version.git_version);
        }
        if let Some(image) = &self.options.node_image {
            provenance.insert("node image".to_owned(), image.clone());
        }
        provenance
            .extend(archive.digests.iter().map(|(image, digest)| (format!("image {image}"), digest.clone())));
        let env = KindEnvironment {
            about: about.clone(),
            cluster: cluster.clone(),
            ledger: self.options.ledger.clone(),
            client,
            provenance,
            traffic,
            authority: OnceCell::new(),
        };
        stopwatch.part("dns in force", true, self.dns_in_force(&env, deadline, teller)).await?;
        self.note_what_is_not_covered(&env, deadline, teller, stopwatch).await;
        lock(&self.half_made).remove(&about.id());
        Ok(Arc::new(env))
    }

    async fn abandon(&self, about: &About, evidence: Option<&Path>, keep: bool) -> Vec<String> {
        let Some(half) = lock(&self.half_made).remove(&about.id()) else { return Vec::new() };
        if let (Some(client), Some(folder)) = (&half.client, evidence) {
            // What cannot be gathered of a cluster that did not come up is no news.
            let _ = tokio::time::timeout(Duration::from_secs(60), environment::collect(client, folder)).await;
        }
        if keep && half.client.is_some() {
            return vec![environment::keep(&self.options.ledger, &half.cluster)];
        }
        // What does not go now is left to `reap`, which says so.
        let _ = command::delete_half_made(&self.options.ledger, &half.cluster).await;
        Vec::new()
    }

    async fn reap(&self, teller: &Teller) -> Vec<String> {
        reap::reap(&self.options.ledger, teller).await
    }
}
