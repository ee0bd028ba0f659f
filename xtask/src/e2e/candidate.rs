//! Candidates: releases that the table does not know.

use std::path::Path;

use anyhow::{Context, Result, bail};
use catwalk_fixtures::release::version_key;
use catwalk_fixtures::{KnownIssue, Release};
use catwalk_harness::stage::candidate;

/// Adds a candidate to the table, from the folder with its manifests.
pub(super) fn add(name: &str, folder: &Path, releases: &mut Vec<Release>) -> Result<()> {
    if releases.iter().any(|release| release.calico == *name) {
        bail!("{name} is a release of the table: a candidate needs another name, or --calico {name}");
    }
    let newest = releases.iter().max_by_key(|release| version_key(&release.calico));
    let newest = newest.context("the table of releases is empty")?.clone();
    releases.push(candidate(name, folder, &newest).map_err(anyhow::Error::new)?);
    Ok(())
}

/// Lets the known issues of these ids apply to a candidate.
pub(crate) fn apply_to(candidate: &str, ids: &[String], issues: &mut [KnownIssue]) -> Result<()> {
    for id in ids {
        let known: Vec<String> = issues.iter().map(|issue| issue.id.clone()).collect();
        let issue = issues.iter_mut().find(|issue| issue.id == *id);
        let issue =
            issue.with_context(|| format!("no known issue {id:?}; there are {}", known.join(", ")))?;
        issue.versions.push(candidate.to_owned());
    }
    Ok(())
}
