//! nodeless: the real operator, Goldmane and Whisker on a control plane without nodes. What breaks under a cluster
//! domain is decided by these three programs, and none of them needs a node; so a domain costs seconds.

mod asked;
mod environment;
mod images;
mod kubelet;
mod live;
mod plane;
mod planes;
mod pod;
mod pool;
mod relay;
mod reset;
mod spec;
mod statuses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use catwalk_fixtures::Release;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};

use super::calico::Calico;
use super::config::Configs;
use super::engine::{Engine, EngineInfo};
use super::manifests::{self, Manifests};
use super::programs::Program;
use super::{NoEnvironment, Provisioned, Stage, Substitutes, extras, reap};
use crate::environment::{About, LookError};
use crate::owner::{Ledger, Owned};
use crate::progress::Teller;
use crate::report::not_as_pulled;
use crate::timing::Stopwatch;
use environment::NodelessEnvironment;
use images::ImageSource;
use live::{Domain, Live, Watch};
use pool::{Pool, end_plane};

/// The API server's image without its version.
const API_SERVER: &str = "registry.k8s.io/kube-apiserver";
/// The etcd of Kubernetes v1.34 (kubeadm, `constants.DefaultEtcdVersion`); newer API servers work with it too.
const ETCD: &str = "registry.k8s.io/etcd:3.6.5-0";
/// The version of Kubernetes that is run when nobody says otherwise.
pub const KUBERNETES: &str = "v1.34.4";
/// Control planes at once, whatever the machine: each run's network is one of the few that an engine has addresses for.
const MOST: usize = 8;

/// Said of an environment without extras that need it.
const NO_API_SERVER: &str = "what needs the APIServer resource: calico-apiserver does not run, and projectcalico.org/v3 is not served";

/// Said of every environment with an operator.
const RESTS: &str = "where the audit did not run before: what the operator would have rendered after it had rendered \
                     Goldmane and Whisker once";

/// What the stage is told.
pub struct NodelessOptions {
    /// For the Installation's patch.
    pub configs: Configs,
    /// The releases that can be asked for.
    pub releases: Vec<Release>,
    /// A folder with manifests; without it they are downloaded.
    pub manifests: Option<PathBuf>,
    /// Whether the project's stand-ins run in place of Calico's programs.
    pub standin: bool,
    /// The API server's version, `v1.34.4`.
    pub kubernetes: String,
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
pub struct Nodeless {
    options: NodelessOptions,
    shared: OnceCell<Shared>,
    pool: Arc<Pool>,
    /// A core each for a control plane that starts or an operator that renders: more at once would all be slower, and an
    /// operator that waits for its API server tries in vain all the while.
    cores: Semaphore,
    /// Environments that could not be had, until they are taken down.
    half_made: Mutex<BTreeMap<String, Live>>,
    /// The control planes on which environments are being made, by environment.
    serving: Mutex<BTreeMap<String, String>>,
    /// What of the pods' specifications is not carried out, by pod.
    not_carried_out: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
    not_covered: Mutex<BTreeSet<String>>,
}

/// What the environments of a run share.
struct Shared {
    engine: Engine,
    info: EngineInfo,
    network: String,
    images: Arc<ImageSource>,
    plane_images: plane::Images,
    /// By Calico version; none with stand-ins.
    manifests: BTreeMap<String, OnceCell<Manifests>>,
    files: BTreeMap<String, manifests::Files>,
}

fn no(error: LookError) -> NoEnvironment {
    NoEnvironment::because(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nodeless {
    /// The stage with its options.
    pub fn new(options: NodelessOptions) -> Self {
        let pool =
            Pool { ledger: options.ledger.clone(), idle: Default::default(), started: AtomicUsize::new(0) };
        Self {
            options,
            shared: OnceCell::new(),
            pool: Arc::new(pool),
            cores: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            half_made: Mutex::default(),
            serving: Mutex::default(),
            not_carried_out: Arc::default(),
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

    async fn manifests(&self, calico: &str) -> Result<Option<&Manifests>, NoEnvironment> {
        let shared = self.shared()?;
        let (Some(cell), Some(files)) = (shared.manifests.get(calico), shared.files.get(calico)) else {
            return Ok(None);
        };
        cell.get_or_try_init(|| files.clone().parse()).await.map(Some)
    }

    /// Everything from a cleared control plane to a Goldmane that listens.
    async fn stand_up(
        &self,
        live: &mut Live,
        watch: Watch<'_>,
        stopwatch: &Stopwatch,
    ) -> Result<(), NoEnvironment> {
        let core = stopwatch.part("wait for a core", true, self.cores.acquire()).await;
        watch.teller.tell("starting the operator", "");
        let manifests = self.manifests(&live.domain.about.calico).await?;
        let [first, then] = self.objects(&live.domain.about, &live.plane, manifests)?;
        stopwatch.part("apply", false, live.apply(&first, watch)).await?;
        stopwatch.part("start operator", false, live.start_operator()).await?;
        if !then.is_empty() {
            stopwatch.part("calico-system", true, live.has_namespace(watch)).await?;
            stopwatch.part("apply more", false, live.apply(&then, watch)).await?;
        }
        let rendered = stopwatch.part("rendered", true, live.rendered(watch)).await?;
        if extras::need_api_server(&self.options.configs.extras(&live.domain.about.with)?) {
            watch.teller.tell("starting calico-apiserver", "");
            stopwatch.part("start calico-apiserver", true, live.start_api_server(watch)).await?;
        } else {
            lock(&self.not_covered).insert(NO_API_SERVER.to_owned());
        }
        stopwatch.part("stop operator", false, live.rest()).await;
        drop(core);
        watch.teller.tell("starting Goldmane and Whisker", "");
        stopwatch.part("start pods", false, live.start_pods(&rendered)).await?;
        live.domain.images.refuse_unknown(&self.options.releases)?;
        stopwatch.part("listens", true, live.listens(watch)).await
    }

    fn note_what_was_built_here(&self, about: &About, provenance: &BTreeMap<String, String>) {
        if !self.options.standin && provenance.values().any(|digest| not_as_pulled(digest)) {
            lock(&self.not_covered).insert(format!(
                "Calico {} as published: some of its images are not known to be as pulled (see provenance)",
                about.calico
            ));
        }
    }
}

fn is_deployment(object: &Value) -> bool {
    object["kind"] == json!("Deployment")
}

#[async_trait]
impl Stage for Nodeless {
    fn name(&self) -> &'static str {
        "nodeless"
    }

    fn modelled(&self) -> bool {
        self.options.standin
    }

    fn carries(&self) -> usize {
        // Most of a domain's time is Goldmane waiting for its clock.
        (2 * std::thread::available_parallelism().map_or(1, usize::from)).min(MOST)
    }

    fn not_covered(&self) -> Vec<String> {
        let mut axes: Vec<String> = super::AXES.map(str::to_owned).to_vec();
        axes.push("kube-proxy, CNI, network policy and calico-node: there is no node".to_owned());
        for (pod, what) in lock(&self.not_carried_out).iter().filter(|(_, what)| !what.is_empty()) {
            let what: Vec<&str> = what.iter().map(String::as_str).collect();
            axes.push(format!("of pod {pod}: {}", what.join("; ")));
        }
        axes.extend(lock(&self.not_covered).iter().cloned());
        let unused = self.shared.get().map(|shared| shared.images.unused()).unwrap_or_default();
        axes.extend(unused.iter().map(|(of, reference)| format!("image {of}={reference}: no pod runs it")));
        axes
    }

    async fn prepare(&self, wanted: &[About], _: usize, teller: &Teller) -> Result<(), Vec<NoEnvironment>> {
        let one = |problem| vec![problem];
        teller.tell("looking at this machine", "");
        let engine = Engine::connect().await.map_err(one)?;
        let info = engine.info().await.map_err(one)?;
        let ledger = &self.options.ledger;
        let (mut manifests, mut files) = (BTreeMap::new(), BTreeMap::new());
        for about in wanted {
            let release = self.release(&about.calico).map_err(one)?;
            if !self.options.standin && !files.contains_key(&about.calico) {
                teller.tell("getting Calico's manifests", &about.calico);
                let folder = self.options.manifests.as_deref();
                let got = manifests::get(release, folder, &manifests::cache_folder()).await.map_err(one)?;
                files.insert(about.calico.clone(), got);
                manifests.insert(about.calico.clone(), OnceCell::new());
            }
        }
        let images = ImageSource::new(
            engine.clone(),
            ledger.clone(),
            info.clone(),
            self.options.substitutes.clone(),
            teller.clone(),
        );
        let api_server = format!("{API_SERVER}:{}", self.options.kubernetes);
        let plane_images = async {
            teller.tell("building the project's own image", "");
            let own = Program::Standin.make_image(&engine, &info, ledger, &self.options.workspace).await?;
            Ok(plane::Images {
                etcd: images.have(ETCD).await?,
                api_server: images.have(&api_server).await?,
                own,
            })
        };
        let plane_images = plane_images.await.map_err(one)?;
        let network = format!("catwalk-{}", ledger.run());
        ledger
            .enter(Owned::Network, &network)
            .map_err(|e| one(NoEnvironment::because(format!("writing the ledger: {e}"))))?;
        engine.create_network(&network, ledger.run()).await.map_err(one)?;
        let shared =
            Shared { engine, info, network, images: Arc::new(images), plane_images, manifests, files };
        self.shared.set(shared).map_err(|_| one(NoEnvironment::because("the stage was prepared twice")))
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
        let plane = self.plane(about, deadline, teller, stopwatch).await?;
        let operator = match self.manifests(&about.calico).await? {
            Some(manifests) => manifests.operator.iter().find(|object| is_deployment(object)).cloned(),
            None => None,
        };
        let operator: Option<Deployment> = operator
            .map(serde_json::from_value)
            .transpose()
            .map_err(|e| NoEnvironment::because(format!("reading the operator's Deployment: {e}")))?;
        let domain = Domain {
            engine: shared.engine.clone(),
            about: about.clone(),
            images: shared.images.clone(),
            operator,
            not_carried_out: self.not_carried_out.clone(),
        };
        let mut live = Live::new(plane, domain);
        if let Err(e) = self.stand_up(&mut live, Watch { deadline, teller }, stopwatch).await {
            lock(&self.half_made).insert(about.id(), live);
            return Err(e);
        }
        let mut provenance: BTreeMap<String, String> = BTreeMap::from([
            ("engine".to_owned(), shared.info.version.clone()),
            ("operator".to_owned(), release.operator.clone()),
        ]);
        if let Ok(version) = live.plane.client.apiserver_version().await {
            provenance.insert("kubernetes".to_owned(), version.git_version);
        }
        let of_plane = [&shared.plane_images.etcd, &shared.plane_images.api_server];
        for image in of_plane.into_iter().chain(live.pods().flat_map(|(_, started)| &started.images)) {
            // The project's own image has no digest: it was made here.
            if let Some(digest) = shared.images.digest(image).await {
                provenance.insert(format!("image {image}"), digest);
            }
        }
        self.note_what_was_built_here(about, &provenance);
        if !self.options.standin {
            lock(&self.not_covered).insert(RESTS.to_owned());
        }
        let env = NodelessEnvironment {
            about: about.clone(),
            calico: Calico::new(live.plane.client.clone()),
            statuses: extras::statuses(&self.options.configs.extras(&about.with)?),
            engine: shared.engine.clone(),
            provenance,
            relay: live.plane.relay.clone(),
            dns: live.plane.address,
            pool: self.pool.clone(),
            live: tokio::sync::Mutex::new(Some(live)),
        };
        lock(&self.serving).remove(&about.id());
        Ok(Arc::new(env))
    }

    async fn abandon(&self, about: &About, evidence: Option<&Path>, keep: bool) -> Vec<String> {
        let plane = lock(&self.serving).remove(&about.id());
        let Some(live) = lock(&self.half_made).remove(&about.id()) else {
            // A time limit cut its making off: nobody knows more of it than its name.
            if let (Some(plane), Ok(shared)) = (plane, self.shared()) {
                let _ = shared.engine.remove_plane(&plane).await;
            }
            return Vec::new();
        };
        if let (Some(folder), Ok(shared)) = (evidence, self.shared()) {
            // What cannot be gathered of what did not come up is no news.
            let gathering = environment::collect(&shared.engine, &live, folder);
            let _ = tokio::time::timeout(Duration::from_secs(60), gathering).await;
        }
        if keep {
            return vec![self.pool.keep(live).await];
        }
        // What does not go now is left to `reap`, which says so.
        if let Ok(plane) = live.end().await {
            let _ = end_plane(&self.options.ledger, plane).await;
        }
        Vec::new()
    }

    async fn reap(&self, cut_off: bool, teller: &Teller) -> Vec<String> {
        reap::reap(&self.options.ledger, cut_off, teller).await
    }
}
