//! The gate: holds reports against a policy, and says no wherever it cannot say yes.
//!
//! It believes no outcome that a report states. Every one is worked out again from what was seen, from the scenario's
//! own demand and from the known issues as data; what does not come out the same is a reason of its own. What it
//! cannot know is who wrote a report: keep reports where only CI can write.

mod case;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

use catwalk_fixtures::KnownIssue;
use serde::{Deserialize, Serialize};
use time::Date;

use crate::case::{KnownIssues, Outcome};
use crate::report::{CaseReport, EnvironmentReport, Report, SCHEMA};
use crate::scenario::Scenario;

pub use policy::{Acceptance, BadPolicy, Policy, Requirement};

/// Why the gate says no, the weightiest kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    pub issues: &'k [KnownIssue],
    /// The same, parsed.
    pub known: &'k KnownIssues,
    /// Catwalk's version, as reports have it.
    pub catwalk: &'k str,
    /// Today, UTC.
    pub today: Date,
}

/// What the gate says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Word {
    /// The Calico version that the reports are of.
    pub calico: String,
    /// Why not; none where it says yes.
    pub reasons: Vec<Reason>,
    /// Required cases that passed for real.
    pub shown: usize,
    /// Known issues that were met and accepted: id, until when, why.
    pub accepted: Vec<String>,
}

impl Word {
    /// Whether the gate says yes.
    pub fn yes(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Where a case is: on which stage, and its id.
type Place<'r> = (&'r str, &'r str);

/// Holds the reports against the policy.
pub fn hold(policy: &Policy, reports: &[Report], knows: &Knowledge<'_>) -> Word {
    let mut gate =
        Gate { policy, knows, reasons: BTreeSet::new(), passed: BTreeMap::new(), met: BTreeSet::new() };
    gate.policy_holds();
    for report in reports {
        gate.report(report);
    }
    let versions: BTreeSet<&str> = environments(reports).map(|e| e.about.calico.as_str()).collect();
    let calico = Vec::from_iter(versions).join(", ");
    if calico.contains(", ") {
        gate.no(
            Weight::Run,
            format!("the reports are of several Calico versions, {calico}: a gate is for one"),
        );
    }
    let shown = gate.required(reports);
    let accepted = gate.met.iter().filter_map(|id| policy.accept.iter().find(|a| a.known_issue == *id));
    let accepted = accepted.map(|a| format!("{} until {}: {}", a.known_issue, a.until, a.why)).collect();
    Word { calico, reasons: gate.reasons.into_iter().collect(), shown, accepted }
}

fn environments(reports: &[Report]) -> impl Iterator<Item = &EnvironmentReport> {
    reports.iter().flat_map(|report| &report.environments)
}

struct Gate<'g> {
    policy: &'g Policy,
    knows: &'g Knowledge<'g>,
    reasons: BTreeSet<Reason>,
    /// Cases that were met, by their place: whether each passed for real.
    passed: BTreeMap<Place<'g>, bool>,
    /// Accepted known issues that were met.
    met: BTreeSet<String>,
}

impl<'g> Gate<'g> {
    fn no(&mut self, weight: Weight, words: impl Into<String>) {
        self.reasons.insert(Reason { weight, words: words.into() });
    }

    fn policy_holds(&mut self) {
        for wanted in self.policy.require.iter().flat_map(|require| &require.scenarios) {
            if self.scenarios(wanted).next().is_none() {
                self.no(
                    Weight::Policy,
                    format!("the policy requires {wanted}, and there is no such scenario"),
                );
            }
        }
        for acceptance in &self.policy.accept {
            if !self.knows.issues.iter().any(|issue| issue.id == acceptance.known_issue) {
                let words =
                    format!("the policy accepts {}, and no known issue has that id", acceptance.known_issue);
                self.no(Weight::Policy, words);
            }
        }
    }

    /// The scenarios that a word of the policy names.
    fn scenarios(&self, wanted: &'g str) -> impl Iterator<Item = &'g Scenario> + use<'g> {
        self.knows.scenarios.iter().filter(move |s| s.is_named(wanted))
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
        if report.interrupted {
            self.no(Weight::Run, format!("{of} is of an interrupted run"));
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
        if let Some(problem) = &environment.problem {
            self.no(Weight::NotShown, format!("environment {id}: {problem}"));
        }
    }

    fn case(&mut self, report: &'g Report, case: &'g CaseReport) {
        let environment = report.environments.iter().find(|e| e.id == case.environment);
        let outcome = match case::again(case, environment, self.knows) {
            Ok(outcome) => outcome,
            Err(words) => {
                self.no(Weight::Contradicts, format!("{}: {words}", case.id));
                return;
            }
        };
        let place = (report.stage.as_str(), case.id.as_str());
        let passed = outcome == Outcome::Passed && !report.modelled;
        if self.passed.insert(place, passed).is_some() {
            self.no(Weight::Contradicts, format!("{} on {} is there twice", case.id, report.stage));
        }
        let found = case.finding.as_ref().map_or_else(String::new, |f| f.judgement.verdict.to_string());
        let reason = case.reason.as_deref().unwrap_or("no reason given");
        match outcome {
            Outcome::Passed | Outcome::Skipped => {}
            Outcome::Failed | Outcome::UnexpectedPass => {
                let words =
                    format!("{} on {}: {}: {found}: {reason}", case.id, report.stage, outcome.as_str());
                self.no(Weight::Differs, words);
            }
            Outcome::Errored => self.no(Weight::NotShown, format!("{}: errored: {reason}", case.id)),
            Outcome::KnownIssue => {
                for issue in &case.known_issues {
                    self.known_issue(&issue.id, case, &found);
                }
            }
        }
    }

    fn known_issue(&mut self, id: &str, case: &CaseReport, found: &str) {
        let accepted = self.policy.accept.iter().find(|acceptance| acceptance.known_issue == id);
        match accepted {
            None => {
                let words = format!("{}: known issue {id} is not accepted by the policy: {found}", case.id);
                self.no(Weight::NotAccepted, words);
            }
            Some(acceptance) if acceptance.until < self.knows.today => {
                let until = acceptance.until;
                let words = format!("{}: known issue {id} was accepted until {until}: {found}", case.id);
                self.no(Weight::NotAccepted, words);
            }
            Some(_) => {
                self.met.insert(id.to_owned());
            }
        }
    }

    /// Holds what is required against what passed; how many required cases did.
    fn required(&mut self, reports: &'g [Report]) -> usize {
        let mut shown = 0;
        for require in &self.policy.require {
            for wanted in &require.scenarios {
                let scenarios: Vec<&Scenario> = self.scenarios(wanted).collect();
                for scenario in scenarios {
                    for (domain, dns) in require.places() {
                        let is_there = |e: &&EnvironmentReport| {
                            let about = &e.about;
                            require.stages.contains(&about.stage)
                                && (&about.domain, about.dns) == (domain, dns)
                                && about.with == require.with
                                && about.host_search.is_empty()
                        };
                        let there = environments(reports).filter(is_there);
                        let ids: Vec<(&str, String)> = there
                            .map(|e| (e.about.stage.as_str(), crate::case::id(scenario, &e.about)))
                            .collect();
                        let passed =
                            ids.iter().any(|(stage, id)| self.passed.get(&(*stage, id)) == Some(&true));
                        if passed {
                            shown += 1;
                        } else {
                            let words = require.not_shown(scenario, domain, dns, &self.how(reports, &ids));
                            self.no(Weight::NotShown, words);
                        }
                    }
                }
            }
        }
        shown
    }

    /// How required cases that did not pass ended.
    fn how(&self, reports: &[Report], ids: &[(&str, String)]) -> String {
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
}

fn modelled(modelled: bool) -> &'static str {
    if modelled { ", modelled" } else { "" }
}
