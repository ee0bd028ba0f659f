//! kind: clusters with the domain that a case asks for, and Calico in them as its users get it.

mod cluster;
mod corefile;
mod environment;
mod forward;
mod images;
mod placement;
mod preflight;
mod ran;
mod ready;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use catwalk_fixtures::pki::Authority;
use catwalk_fixtures::standin::operator;
use catwalk_fixtures::{OPERATOR_SIGNER, Release};
use environment::KindEnvironment;
use futures::FutureExt;
use images::Images;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::calico::Calico;
use super::config::{self, Cni, Configs};
use super::engine::{Engine, EngineInfo};
use super::manifests::{self, Manifests};
use super::{NoEnvironment, Provisioned, Stage, Substitutes, api, extras, programs, reap};
use crate::environment::{About, LookError};
use crate::owner::Ledger;
use crate::progress::Teller;
use crate::report::not_as_pulled;
use crate::timing::Stopwatch;

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
    /// Images in place of others.
    pub substitutes: Substitutes,
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
    /// Whether Whisker and Goldmane were on different nodes somewhere.
    several_nodes: AtomicBool,
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
            several_nodes: AtomicBool::new(false),
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

    /// The TigeraStatus that tell that all is rendered: none where no operator runs, and not that of calico-node where
    /// it is not what connects the pods.
    fn statuses(&self, extras: &[Value]) -> Vec<String> {
        let mut statuses = if self.options.standin { Vec::new() } else { extras::statuses(extras) };
        statuses.retain(|name| name != extras::CALICO || self.options.cni == Cni::Calico);
        statuses
    }

    /// Looks for what would make the results say less than they seem to.
    async fn note_what_is_not_covered(
        &self,
        env: &KindEnvironment,
        deadline: Instant,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) {
        let built_here = env.provenance.values().any(|digest| not_as_pulled(digest));
        if built_here && !self.options.standin {
            let calico = &env.about.calico;
            lock(&self.not_covered).insert(format!(
                "Calico {calico} as published: some of its images are not known to be as pulled (see provenance)"
            ));
        }
        if self.options.cni == Cni::Calico {
            let until = deadline.min(Instant::now() + Duration::from_secs(120));
            let policy = ready::whisker_has_its_policy(&env.calico.client, until, teller);
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
        let mut axes: Vec<String> = super::AXES.map(str::to_owned).to_vec();
        if self.several_nodes.load(Ordering::Relaxed) {
            axes.retain(|axis| axis != super::SEVERAL_NODES);
        }
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
        std::fs::create_dir_all(ledger.files())
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
        let images = Images::new(engine.clone(), info.clone(), &self.options);
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
        let traffic = sees_traffic.then(|| archive.traffic.clone());

        let extras = self.options.configs.extras(&about.with)?;
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
                for extra in extras::with_key_pairs(extras.clone())? {
                    extras::add(&mut resources, extra);
                }
                api::apply(&client, &resources, deadline, &tell).await.map_err(no)
            }
        };
        stopwatch.part("apply", false, applying).await?;
        if let Some(Ok(image)) = &traffic {
            let started = traffic::start(&client, image);
            stopwatch.part("start traffic", false, started).await.map_err(no)?;
        }
        let ready = ready::goldmane_has_an_endpoint(&client, self.options.cni, deadline, &tell);
        stopwatch.part("ready", true, ready).await?;

        let nodes = placement::seen(&client, &cluster, deadline, &tell).await?;
        if nodes.is_apart() {
            self.several_nodes.store(true, Ordering::Relaxed);
        }
        let mut provenance: BTreeMap<String, String> = BTreeMap::from([
            ("nodes".to_owned(), nodes.to_string()),
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
        let running = ran::running(&client).await?;
        let substituted = ran::substituted(&running, &archive, &self.options.substitutes)?;
        lock(&self.not_covered).extend(substituted);
        let ran = ran::ran(&running, &archive);
        provenance.extend(ran.into_iter().map(|(image, digest)| (format!("image {image}"), digest)));
        let env = KindEnvironment {
            about: about.clone(),
            cluster: cluster.clone(),
            ledger: self.options.ledger.clone(),
            calico: Calico::new(client),
            statuses: self.statuses(&extras),
            provenance,
            traffic,
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
        let _ = reap::delete_half_made(&self.options.ledger, &half.cluster).await;
        Vec::new()
    }

    async fn reap(&self, cut_off: bool, teller: &Teller) -> Vec<String> {
        reap::reap(&self.options.ledger, cut_off, teller).await
    }
}
