//! `conformance.json`: a statement of what a release was shown to support, each claim with the real case that shows it.
//!
//! As the gate does, it believes no outcome: each is worked out again from what was seen. What speaks against a report
//! refuses the whole statement, and a claim that no real case shows refuses a statement that is checked.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::Outcome;
use crate::gate::{Knowledge, again, foreign_programs, missing_repetitions};
use crate::report::{CaseReport, EnvironmentReport, Report, SCHEMA};

/// The statement's version; it changes when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What a release was shown to support.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`VERSION`] at the time of writing.
    pub conformance: u32,
    /// The Calico version.
    pub calico: String,
    /// Catwalk's version.
    pub catwalk: String,
    /// The runs that it rests on: id, stage, and when each began (RFC 3339, UTC).
    pub runs: BTreeSet<(String, String, String)>,
    /// Versions and digests of what ran, by name; several where environments differ.
    pub programs: BTreeMap<String, BTreeSet<String>>,
    /// What was shown, sorted.
    pub supports: BTreeSet<Claim>,
    /// What was shown to be otherwise, sorted: where the case stands, its outcome and verdict.
    pub does_not: BTreeSet<String>,
    /// What nothing here says anything of: in none of the runs, or in the one that is named.
    pub not_covered: BTreeSet<String>,
}

/// A scenario that holds in environments of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The scenario.
    pub scenario: String,
    /// What it demands, in its own words: given and when.
    pub meaning: String,
    /// The cluster domain.
    pub domain: String,
    /// What the cluster's DNS served.
    pub dns: String,
    /// What was set up beside Calico as released.
    pub with: Vec<String>,
    /// The stage on which it ran.
    pub stage: String,
    /// The Kubernetes version; empty where it is not known.
    pub kubernetes: String,
    /// The cases that show it, as findings name them: `RUN/CASE`. Of what was repeated, every repetition.
    pub shown_by: BTreeSet<String>,
}

/// Why there is no statement.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no conformance can be stated: {}", .0.join("; "))]
pub struct NoStatement(pub Vec<String>);

/// States what these reports, of one release, show.
pub fn state(reports: &[Report], knows: &Knowledge<'_>) -> Result<Statement, NoStatement> {
    let mut why = Vec::new();
    for report in reports {
        why.extend(against(report, knows));
    }
    why.extend(missing_repetitions(reports));
    let environments = || reports.iter().flat_map(|report| &report.environments);
    let versions: BTreeSet<&str> = environments().map(|e| e.about.calico.as_str()).collect();
    if versions.len() != 1 {
        let versions = Vec::from_iter(versions.iter().copied()).join(", ");
        why.push(format!("it is of one release, and the reports are of {versions:?}"));
    }
    let mut supports: BTreeMap<Key, Claim> = BTreeMap::new();
    // Of what a claim would be, and does not hold every time: another case of it ended otherwise, or was not shown.
    let (mut not_always, mut times) = (BTreeSet::new(), BTreeMap::new());
    why.extend(environments().flat_map(|environment| foreign_programs(environment, knows)));
    let (mut does_not, mut programs) = (BTreeSet::new(), BTreeMap::new());
    for report in reports {
        for case in &report.cases {
            let environment = report.environments.iter().find(|e| e.id == case.environment);
            let outcome = match again(&report.run, case, environment, knows) {
                Ok(outcome) => outcome,
                Err(words) => {
                    why.push(format!("{}: {words}", case.id));
                    continue;
                }
            };
            // A case without its environment is none, which was said.
            let Some(environment) = environment else { continue };
            times.insert(key(report, case, environment), environment.about.repetition.map_or(1, |r| r.of));
            if outcome == Outcome::Passed && environment.problem.is_none() {
                claim(&mut supports, report, case, environment, knows);
                continue;
            }
            // One that did not come to a verdict says nothing against another run's, but it was to hold every time.
            let says_nothing = matches!(outcome, Outcome::Passed | Outcome::Skipped | Outcome::Errored);
            if !says_nothing || environment.about.repetition.is_some() {
                not_always.insert(key(report, case, environment));
            }
            if !says_nothing {
                let verdict = case.finding.as_ref().map(|f| f.judgement.verdict.to_string());
                let verdict = verdict.unwrap_or_default();
                does_not.insert(format!("{} on {}: {}: {verdict}", case.id, report.stage, outcome.as_str()));
            }
        }
        does_not.extend(report.flaky().iter().map(|flaky| format!("{flaky} (on {})", report.stage)));
    }
    supports.retain(|key, claim| {
        let times = times.get(key).copied().unwrap_or(1);
        !not_always.contains(key) && claim.shown_by.len() >= times
    });
    for (name, version) in environments().flat_map(|e| &e.provenance) {
        let versions: &mut BTreeSet<String> = programs.entry(name.clone()).or_default();
        versions.insert(version.clone());
    }
    if why.is_empty() && supports.is_empty() {
        why.push("no case passed".to_owned());
    }
    if !why.is_empty() {
        return Err(NoStatement(why));
    }
    Ok(Statement {
        conformance: VERSION,
        calico: versions.into_iter().next().unwrap_or_default().to_owned(),
        catwalk: knows.catwalk.to_owned(),
        runs: reports.iter().map(|r| (r.run.clone(), r.stage.clone(), r.started.clone())).collect(),
        programs,
        supports: supports.into_values().collect(),
        does_not,
        not_covered: not_covered(reports),
    })
}

/// What the reports do not cover: what one of them leaves out, another may leave out in other words.
fn not_covered(reports: &[Report]) -> BTreeSet<String> {
    let everywhere = |axis: &String| reports.iter().all(|report| report.not_covered.contains(axis));
    let axes = reports.iter().flat_map(|report| report.not_covered.iter().map(move |axis| (report, axis)));
    let words = axes.map(|(report, axis)| match everywhere(axis) {
        true => axis.clone(),
        false => format!("{axis} (by run {} on {})", report.run, report.stage),
    });
    words.collect()
}

/// What speaks against a report as a whole.
fn against(report: &Report, knows: &Knowledge<'_>) -> Vec<String> {
    let of = format!("the report of run {} on {}", report.run, report.stage);
    let modelled =
        report.modelled || report.stage == "lab" || report.environments.iter().any(|e| e.about.modelled);
    let rows = [
        (report.schema != SCHEMA, format!("{of} has schema {}, and this reads {SCHEMA}", report.schema)),
        (
            report.catwalk != knows.catwalk,
            format!("{of} is of Catwalk {}, this is {}", report.catwalk, knows.catwalk),
        ),
        (modelled, format!("{of} is modelled: no Calico program ran")),
        (report.shard.is_some(), format!("{of} is of a part alone: `report merge` makes it whole")),
        (report.interrupted, format!("{of} is of an interrupted run")),
    ];
    let rows = rows.into_iter().filter_map(|(applies, words)| applies.then_some(words));
    let problems = report.problems.iter().map(|problem| format!("{of} has a problem: {problem}"));
    rows.chain(problems).collect()
}

/// What a claim is of: a case without its repetition, on a stage, on a version of Kubernetes, with the run's flags.
type Key = (String, String, String, Vec<String>);

fn key(report: &Report, case: &CaseReport, environment: &EnvironmentReport) -> Key {
    let about = &environment.about;
    let kubernetes = environment.provenance.get("kubernetes").cloned().unwrap_or_default();
    (
        format!("{}@{}", case.scenario, about.id_of_all()),
        about.stage.clone(),
        kubernetes,
        report.given.clone(),
    )
}

fn claim(
    supports: &mut BTreeMap<Key, Claim>,
    report: &Report,
    case: &CaseReport,
    environment: &EnvironmentReport,
    knows: &Knowledge<'_>,
) {
    let about = &environment.about;
    let scenario = knows.scenarios.iter().find(|scenario| scenario.id == case.scenario);
    let search = about.host_search.iter().map(|domain| format!("search {domain}"));
    let shown_by = case.finding.as_ref().map(|finding| finding.of.clone()).unwrap_or_default();
    let key = key(report, case, environment);
    let kubernetes = key.2.clone();
    supports
        .entry(key)
        .or_insert_with(|| Claim {
            scenario: case.scenario.clone(),
            meaning: scenario.map(|s| format!("{}; when {}", s.given, s.when)).unwrap_or_default(),
            domain: about.domain.to_string(),
            dns: about.dns.to_string(),
            with: about.with.iter().cloned().chain(search).chain(report.given.iter().cloned()).collect(),
            stage: about.stage.clone(),
            kubernetes,
            shown_by: BTreeSet::new(),
        })
        .shown_by
        .insert(shown_by);
}

impl Statement {
    /// What in it these reports do not show; none where they show all of it.
    pub fn refused(&self, reports: &[Report], knows: &Knowledge<'_>) -> Vec<String> {
        let shown = match state(reports, knows) {
            Ok(shown) => shown,
            Err(NoStatement(why)) => return why,
        };
        let mut refused = Vec::new();
        for claim in self.supports.difference(&shown.supports) {
            let Claim { scenario, domain, dns, stage, .. } = claim;
            refused.push(format!(
                "no real case that passed shows its claim of {scenario} under {domain} ({dns}) on {stage}"
            ));
        }
        refused
            .extend(shown.does_not.difference(&self.does_not).map(|words| format!("it leaves out: {words}")));
        refused.extend(
            shown
                .not_covered
                .difference(&self.not_covered)
                .map(|axis| format!("it leaves out what is not covered: {axis}")),
        );
        let rest = Self {
            supports: shown.supports.clone(),
            does_not: shown.does_not.clone(),
            not_covered: shown.not_covered.clone(),
            ..self.clone()
        };
        if refused.is_empty() && rest != shown {
            refused.push("release, version, runs or programs are not those of the reports".to_owned());
        }
        refused
    }
}
