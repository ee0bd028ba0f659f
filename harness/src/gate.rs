//! The gate: holds reports against a policy, and says no wherever it cannot say yes.
//!
//! It believes no outcome that a report states. Every one is worked out again from what was seen, from the scenario's
//! own demand and from the known issues as data; what does not come out the same is a reason of its own. What it
//! cannot know is who wrote a report: keep reports where only CI can write.

mod case;
mod policy;
mod programs;

use std::collections::{BTreeMap, BTreeSet};

use catwalk_fixtures::{ClusterDomain, DnsProfile, Release};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Date;

use crate::case::{KnownIssues, Outcome};
use crate::environment::{About, Repetition};
use crate::report::{BUILT_HERE, CaseReport, EnvironmentReport, NOT_CONFIRMED, Report, SCHEMA};
use crate::scenario::Scenario;

pub(crate) use case::again;
pub use policy::{Acceptance, BadPolicy, Policy, Requirement};
pub(crate) use programs::foreign_programs;
use programs::parts;

/// Why the gate says no, the weightiest kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// A verdict differs from what a right Calico gives.
    Differs,
    /// A known issue that nobody accepted, or no longer.
    NotAccepted,
    /// A report that contradicts itself, or what it rests on.
    Contradicts,
    /// Something required was not shown.
    NotShown,
    /// The run as a whole did not go well, or is not one that this gate can read.
    Run,
    /// The policy asks for what there is not.
    Policy,
}

/// One reason to say no.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// How much it weighs.
    pub weight: Weight,
    /// One sentence.
    pub words: String,
}

/// What the gate knows besides policy and reports.
pub struct Knowledge<'k> {
    /// Every scenario that there is.
    pub scenarios: &'k [Scenario],
    /// The known issues, as data.
    pub issues: &'k KnownIssues,
    /// The table of releases.
    pub releases: &'k [Release],
    /// Catwalk's version, as reports have it.
    pub catwalk: &'k str,
    /// Today, UTC.
    pub today: Date,
}

/// What the gate says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Word {
    /// The Calico version that the reports are of.
    pub calico: String,
    /// Why not; none where it says yes.
    pub reasons: Vec<Reason>,
    /// Required cases that passed for real.
    pub passed: usize,
    /// Required cases that showed a known issue instead, which is accepted.
    pub excused: usize,
    /// The known issues that were met and are accepted: id, until when, why.
    pub accepted: Vec<String>,
}

impl Word {
    /// Whether the gate says yes.
    pub fn yes(&self) -> bool {
        self.reasons.is_empty()
    }

    /// `13 required cases passed for real`, and how many are excused.
    pub fn counts(&self) -> String {
        let excused = match self.excused {
            0 => String::new(),
            n => format!(", {n} are excused by a known issue"),
        };
        format!("{} required cases passed for real{excused}", self.passed)
    }
}

/// Where a case is: on which stage, and its id.
type Place<'r> = (&'r str, &'r str);

/// Holds the reports against the policy.
pub fn hold(policy: &Policy, reports: &[Report], knows: &Knowledge<'_>) -> Word {
    let mut gate = Gate {
        policy,
        knows,
        reasons: BTreeSet::new(),
        shown: BTreeMap::new(),
        named: BTreeSet::new(),
        met: BTreeSet::new(),
    };
    for mistake in policy.mistakes(knows.scenarios, knows.issues) {
        gate.no(Weight::Policy, mistake);
    }
    for report in reports {
        gate.report(report);
    }
    for words in missing_repetitions(reports) {
        gate.no(Weight::NotShown, words);
    }
    let versions: BTreeSet<&str> = environments(reports).map(|e| e.about.calico.as_str()).collect();
    let calico = Vec::from_iter(versions).join(", ");
    if calico.contains(", ") {
        gate.no(
            Weight::Run,
            format!("the reports are of several Calico versions, {calico}: a gate is for one"),
        );
    }
    let [passed, excused] = gate.required(reports);
    let accepted = gate.met.iter().filter_map(|id| policy.accept.iter().find(|a| a.known_issue == *id));
    let accepted = accepted.map(|a| format!("{} until {}: {}", a.known_issue, a.until, a.why)).collect();
    Word { calico, reasons: gate.reasons.into_iter().collect(), passed, excused, accepted }
}

fn environments(reports: &[Report]) -> impl Iterator<Item = &EnvironmentReport> {
    reports.iter().flat_map(|report| &report.environments)
}

struct Gate<'g> {
    policy: &'g Policy,
    knows: &'g Knowledge<'g>,
    reasons: BTreeSet<Reason>,
    /// Cases that were met, by their place: how each ended that shows what it should, for real.
    shown: BTreeMap<Place<'g>, Option<Outcome>>,
    /// Cases against which a reason is given already.
    named: BTreeSet<Place<'g>>,
    /// Accepted known issues that were met.
    met: BTreeSet<String>,
}

impl<'g> Gate<'g> {
    fn no(&mut self, weight: Weight, words: impl Into<String>) {
        self.reasons.insert(Reason { weight, words: words.into() });
    }

    fn report(&mut self, report: &'g Report) {
        let of = format!("the report of run {} on {}", report.run, report.stage);
        if report.schema != SCHEMA {
            self.no(Weight::Run, format!("{of} has schema {}, this gate reads {SCHEMA}", report.schema));
        }
        if report.catwalk != self.knows.catwalk {
            let words = format!("{of} is of Catwalk {}, this is {}", report.catwalk, self.knows.catwalk);
            self.no(Weight::Run, words);
        }
        if let Some(shard) = &report.shard {
            self.no(
                Weight::Run,
                format!("{of} is of part {} alone: `report merge` makes it whole", shard.part),
            );
        }
        if report.interrupted {
            self.no(Weight::Run, format!("{of} is of an interrupted run"));
        }
        if let Some(cni) = report.given.iter().find(|flag| flag.starts_with("--cni ")) {
            let words = format!("{of} is of a run with {cni}: calico-node did not connect the pods");
            self.no(Weight::NotShown, words);
        }
        for problem in report.problems.iter().chain(&report.left_behind) {
            self.no(Weight::Run, format!("{of} has a problem: {problem}"));
        }
        if report.cases.is_empty() {
            self.no(Weight::NotShown, format!("{of} has no case"));
        }
        if report.modelled {
            self.no(Weight::NotShown, format!("{of} is modelled: no Calico program ran"));
        } else if report.stage == "lab" {
            self.no(Weight::Contradicts, format!("{of} claims to be of real programs, and the lab has none"));
        }
        let mut ids = BTreeSet::new();
        for environment in &report.environments {
            self.environment(report, environment);
            if !ids.insert(&environment.id) {
                self.no(Weight::Contradicts, format!("{of} has environment {} twice", environment.id));
            }
        }
        for case in &report.cases {
            self.case(report, case);
        }
        for flaky in report.flaky() {
            self.no(Weight::Differs, format!("{flaky} (on {})", report.stage));
        }
    }

    fn environment(&mut self, report: &Report, environment: &EnvironmentReport) {
        let EnvironmentReport { id, about, .. } = environment;
        if *id != about.id() {
            self.no(
                Weight::Contradicts,
                format!("environment {id} says of itself that it is {}", about.id()),
            );
        }
        if about.stage != report.stage || about.modelled != report.modelled {
            let words = format!(
                "environment {id} is of {}{}, its report of {}{}",
                about.stage,
                modelled(about.modelled),
                report.stage,
                modelled(report.modelled)
            );
            self.no(Weight::Contradicts, words);
        }
        self.programs(environment);
        if let Some(problem) = &environment.problem {
            self.no(Weight::NotShown, format!("environment {id}: {problem}"));
        }
    }

    /// Whether what ran is what the report is of.
    fn programs(&mut self, environment: &EnvironmentReport) {
        let id = &environment.id;
        let images: Vec<(&str, &str)> = programs::images(environment).collect();
        if self.policy.pulled_images {
            for (image, digest) in &images {
                if digest.ends_with(BUILT_HERE) {
                    self.no(Weight::NotShown, format!("environment {id}: image {image} was built locally, and the policy wants it pulled"));
                } else if digest.ends_with(NOT_CONFIRMED) {
                    self.no(Weight::NotShown, format!("environment {id}: image {image} lay in the engine, its registry did not say that it is the same there, and the policy wants it pulled"));
                } else if !digest.contains("@sha256:") {
                    self.no(
                        Weight::NotShown,
                        format!("environment {id}: image {image} has no digest of a registry"),
                    );
                }
            }
            if !environment.about.modelled
                && environment.problem.is_none()
                && !images.iter().any(|(image, _)| parts(image).0 == "operator")
            {
                self.no(Weight::NotShown, format!("environment {id}: it is not known which operator ran"));
            }
        }
        for words in foreign_programs(environment, self.knows) {
            self.no(Weight::Contradicts, words);
        }
    }

    fn case(&mut self, report: &'g Report, case: &'g CaseReport) {
        let place = (report.stage.as_str(), case.id.as_str());
        let reasons = self.reasons.len();
        let well = self.is_well(report, case) && !report.modelled;
        let well = well.then_some(case.outcome);
        if self.shown.insert(place, well).is_some() {
            self.no(Weight::Contradicts, format!("{} on {} is there twice", case.id, report.stage));
        }
        if self.reasons.len() > reasons {
            self.named.insert(place);
        }
    }

    /// Whether a case shows what it should; where what it shows is worse than nothing, that is a reason.
    fn is_well(&mut self, report: &Report, case: &CaseReport) -> bool {
        let environment = report.environments.iter().find(|e| e.id == case.environment);
        let outcome = match again(&report.run, case, environment, self.knows) {
            Ok(outcome) => outcome,
            Err(words) => {
                self.no(Weight::Contradicts, format!("{}: {words}", case.id));
                return false;
            }
        };
        let found = case.finding.as_ref().map_or_else(String::new, |f| f.judgement.verdict.to_string());
        let reason = case.reason.as_deref().unwrap_or("no reason given");
        let on = format!("{} on {}: {}", case.id, report.stage, outcome.as_str());
        match outcome {
            Outcome::Passed => return true,
            // Only what is required must not be skipped.
            Outcome::Skipped => {}
            Outcome::Failed | Outcome::UnexpectedPass => {
                self.no(Weight::Differs, format!("{on}: {found}: {reason}"));
            }
            Outcome::Errored => self.no(Weight::NotShown, format!("{on}: {reason}")),
            Outcome::KnownIssue => {
                let accepted = case.known_issues.iter().filter(|issue| self.accepts(&issue.id, case, &found));
                return accepted.count() == case.known_issues.len();
            }
        }
        false
    }

    /// Whether a known issue that showed is accepted.
    fn accepts(&mut self, id: &str, case: &CaseReport, found: &str) -> bool {
        let words = match self.policy.accept.iter().find(|acceptance| acceptance.known_issue == id) {
            None => format!("{}: known issue {id} is not accepted by the policy: {found}", case.id),
            Some(acceptance) if acceptance.until < self.knows.today => {
                format!("{}: known issue {id} was accepted until {}: {found}", case.id, acceptance.until)
            }
            Some(_) => {
                self.met.insert(id.to_owned());
                return true;
            }
        };
        self.no(Weight::NotAccepted, words);
        false
    }

    /// Holds what is required against what was shown; how many required cases passed, and how many are excused.
    fn required(&mut self, reports: &'g [Report]) -> [usize; 2] {
        let [mut passed, mut excused] = [0, 0];
        for require in &self.policy.require {
            let named = |s: &&Scenario| require.scenarios.iter().any(|word| s.is_named(word));
            for scenario in self.knows.scenarios.iter().filter(named) {
                for (domain, dns) in require.places() {
                    let ids = ids(scenario, require, domain, dns, reports);
                    // Of a stage, every repetition counts.
                    let ends = |good: &[Outcome]| {
                        let is_good = |id: &String, on| matches!(self.shown.get(&(on, id.as_str())), Some(Some(end)) if good.contains(end));
                        ids.chunk_by(|a, b| a.0 == b.0)
                            .any(|of| of.iter().all(|(stage, id)| is_good(id, *stage)))
                    };
                    if ends(&[Outcome::Passed]) {
                        passed += 1;
                    } else if ends(&[Outcome::Passed, Outcome::KnownIssue]) {
                        excused += 1;
                    } else if !ids.iter().any(|(stage, id)| self.named.contains(&(*stage, id))) {
                        let how = how_ended(reports, &ids);
                        self.no(Weight::NotShown, require.not_shown(scenario, domain, dns, &how));
                    }
                }
            }
        }
        [passed, excused]
    }
}

/// Repetitions that are not there of what was repeated: one of them may be the one that failed.
pub(crate) fn missing_repetitions(reports: &[Report]) -> Vec<String> {
    let mut there: BTreeMap<(&str, String, usize), BTreeSet<usize>> = BTreeMap::new();
    for EnvironmentReport { about, .. } in environments(reports) {
        let Some(Repetition { index, of }) = about.repetition else { continue };
        there.entry((&about.stage, about.id_of_all(), of)).or_default().insert(index);
    }
    let missing = there.into_iter().filter_map(|((stage, id, of), there)| {
        let missing = (1..=of).find(|index| !there.contains(index))?;
        Some(format!("repetition {missing} of {of} of environment {id} on {stage} is not there"))
    });
    missing.collect()
}

/// The cases by which a requirement may be met: on which stage, and the id; sorted.
fn ids<'r>(
    scenario: &Scenario,
    require: &Requirement,
    domain: &ClusterDomain,
    dns: DnsProfile,
    reports: &'r [Report],
) -> Vec<(&'r str, String)> {
    let is_there = |about: &&About| {
        require.stages.contains(&about.stage)
            && (&about.domain, about.dns) == (domain, dns)
            && about.with == require.with
            && about.host_search.is_empty()
    };
    let there = environments(reports).map(|e| &e.about).filter(is_there);
    let mut ids: Vec<_> =
        there.map(|about| (about.stage.as_str(), crate::case::id(scenario, about))).collect();
    ids.sort();
    ids
}

/// How cases that show not enough ended.
fn how_ended(reports: &[Report], ids: &[(&str, String)]) -> String {
    let mut ends = BTreeSet::new();
    for (stage, id) in ids {
        let cases = reports.iter().filter(|r| r.stage == *stage).flat_map(|r| &r.cases);
        let found = cases.filter(|case| case.id == *id).map(|case| match (case.outcome, &case.reason) {
            (Outcome::Skipped, Some(reason)) => format!("skipped on {stage}: {reason}"),
            (outcome, _) => format!("{} on {stage}", outcome.as_str()),
        });
        ends.extend(found);
    }
    if ends.is_empty() { "it did not run".to_owned() } else { Vec::from_iter(ends).join("; ") }
}

fn modelled(modelled: bool) -> &'static str {
    if modelled { ", modelled" } else { "" }
}
