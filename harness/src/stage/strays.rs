//! What the engine has of runs whose ledger is not here: another user's or machine's, or one that is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use testcontainers::bollard::query_parameters::{
    ListImagesOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
};

use super::NoEnvironment;
use super::containers::PLANE_LABEL;
use super::engine::{Engine, KIND_LABEL, RUN_LABEL, failed};
use crate::owner::{Owned, RunId};

/// What runs have on an engine, by run.
pub(super) type OnEngine = BTreeMap<RunId, BTreeSet<(Owned, String)>>;

/// The run in a name, and what follows it: `catwalk-RUN`, `catwalk-RUN-...`.
fn run_in(name: &str) -> Option<(RunId, &str)> {
    owner_in(name.strip_prefix("catwalk-")?)
}

/// The run in an owner's mark, and what follows it: `RUN`, `RUN-...`.
fn owner_in(mark: &str) -> Option<(RunId, &str)> {
    let (run, rest) = mark.split_once('-').unwrap_or((mark, ""));
    Some((RunId::parse(run)?, rest))
}

/// The control plane whose volume has that name.
fn plane_in(volume: &str) -> Option<(RunId, String)> {
    let (run, rest) = run_in(volume)?;
    let number = rest.split('-').next().filter(|number| !number.is_empty())?;
    let plane = format!("{run}-{number}");
    Some((run, plane))
}

/// The run of an image that a run made or named: `catwalk/...:RUN`.
fn run_of_image(reference: &str) -> Option<RunId> {
    let (_, tag) = reference.strip_prefix("catwalk/")?.rsplit_once(':')?;
    RunId::parse(tag)
}

/// Everything that carries a run's id, by label or by name: the engine can lose either.
pub(super) async fn on_engine(engine: &Engine) -> Result<OnEngine, NoEnvironment> {
    let mut found = OnEngine::new();
    let mut add = |run: RunId, owned: Owned, name: String| {
        found.entry(run).or_default().insert((owned, name));
    };
    for label in [PLANE_LABEL, KIND_LABEL] {
        for container in engine.listed(HashMap::from([("label", vec![label.to_owned()])])).await? {
            let Some(mark) = container.labels.get(label) else { continue };
            if label == PLANE_LABEL {
                owner_in(mark).into_iter().for_each(|(run, _)| add(run, Owned::Plane, mark.clone()));
            } else {
                run_in(mark).into_iter().for_each(|(run, _)| add(run, Owned::Cluster, mark.clone()));
            }
        }
    }
    let docker = engine.docker();
    let volumes = docker.list_volumes(None::<ListVolumesOptions>).await;
    for volume in volumes.map_err(|e| failed("listing volumes", &e))?.volumes.unwrap_or_default() {
        let labelled = volume.labels.get(PLANE_LABEL);
        let plane = labelled.and_then(|plane| Some((owner_in(plane)?.0, plane.clone())));
        plane
            .or_else(|| plane_in(&volume.name))
            .into_iter()
            .for_each(|(run, plane)| add(run, Owned::Plane, plane));
    }
    let networks = docker.list_networks(None::<ListNetworksOptions>).await;
    for network in networks.map_err(|e| failed("listing networks", &e))? {
        let Some(name) = network.name else { continue };
        run_in(&name).into_iter().for_each(|(run, _)| add(run, Owned::Network, name.clone()));
    }
    let images = docker.list_images(Some(ListImagesOptionsBuilder::default().build())).await;
    for image in images.map_err(|e| failed("listing images", &e))? {
        let named = image.repo_tags.iter().any(|tag| !tag.starts_with("<none>"));
        for tag in &image.repo_tags {
            run_of_image(tag).into_iter().for_each(|run| add(run, Owned::Image, tag.clone()));
        }
        // One that lost its name while a container still had it.
        let labelled = image.labels.get(RUN_LABEL).filter(|_| !named);
        labelled
            .and_then(|run| RunId::parse(run))
            .into_iter()
            .for_each(|run| add(run, Owned::Image, image.id.clone()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_run_s_is_told_by_its_name() {
        let run = |text: &str| RunId::parse(text).unwrap();
        assert_eq!(run_in("catwalk-0f0f0f0f").unwrap(), (run("0f0f0f0f"), ""));
        assert_eq!(run_in("catwalk-0f0f0f0f-3").unwrap(), (run("0f0f0f0f"), "3"));
        assert_eq!(
            plane_in("catwalk-0f0f0f0f-3-0-goldmane-config").unwrap(),
            (run("0f0f0f0f"), "0f0f0f0f-3".to_owned())
        );
        assert_eq!(run_of_image("catwalk/catwalk-standin:0f0f0f0f"), Some(run("0f0f0f0f")));
        for not_ours in
            ["catwalk-mine", "catwalk-0F0F0F0F", "my-catwalk-0f0f0f0f", "0f0f0f0f", "catwalk-0f0f0f0f0"]
        {
            assert_eq!(run_in(not_ours), None, "{not_ours}");
        }
        assert_eq!(plane_in("catwalk-0f0f0f0f"), None);
        for not_ours in ["catwalk/goldmane:v3.30.1", "mine/catwalk:0f0f0f0f", "catwalk/goldmane"] {
            assert_eq!(run_of_image(not_ours), None, "{not_ours}");
        }
    }
}
