//! Which programs ran, by their images.

use super::Knowledge;
use crate::report::EnvironmentReport;

/// Programs of another release than the environment is of, by their images' tags.
pub(crate) fn foreign_programs(environment: &EnvironmentReport, knows: &Knowledge<'_>) -> Vec<String> {
    let EnvironmentReport { id, about, provenance, .. } = environment;
    let Some(release) = knows.releases.iter().find(|release| release.calico == about.calico) else {
        return Vec::new();
    };
    let foreign = provenance.keys().filter_map(|name| {
        let image = name.strip_prefix("image ")?;
        let (program, tag) = parts(image);
        let wanted = match program {
            "operator" => &release.operator,
            "goldmane" | "whisker" | "whisker-backend" => &release.calico,
            _ => return None,
        };
        let other = tag.is_some_and(|tag| tag != wanted);
        other.then(|| format!("environment {id}: image {image} ran, and {} has {wanted}", about.calico))
    });
    foreign.collect()
}

/// The last part of an image's name, and its tag.
pub(super) fn parts(image: &str) -> (&str, Option<&str>) {
    let last = image.rsplit('/').next().unwrap_or(image);
    let tagged = last.split('@').next().unwrap_or(last);
    tagged.split_once(':').map_or((tagged, None), |(name, tag)| (name, Some(tag)))
}
