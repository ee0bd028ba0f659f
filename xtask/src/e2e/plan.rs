//! What a run would do, printed rather than done.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroUsize;

use anyhow::Result;
use catwalk_fixtures::Release;
use catwalk_harness::case;
use catwalk_harness::run::Group;
use catwalk_harness::shard::{self, Part};
use catwalk_harness::stage::config::{Cni, Configs};

use serde_json::{Value, json};

use super::args::{Args, StageName};

pub(super) fn print_cases(groups: &[Group]) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    for group in groups {
        for scenario in &group.scenarios {
            if writeln!(out, "{}", case::id(scenario, &group.about)).is_err() {
                return Ok(0);
            }
        }
    }
    Ok(0)
}

/// Prints a matrix for GitHub Actions: for each part its `--shard`, and what it runs.
pub(super) fn print_matrix(
    groups: Vec<Group>,
    parts: NonZeroUsize,
    costs: &BTreeMap<String, u64>,
) -> Result<u8> {
    let of = parts.get().min(groups.len());
    let include = shard::split(groups, of, costs).into_iter().enumerate().map(|(index, groups)| {
        let environments: Vec<String> = groups.iter().map(|group| group.about.id()).collect();
        json!({"shard": Part { index: index + 1, of }.to_string(), "environments": environments.join(", ")})
    });
    let matrix = json!({"include": include.collect::<Vec<Value>>()});
    let _ = writeln!(std::io::stdout().lock(), "{matrix}");
    Ok(0)
}

pub(super) fn print_plan(
    args: &Args,
    groups: &[Group],
    configs: &Configs,
    releases: &[Release],
    cni: Cni,
) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    for group in groups {
        let about = &group.about;
        let mut text = format!("{}: {} scenarios\n", about.id(), group.scenarios.len());
        if args.stage == StageName::Kind {
            let cluster =
                configs.cluster(&about.domain, about.dns, cni, args.node_image.as_deref(), &about.with)?;
            text.push_str(&format!("  kind cluster: {cluster}\n"));
            if let Some(release) =
                releases.iter().find(|r| r.calico == about.calico).filter(|_| !args.standin)
            {
                let from =
                    args.manifests.as_ref().map_or("downloaded".to_owned(), |dir| dir.display().to_string());
                text.push_str(&format!(
                    "  Calico {}, operator {}, manifests {from}\n",
                    release.calico, release.operator
                ));
                text.push_str(&format!(
                    "  Installation: {}\n",
                    configs.installation(&about.domain, about.dns)
                ));
                for object in configs.extras(&about.with)? {
                    text.push_str(&format!("  beside it: {object}\n"));
                }
            }
        }
        if write!(out, "{text}").is_err() {
            return Ok(0);
        }
    }
    Ok(0)
}
