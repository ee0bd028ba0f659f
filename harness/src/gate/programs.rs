//! Which programs ran, by their images.

use super::Knowledge;
use crate::report::EnvironmentReport;
use crate::stage::normalized;

/// The project's own images, which are made where they run.
const OWN: [&str; 2] = ["catwalk/catwalk-standin:", "catwalk/catwalk-traffic:"];
/// The programs on whose word every verdict rests.
const WITNESSES: [&str; 4] = ["operator", "goldmane", "whisker", "whisker-backend"];

/// The images that ran there, with their digests, but for the project's own.
pub(super) fn images(environment: &EnvironmentReport) -> impl Iterator<Item = (&str, &str)> {
    environment
        .provenance
        .iter()
        .filter_map(|(name, digest)| Some((name.strip_prefix("image ")?, digest.as_str())))
        .filter(|(image, _)| !OWN.iter().any(|own| image.starts_with(own)))
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
        let known = published(parts(image).0);
        let same = known.is_some_and(|known| normalized(known) == normalized(image));
        let is_kubernetes = known.is_none() && image.starts_with("registry.k8s.io/");
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
