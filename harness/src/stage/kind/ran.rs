//! Which images Calico's pods run: what counts is what the nodes say, and not what was brought for them.

use std::collections::{BTreeMap, BTreeSet};

use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_NAMESPACE};
use kube::Client;

use super::images::Archive;
use crate::report::NOT_CONFIRMED;
use crate::stage::NoEnvironment;
use crate::stage::api::pods;
use crate::stage::substitutes::{Substitutes, name, normalized};

/// The images of Calico's pods, with what the nodes say that they are.
pub(super) async fn running(client: &Client) -> Result<BTreeMap<String, String>, NoEnvironment> {
    let mut images = BTreeMap::new();
    for namespace in [OPERATOR_NAMESPACE, CALICO_NAMESPACE] {
        let pods = pods(client, namespace, "").await.map_err(|e| NoEnvironment::because(e.to_string()))?;
        for pod in pods {
            let status = pod.status.unwrap_or_default();
            let of_all = status.container_statuses.into_iter().chain(status.init_container_statuses);
            let ids: BTreeMap<String, String> =
                of_all.flatten().map(|container| (container.name, container.image_id)).collect();
            let Some(spec) = pod.spec else { continue };
            let all = spec.containers.into_iter().chain(spec.init_containers.into_iter().flatten());
            for container in all {
                let id = ids.get(&container.name).cloned().unwrap_or_default();
                images.extend(container.image.map(|image| (image, id)));
            }
        }
    }
    Ok(images)
}

/// What ran, by image: what the archive brought, and what a node had or got by itself, which nobody can vouch for.
pub(super) fn ran(running: &BTreeMap<String, String>, archive: &Archive) -> BTreeMap<String, String> {
    let mut ran = archive.digests.clone();
    for (image, id) in running.iter().filter(|(image, _)| !image.starts_with("catwalk/")) {
        let brought = archive.stand_for.contains_key(&normalized(image))
            || archive.digests.keys().any(|known| normalized(known) == normalized(image));
        if !brought {
            // Another of that name in the archive is not what runs.
            ran.retain(|known, _| name(known) != name(image));
            ran.insert(image.clone(), format!("{id} {NOT_CONFIRMED}"));
        }
    }
    ran
}

/// Holds that every image runs for which another stands is that other; which of them no pod runs.
pub(super) fn substituted(
    running: &BTreeMap<String, String>,
    archive: &Archive,
    substitutes: &Substitutes,
) -> Result<Vec<String>, NoEnvironment> {
    held(&running.keys().cloned().collect(), archive, substitutes)
}

fn held(
    running: &BTreeSet<String>,
    archive: &Archive,
    substitutes: &Substitutes,
) -> Result<Vec<String>, NoEnvironment> {
    for image in running {
        let wanted = substitutes.of(image);
        // The project's own are no release's.
        if wanted != *image
            && !image.starts_with("catwalk/")
            && !archive.stand_for.contains_key(&normalized(image))
        {
            return Err(NoEnvironment::with_fix(
                format!(
                    "{image} runs, and not {wanted}, which should stand for it: the operator did not list it"
                ),
                format!("Name it with --image {}=REF", name(image)),
            ));
        }
    }
    let runs = |of: &str| running.iter().any(|image| name(image) == of);
    let idle = substitutes.images.iter().filter(|(of, _)| !runs(of));
    Ok(idle.map(|(of, reference)| format!("image {of}={reference}: no pod runs it")).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_image_that_runs_in_its_own_place_though_another_should_is_no_environment() {
        let images = BTreeMap::from([("goldmane".to_owned(), "mine/goldmane:dev".to_owned())]);
        let substitutes = Substitutes { registry: None, images };
        let archive = |stand_for: &[&str]| Archive {
            path: PathBuf::new(),
            digests: BTreeMap::new(),
            stand_for: stand_for.iter().map(|image| ((*image).to_owned(), "own".to_owned())).collect(),
            traffic: Err(NoEnvironment::because("")),
        };
        let running =
            names(&["calico/goldmane:v3.30.1", "calico/node:v3.30.1", "catwalk/catwalk-traffic:run"]);
        let held = |running, stand_for: &[&str]| held(running, &archive(stand_for), &substitutes);
        assert_eq!(held(&running, &["docker.io/calico/goldmane:v3.30.1"]).unwrap(), Vec::<String>::new());
        let error = held(&running, &["docker.io/calico/goldmane:v3.30.0"]).unwrap_err().to_string();
        assert!(error.contains("calico/goldmane:v3.30.1 runs, and not mine/goldmane:dev"), "{error}");
        let idle = held(&names(&["calico/node:v3.30.1"]), &[]).unwrap();
        assert_eq!(idle, ["image goldmane=mine/goldmane:dev: no pod runs it"]);
    }

    #[test]
    fn what_a_node_runs_counts_and_not_what_was_brought() {
        let own = |image: &str| (image.to_owned(), format!("{image} as brought"));
        let archive = Archive {
            path: PathBuf::new(),
            digests: ["calico/goldmane:v3.30.1", "calico/whisker:v3.30.1", "mine/typha:dev"].map(own).into(),
            stand_for: BTreeMap::from([("docker.io/calico/typha:v3.30.1".to_owned(), "x".to_owned())]),
            traffic: Err(NoEnvironment::because("none")),
        };
        let running = [
            // Written otherwise.
            ("docker.io/calico/whisker:v3.30.1", "docker.io/calico/whisker@sha256:0f"),
            // Had by the node, from another registry than was thought.
            ("quay.io/calico/goldmane:v3.30.1", "quay.io/calico/goldmane@sha256:0f"),
            // By the name that another stands for.
            ("docker.io/calico/typha:v3.30.1", "sha256:0f"),
            ("catwalk/catwalk-traffic:0f0f0f0f", "sha256:0f"),
            ("new/component:1", ""),
        ];
        let running = running.map(|(image, id)| (image.to_owned(), id.to_owned())).into();
        let expected = BTreeMap::from([
            own("calico/whisker:v3.30.1"),
            own("mine/typha:dev"),
            (
                "quay.io/calico/goldmane:v3.30.1".to_owned(),
                format!("quay.io/calico/goldmane@sha256:0f {NOT_CONFIRMED}"),
            ),
            ("new/component:1".to_owned(), format!(" {NOT_CONFIRMED}")),
        ]);
        assert_eq!(ran(&running, &archive), expected);
    }
}
