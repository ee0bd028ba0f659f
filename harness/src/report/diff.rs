//! What differs between the reports of two releases: verdicts, rendered names, coverage, times.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{CaseReport, EnvironmentReport, Report};
use crate::audit::Audit;
use crate::verdict::Verdict;

/// By how much an environment's time must differ to be told: milliseconds, and a part of the shorter one.
const SLOWER: (u64, u64) = (5_000, 4);

/// What a case is without its release: scenario, and the environment's domain, profile, extras and stage.
type Place = String;

/// What differs, each line a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Cases of both that came to another verdict or outcome.
    pub verdicts: Vec<String>,
    /// Names in rendered objects.
    pub names: Vec<String>,
    /// Cases of only one.
    pub coverage: Vec<String>,
    /// Environments that took another time. No difference of the releases, as machines go.
    pub times: Vec<String>,
}

impl Difference {
    /// Whether the two show the same.
    pub fn is_none(&self) -> bool {
        self.verdicts.is_empty() && self.names.is_empty() && self.coverage.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("verdict", &self.verdicts),
            ("rendered", &self.names),
            ("coverage", &self.coverage),
            ("time", &self.times),
        ];
        for (what, lines) in parts {
            for line in lines {
                writeln!(f, "{what}: {line}")?;
            }
        }
        if self.is_none() {
            writeln!(f, "no difference in verdicts, rendered names and coverage")
        } else {
            Ok(())
        }
    }
}

/// What differs from the first to the second.
pub fn diff(a: &Report, b: &Report) -> Difference {
    let (first, second) = (cases(a), cases(b));
    let mut found = Difference::default();
    for place in first.keys().chain(second.keys()).collect::<BTreeSet<_>>() {
        match (first.get(place), second.get(place)) {
            (Some(a), Some(b)) => {
                if !same(a, b) {
                    found.verdicts.push(format!("{place}: {} -> {}", said(a), said(b)));
                }
                let (a, b) = (names(a), names(b));
                let line = |sign: char| move |name: &&String| format!("{place}: {sign} {name}");
                found.names.extend(a.difference(&b).map(|name| line('-')(&name)));
                found.names.extend(b.difference(&a).map(|name| line('+')(&name)));
            }
            (Some(a), None) => {
                found.coverage.push(format!("{place}: only in the first ({})", a.outcome.as_str()))
            }
            (None, Some(b)) => {
                found.coverage.push(format!("{place}: only in the second ({})", b.outcome.as_str()))
            }
            (None, None) => {}
        }
    }
    let (first, second) = (environments(a), environments(b));
    for (place, a) in first {
        let Some(b) = second.get(&place) else { continue };
        let (least, part) = SLOWER;
        if a.took_ms.abs_diff(b.took_ms) > least.max(a.took_ms.min(b.took_ms) / part) {
            let seconds = |ms: u64| ms as f64 / 1000.0;
            found.times.push(format!("{place}: {:.1} s -> {:.1} s", seconds(a.took_ms), seconds(b.took_ms)));
        }
    }
    found
}

/// An environment without its release.
fn place(environment: &EnvironmentReport) -> Place {
    let about = &environment.about;
    let id = about.id();
    let id = id.strip_prefix(&format!("{}-", about.calico)).unwrap_or(&id);
    format!("{id} on {}{}", about.stage, if about.modelled { ", modelled" } else { "" })
}

fn environments(report: &Report) -> BTreeMap<Place, &EnvironmentReport> {
    report.environments.iter().map(|environment| (place(environment), environment)).collect()
}

fn cases(report: &Report) -> BTreeMap<Place, &CaseReport> {
    let places: BTreeMap<&str, Place> =
        report.environments.iter().map(|e| (e.id.as_str(), place(e))).collect();
    let of = |case: &CaseReport| {
        let environment = places.get(case.environment.as_str()).cloned();
        format!("{}@{}", case.scenario, environment.unwrap_or_else(|| case.environment.clone()))
    };
    report.cases.iter().map(|case| (of(case), case)).collect()
}

fn verdict(case: &CaseReport) -> Option<&Verdict> {
    case.finding.as_ref().map(|finding| &finding.judgement.verdict)
}

/// Whether both ended alike. How much there was to look at is none of a verdict's differences.
fn same(a: &CaseReport, b: &CaseReport) -> bool {
    let alike = match (verdict(a), verdict(b)) {
        (Some(Verdict::Clean { .. }), Some(Verdict::Clean { .. })) | (None, None) => true,
        (Some(a), Some(b)) => a.same_finding(b),
        _ => false,
    };
    alike && a.outcome == b.outcome
}

fn said(case: &CaseReport) -> String {
    match verdict(case) {
        Some(verdict) => format!("{}, {verdict}", case.outcome.as_str()),
        None => format!("{}, {}", case.outcome.as_str(), case.reason.as_deref().unwrap_or("no reason given")),
    }
}

/// The full names that rendered objects have, with whether there is such a Service.
fn names(case: &CaseReport) -> BTreeSet<String> {
    match case.finding.as_ref().and_then(|finding| finding.audit.as_ref()) {
        Some(Audit::Served { names, .. }) => names
            .iter()
            .flat_map(|name| {
                let there = if name.exists { "" } else { ", without a Service" };
                name.named_by.iter().map(move |object| format!("{} in {object}{there}", name.name))
            })
            .collect(),
        Some(Audit::Rendered { foreign, .. }) => foreign.iter().map(ToString::to_string).collect(),
        None => BTreeSet::new(),
    }
}
