//! Images into clusters: had once per run, in one archive per release, while the clusters are being created.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catwalk_fixtures::Release;
use tokio::sync::{Mutex, OnceCell};

use crate::owner::Ledger;
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::stage::engine::{Engine, EngineInfo};
use crate::stage::programs::Program;

/// Images of a release that no program of a default installation runs. One that is wrongly in this list costs time
/// alone: the node then pulls it itself.
const NOT_STARTED: [&str; 5] = ["envoy-", "guardian", "key-cert-provisioner", "windows", "istio-"];

/// Where the nodes see it.
pub(super) const IN_NODE: &str = "/catwalk-images";

/// Loads an archive into every node of a cluster, as `kind load image-archive` does (kind v0.33,
/// `nodeutils.LoadImageArchive`), but from a mount: through a pipe every byte passes the engine.
pub(super) async fn load_from_mount(
    engine: &Engine,
    cluster: &str,
    archive: &Path,
) -> Result<(), NoEnvironment> {
    let file = archive.file_name().unwrap_or_default().to_string_lossy();
    let path = format!("{IN_NODE}/{file}");
    for node in engine.nodes(cluster).await? {
        let config = engine.exec(&node, &["containerd", "config", "dump"]).await?;
        let snapshotter = config
            .lines()
            .find_map(|line| line.trim().strip_prefix("snapshotter = "))
            .map(|value| value.trim_matches(['"', '\'']))
            .filter(|value| !value.is_empty())
            .unwrap_or("overlayfs");
        let snapshotter = format!("--snapshotter={snapshotter}");
        let import = ["ctr", "--namespace=k8s.io", "images", "import", "--all-platforms", "--digests"];
        engine.exec(&node, &[&import[..], &[&snapshotter, &path]].concat()).await?;
    }
    Ok(())
}

/// An archive with a release's images.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    /// Where it lies.
    pub path: PathBuf,
    /// Digest or id by image.
    pub digests: BTreeMap<String, String>,
    /// The image that makes traffic, if it could be made.
    pub traffic: Result<String, NoEnvironment>,
}

/// The archives of a run.
pub(super) struct Images {
    engine: Engine,
    info: EngineInfo,
    ledger: Ledger,
    workspace: PathBuf,
    standin: bool,
    made: Mutex<BTreeMap<String, Arc<Made>>>,
}

/// An archive, or why there is none; made once.
type Made = OnceCell<Result<Archive, NoEnvironment>>;

impl Images {
    /// For one run.
    pub(super) fn new(
        engine: Engine,
        info: EngineInfo,
        ledger: Ledger,
        workspace: PathBuf,
        standin: bool,
    ) -> Self {
        Self { engine, info, ledger, workspace, standin, made: Mutex::default() }
    }

    /// The release's archive; made by the first who asks, waited for by the others.
    pub(super) async fn archive(&self, release: &Release, teller: &Teller) -> Result<Archive, NoEnvironment> {
        // Stand-ins are the same program for every release.
        let key = if self.standin { "standin" } else { release.calico.as_str() };
        let cell = self.made.lock().await.entry(key.to_owned()).or_default().clone();
        cell.get_or_init(|| self.make(key, release, teller)).await.clone()
    }

    async fn make(&self, key: &str, release: &Release, teller: &Teller) -> Result<Archive, NoEnvironment> {
        let make =
            |program: Program| program.make_image(&self.engine, &self.info, &self.ledger, &self.workspace);
        let mut images = Vec::new();
        let mut traffic = Err(NoEnvironment::because("stand-ins see no traffic"));
        if self.standin {
            teller.tell("building the stand-in's image", "");
            images.push(make(Program::Standin).await?);
        } else {
            teller.tell("building the image that makes traffic", "");
            traffic = make(Program::Traffic).await;
            images.extend(traffic.iter().cloned());
            images.extend(self.of_release(release, teller).await?);
        }
        let mut digests = BTreeMap::new();
        for image in &images {
            digests.insert(image.clone(), self.engine.image(image).await?.unwrap_or_default());
        }
        let path = self.ledger.files().join(format!("{key}.tar"));
        teller.tell("saving the images into an archive", &format!("{} images", images.len()));
        self.engine.save(&self.ledger, &images, &self.info.platform, &path).await?;
        Ok(Archive { path, digests, traffic })
    }

    async fn of_release(&self, release: &Release, teller: &Teller) -> Result<Vec<String>, NoEnvironment> {
        let mut images = Vec::new();
        for image in &release.images {
            let name = image.rsplit('/').next().unwrap_or(image);
            if NOT_STARTED.iter().any(|word| name.contains(word)) {
                continue;
            }
            if self.engine.image(image).await?.is_none() {
                teller.tell("pulling images", image);
                self.engine.pull(&self.ledger, image, &self.info.platform).await?;
            }
            images.push(image.clone());
        }
        Ok(images)
    }
}
