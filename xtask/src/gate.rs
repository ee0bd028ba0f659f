//! The gate's policy on the command line, and what of it a run has to show.

use std::path::Path;

use anyhow::{Context, Result, bail};
use catwalk_fixtures::Release;
use catwalk_harness::case::KnownIssues;
use catwalk_harness::conformance::{self, NoStatement, Statement};
use catwalk_harness::gate::{self, Knowledge, Policy, Word};
use catwalk_harness::report::Report;
use catwalk_harness::run::Group;
use catwalk_harness::stage::config::Configs;
use time::OffsetDateTime;

use crate::select::{self, Selection, every_scenario};

/// Reads a policy.
pub(crate) fn read(path: &Path) -> Result<Policy> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the policy {}", path.display()))?;
    Policy::from_toml(&text).with_context(|| format!("the policy {} is none", path.display()))
}

/// What the gate says of reports; `catwalk` is the version that it is of.
pub(crate) fn hold(policy: &Policy, reports: &[Report], issues: &KnownIssues, catwalk: &str) -> Result<Word> {
    knowing(issues, catwalk, |knows| gate::hold(policy, reports, knows))
}

/// What reports show a release to support.
pub(crate) fn conformance(
    reports: &[Report],
    issues: &KnownIssues,
    catwalk: &str,
) -> Result<Result<Statement, NoStatement>> {
    knowing(issues, catwalk, |knows| conformance::state(reports, knows))
}

/// What in a statement the reports do not show.
pub(crate) fn refused(
    statement: &Statement,
    reports: &[Report],
    issues: &KnownIssues,
    catwalk: &str,
) -> Result<Vec<String>> {
    knowing(issues, catwalk, |knows| statement.refused(reports, knows))
}

fn knowing<T>(issues: &KnownIssues, catwalk: &str, ask: impl FnOnce(&Knowledge<'_>) -> T) -> Result<T> {
    let releases = Release::table()?;
    let scenarios = every_scenario();
    let today = OffsetDateTime::now_utc().date();
    Ok(ask(&Knowledge { scenarios: &scenarios, issues, releases: &releases, catwalk, today }))
}

/// What to run for a policy: what it requires of this stage, unless flags say what.
pub(crate) fn groups(
    policy: &Policy,
    selection: &Selection,
    stage: &str,
    configs: &Configs,
    issues: &KnownIssues,
    select: impl Fn(&Selection) -> Result<Vec<Group>>,
) -> Result<Vec<Group>> {
    if selection.calico.len() > 1 {
        bail!("a gate is for one release, and there are several: {}", selection.calico.join(", "));
    }
    if let Some(mistake) = policy.mistakes(&every_scenario(), issues).into_iter().next() {
        bail!("{mistake}");
    }
    let named = !selection.domains.is_empty()
        || !selection.dns.is_empty()
        || !selection.scenarios.is_empty()
        || !selection.with.is_empty();
    if named {
        return select(selection);
    }
    let mut groups: Vec<Group> = Vec::new();
    for require in policy.require.iter().filter(|require| require.stages.iter().any(|s| s == stage)) {
        let more = select(&Selection {
            domains: require.domains.iter().map(ToString::to_string).collect(),
            dns: require.dns.clone(),
            scenarios: require.scenarios.clone(),
            with: select::extras(&require.with, configs)?,
            ..selection.clone()
        })?;
        more.into_iter().for_each(|group| select::add(&mut groups, group));
    }
    if groups.is_empty() {
        bail!("the policy requires nothing of stage {stage}; name what to run, or another --stage");
    }
    Ok(groups)
}
