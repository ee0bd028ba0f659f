//! Images into clusters: had once per run, in one archive per release, while the clusters are being created.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catwalk_fixtures::Release;
use tokio::sync::{Mutex, OnceCell};

use super::KindOptions;
use crate::owner::{Ledger, Owned};
use crate::progress::Teller;
use crate::stage::containers::{Network, NewContainer, pod_name};
use crate::stage::engine::{Engine, EngineInfo};
use crate::stage::programs::Program;
use crate::stage::substitutes::{name, normalized};
use crate::stage::{NoEnvironment, Substitutes};
use crate::wait::{Probe, wait_for};

/// Images of a release that no program of a default installation runs. One that is wrongly in this list costs time
/// alone: the node then pulls it itself.
const NOT_STARTED: [&str; 5] = ["envoy-", "guardian", "key-cert-provisioner", "windows", "istio-"];

/// The operator's image, by the last part of its name.
const OPERATOR: &str = "operator";
/// The longest that an operator may take to list its images.
const LISTING: Duration = Duration::from_secs(60);

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

/// Gives the images that stand for others the names under which the operator asks for these, in every node and nowhere
/// else.
pub(super) async fn name_substitutes(
    engine: &Engine,
    cluster: &str,
    archive: &Archive,
) -> Result<(), NoEnvironment> {
    if archive.stand_for.is_empty() {
        return Ok(());
    }
    for node in engine.nodes(cluster).await? {
        for (rendered, own) in &archive.stand_for {
            let words = ["ctr", "--namespace=k8s.io", "images", "tag", "--force"];
            engine.exec(&node, &[&words[..], &[&normalized(own), rendered]].concat()).await?;
        }
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
    /// By the name under which the operator asks for an image, as containerd writes it: the name of the one in the
    /// archive that stands for it.
    pub stand_for: BTreeMap<String, String>,
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
    substitutes: Substitutes,
    /// What Calico's images are called, in any release.
    names: BTreeSet<String>,
    made: Mutex<BTreeMap<String, Arc<Made>>>,
    /// The image that makes traffic, which all archives have: made once, since the name of one goes to the next.
    traffic: OnceCell<Result<String, NoEnvironment>>,
}

/// An archive, or why there is none; made once.
type Made = OnceCell<Result<Archive, NoEnvironment>>;

/// An image that is to be in the archive.
struct Needed {
    /// What the operator asks for.
    rendered: String,
    /// Whether the node may get it by itself, where it cannot be had here.
    may_be_missing: bool,
}

impl Images {
    /// For one run.
    pub(super) fn new(engine: Engine, info: EngineInfo, options: &KindOptions) -> Self {
        let names =
            options.releases.iter().flat_map(|release| &release.images).map(|image| name(image).to_owned());
        Self {
            engine,
            info,
            ledger: options.ledger.clone(),
            workspace: options.workspace.clone(),
            standin: options.standin,
            substitutes: options.substitutes.clone(),
            names: names.chain(options.substitutes.images.keys().cloned()).collect(),
            made: Mutex::default(),
            traffic: OnceCell::new(),
        }
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
        let mut archive = Archive {
            path: self.ledger.files().join(format!("{key}.tar")),
            digests: BTreeMap::new(),
            stand_for: BTreeMap::new(),
            traffic: Err(NoEnvironment::because("stand-ins see no traffic")),
        };
        let mut images = Vec::new();
        if self.standin {
            teller.tell("building the stand-in's image", "");
            let image = make(Program::Standin).await?;
            archive.digests.insert(image.clone(), self.engine.image(&image).await?.unwrap_or_default());
            images.push(image);
        } else {
            teller.tell("building the image that makes traffic", "");
            archive.traffic = self.traffic.get_or_init(|| make(Program::Traffic)).await.clone();
            for image in archive.traffic.iter() {
                archive.digests.insert(image.clone(), self.engine.image(image).await?.unwrap_or_default());
                images.push(image.clone());
            }
            for needed in self.needed(release, teller).await? {
                images.extend(self.have(release, &needed, &mut archive, teller).await?);
            }
        }
        teller.tell("saving the images into an archive", &format!("{} images", images.len()));
        self.engine.save(&self.ledger, &images, &self.info.platform, &archive.path).await?;
        Ok(archive)
    }

    /// The images of a release that its programs are started from: by the table, or where another operator runs than the
    /// table's, by that operator's own word.
    async fn needed(&self, release: &Release, teller: &Teller) -> Result<Vec<Needed>, NoEnvironment> {
        let operator = release.images.iter().find(|image| name(image) == OPERATOR);
        let is_other = release.is_candidate() || self.substitutes.images.contains_key(OPERATOR);
        let images = match operator {
            Some(operator) if is_other => {
                teller.tell("asking the operator for its images", operator);
                let mut images = vec![operator.clone()];
                images.extend(chosen(&self.listed(&release.calico, operator).await?, &self.names));
                images
            }
            _ => release.images.clone(),
        };
        if let Some(unknown) =
            self.substitutes.images.keys().find(|of| !images.iter().any(|i| name(i) == **of))
        {
            let names: Vec<&str> = images.iter().map(|image| name(image)).collect();
            return Err(NoEnvironment::because(format!(
                "--image {unknown}=...: no image of {} is called so; there are {}",
                release.calico,
                names.join(", ")
            )));
        }
        let is_named = |image: &str| self.substitutes.images.contains_key(name(image));
        let is_started =
            |image: &String| is_named(image) || !NOT_STARTED.iter().any(|word| name(image).contains(word));
        let needed = images.into_iter().filter(is_started).map(|rendered| {
            let may_be_missing =
                is_other && name(&rendered) != OPERATOR && self.substitutes.of(&rendered) == rendered;
            Needed { rendered, may_be_missing }
        });
        Ok(needed.collect())
    }

    /// What the operator says that it would start (tigera/operator, `main.go`, `-print-images=list`), a line each.
    async fn listed(&self, calico: &str, operator: &str) -> Result<String, NoEnvironment> {
        let wanted = self.substitutes.of(operator);
        self.pulled(&wanted, operator).await?;
        let failed = |why: String| {
            NoEnvironment::because(format!("asking {wanted} for its images (-print-images=list): {why}"))
        };
        let owner = format!("{}-images-{calico}", self.ledger.run());
        self.ledger.enter(Owned::Plane, &owner).map_err(|e| failed(format!("writing the ledger: {e}")))?;
        let name = pod_name(&owner, "operator");
        let container = NewContainer {
            args: vec!["-print-images=list".to_owned()],
            ..NewContainer::new(name.clone(), &wanted, &owner, Network::Named("none".to_owned()))
        };
        let running = self.engine.start(container).await?;
        let until = Instant::now() + LISTING;
        let ended = wait_for(
            "the operator's list of images",
            until,
            Duration::from_millis(200),
            &|_, _| {},
            || async {
                match self.engine.state(running.id()).await {
                    Ok(Some(state)) if state.running => Probe::NotYet("it runs".to_owned()),
                    Ok(Some(state)) => Probe::Done(state.exit_code),
                    Ok(None) => Probe::Never("its container is gone".to_owned()),
                    Err(e) => Probe::NotYet(e.to_string()),
                }
            },
        );
        let ended = ended.await.map_err(|e| failed(e.to_string()));
        let said = self.engine.logs(running.id(), 0).await;
        self.engine.remove_plane(&owner).await?;
        match (ended?, said?) {
            (0, said) => Ok(said),
            (code, said) => Err(failed(format!("exit code {code}: {}", said.trim()))),
        }
    }

    /// Has an image, and gives the name under which it goes into the archive; none where the node is left to get it.
    async fn have(
        &self,
        release: &Release,
        needed: &Needed,
        archive: &mut Archive,
        teller: &Teller,
    ) -> Result<Option<String>, NoEnvironment> {
        let rendered = &needed.rendered;
        let wanted = self.substitutes.of(rendered);
        teller.tell("getting images", &wanted);
        let digest = match self.pulled(&wanted, rendered).await {
            Err(_) if needed.may_be_missing => return Ok(None),
            pulled => pulled?,
        };
        archive.digests.insert(wanted.clone(), digest);
        if wanted == *rendered {
            return Ok(Some(wanted));
        }
        // It is named for this run alone: the user's own names stay what they are.
        let repository = format!("catwalk/{}/{}", release.calico, name(rendered)).to_ascii_lowercase();
        let own = format!("{repository}:{}", self.ledger.run());
        self.ledger
            .enter(Owned::Image, &own)
            .map_err(|e| NoEnvironment::because(format!("writing the ledger: {e}")))?;
        self.engine.tag(&wanted, &repository, &self.ledger.run().to_string()).await?;
        archive.stand_for.insert(normalized(rendered), own.clone());
        Ok(Some(own))
    }

    async fn pulled(&self, wanted: &str, rendered: &str) -> Result<String, NoEnvironment> {
        let digest = self.engine.have(&self.ledger, &self.info, wanted).await;
        digest.map_err(|e| Substitutes::not_pulled(e, wanted, rendered))
    }
}

/// Of the operator's list, the images of these names: of each name the first, which is Calico's own, and no special
/// build of it.
fn chosen(list: &str, names: &BTreeSet<String>) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    for line in
        list.lines().map(str::trim).filter(|line| line.contains('/') && !line.contains(char::is_whitespace))
    {
        let is_new = !chosen.iter().any(|known| name(known) == name(line));
        if is_new && name(line) != OPERATOR && names.contains(name(line)) && !line.ends_with("-fips") {
            chosen.push(line.to_owned());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The beginning of what operator v1.38.1 prints, and some of its end.
    #[test]
    fn of_the_operator_s_list_calico_s_own_images_are_taken() {
        let list = "2026/11/25 11:12:20 [INFO] Failed to read serviceaccount/namespace file\n\
                    docker.io/calico/cni:v3.30.1\ndocker.io/calico/cni:v3.30.1-fips\ndocker.io/calico/node:v3.30.1\n\
                    quay.io/calico/node:v3.30.1-fips\ndocker.io/calico/node-windows:v3.30.1\n\
                    quay.io/tigera/cnx-apiserver:release-calient-v3.21\nquay.io/tigera/cni:release-calient-v3.21\n\
                    quay.io/tigera/operator:v1.38.1\n";
        let chosen = chosen(list, &names(&["cni", "node", "operator"]));
        assert_eq!(chosen, ["docker.io/calico/cni:v3.30.1", "docker.io/calico/node:v3.30.1"]);
    }
}
