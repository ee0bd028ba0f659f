//! Which programs ran, by their images.

use super::Knowledge;
use crate::report::EnvironmentReport;

/// Where Calico's images are published (docs.tigera.io, "Configure use of your image registry").
const PUBLISHERS: [&str; 3] = ["docker.io/calico", "quay.io/calico", "quay.io/tigera"];
/// The programs on whose word every verdict rests.
const WITNESSES: [&str; 4] = ["operator", "goldmane", "whisker", "whisker-backend"];

/// Whether the image is the project's own, which is made where it runs.
pub(super) fn is_own(image: &str) -> bool {
    image.starts_with("catwalk/catwalk-")
}

/// The images that ran there, with their digests, but for the project's own.
pub(super) fn images(environment: &EnvironmentReport) -> impl Iterator<Item = (&str, &str)> {
    environment
        .provenance
        .iter()
        .filter_map(|(name, digest)| Some((name.strip_prefix("image ")?, digest.as_str())))
        .filter(|(image, _)| !is_own(image))
}

/// Programs that are not those which the table has for the environment's release, and those of which it is not known.
///
/// What a candidate is made of is known to whoever tests it.
pub(crate) fn foreign_programs(environment: &EnvironmentReport, knows: &Knowledge<'_>) -> Vec<String> {
    let EnvironmentReport { id, about, .. } = environment;
    let Some(release) = knows.releases.iter().find(|release| release.calico == about.calico) else {
        return Vec::new();
    };
    let published = |program: &str| release.images.iter().find(|image| parts(image).0 == program);
    let foreign = images(environment).filter_map(|(image, _)| {
        let (program, tag) = parts(image);
        let path = image.strip_suffix(image.rsplit('/').next()?)?.trim_end_matches('/');
        // Of Docker Hub's the registry may be left out (distribution/reference).
        let is_published =
            PUBLISHERS.iter().any(|by| path == *by || Some(path) == by.strip_prefix("docker.io/"));
        let known = published(program);
        let is_kubernetes = path == "registry.k8s.io" && known.is_none();
        let same = is_published && known.is_some_and(|known| parts(known).1 == tag);
        let wanted = known.map_or("none that is called so", String::as_str);
        (!same && !is_kubernetes)
            .then(|| format!("environment {id}: image {image} ran, and {} has {wanted}", about.calico))
    });
    let stands = environment.problem.is_none() && !about.modelled;
    let unknown = WITNESSES.iter().filter(|program| {
        stands
            && published(program).is_some()
            && !images(environment).any(|(image, _)| parts(image).0 == **program)
    });
    let unknown = unknown.map(|program| format!("environment {id}: it is not known which {program} ran"));
    foreign.chain(unknown).collect()
}

/// The last part of an image's name, and its tag.
pub(super) fn parts(image: &str) -> (&str, Option<&str>) {
    let last = image.rsplit('/').next().unwrap_or(image);
    let tagged = last.split('@').next().unwrap_or(last);
    tagged.split_once(':').map_or((tagged, None), |(name, tag)| (name, Some(tag)))
}
