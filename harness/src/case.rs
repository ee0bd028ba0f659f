//! Cases: scenario x domain x release x DNS profile, on a stage; and how a verdict becomes an outcome.

use catwalk_fixtures::KnownIssue;
use catwalk_fixtures::known;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::ForeignName;
use crate::environment::About;
use crate::judge::Judgement;
use crate::scenario::{Demand, Scenario};
use crate::verdict::{Verdict, join};

/// How a case ended. A skip is never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The demanded verdict.
    Passed,
    /// Another verdict, and exactly the one that the known issues give.
    KnownIssue,
    /// Another verdict.
    Failed,
    /// The demanded verdict where a known issue should have shown.
    UnexpectedPass,
    /// The environment cannot do what the scenario needs.
    Skipped,
    /// No verdict: the environment could not be had, or the looking broke.
    Errored,
}

impl Outcome {
    /// Whether it speaks against what was looked at, or against the looking.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::UnexpectedPass | Self::Errored)
    }

    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::KnownIssue => "known issue",
            Self::Failed => "failed",
            Self::UnexpectedPass => "unexpected pass",
            Self::Skipped => "skipped",
            Self::Errored => "errored",
        }
    }
}

/// The known issues that a run holds verdicts against: data, with each verdict template parsed once.
#[derive(Clone, Debug, Default)]
pub struct KnownIssues(Vec<KnownIssue>);

/// A known issue whose data do not read as a verdict.
#[derive(Debug, thiserror::Error)]
#[error("known issue {id}: its verdict for {scenarios} does not read as one: {source}")]
pub struct BadKnownIssue {
    id: String,
    scenarios: String,
    source: serde_json::Error,
}

/// A known issue that affects a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Affecting {
    /// Its id.
    pub id: String,
    /// Where it was reported.
    pub link: String,
    /// The first version without it; none while there is none.
    pub fixed_in: Option<String>,
    /// The verdict that it gives to this case.
    pub verdict: Verdict,
    /// Names of other domains that may come with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fleeting: Vec<ForeignName>,
}

impl Affecting {
    fn names(&self) -> &[ForeignName] {
        match &self.verdict {
            Verdict::NamesForeignDomain { names } => names,
            _ => &[],
        }
    }
}

impl KnownIssues {
    /// Takes the table if every verdict in it reads as one.
    pub fn new(table: Vec<KnownIssue>) -> Result<Self, BadKnownIssue> {
        for issue in &table {
            for face in &issue.faces {
                let bad = |source| BadKnownIssue {
                    id: issue.id.clone(),
                    scenarios: face.scenarios.join(", "),
                    source,
                };
                for template in face.verdicts.values().chain(&face.verdict) {
                    serde_json::from_value::<Verdict>(template.clone()).map_err(bad)?;
                }
                for template in &face.fleeting {
                    serde_json::from_value::<ForeignName>(template.clone()).map_err(bad)?;
                }
            }
        }
        Ok(Self(table))
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|issue| issue.id.as_str())
    }

    /// The issues that affect this case, in the table's order.
    pub fn affecting(&self, scenario: &str, about: &About) -> Vec<Affecting> {
        let case = known::Case {
            scenario,
            calico: &about.calico,
            domain: &about.domain,
            dns: about.dns,
            with: &about.with,
        };
        let affecting = self.0.iter().filter_map(|issue| {
            let shown = issue.shown(&case)?;
            let fleeting: Result<Vec<ForeignName>, _> =
                shown.fleeting.into_iter().map(serde_json::from_value).collect();
            Some(Affecting {
                id: issue.id.clone(),
                link: issue.link.clone(),
                fixed_in: issue.fixed_in.clone(),
                verdict: serde_json::from_value(shown.verdict).ok()?,
                fleeting: fleeting.ok()?,
            })
        });
        affecting.collect()
    }
}

/// A case's stable id: `delivery/flow-is-delivered@v3.30.1-corp.internal-strict`.
pub fn id(scenario: &Scenario, about: &About) -> String {
    format!("{}@{}", scenario.id, about.id())
}

/// What a finding is of: the run and the case.
pub fn finding_of(run: &str, id: &str) -> String {
    format!("{run}/{id}")
}

/// Holds a judgement against the demand, then against the known issues, and says why where it is not a pass.
pub fn outcome(demand: &Demand, judgement: &Judgement, known: &[Affecting]) -> (Outcome, Option<String>) {
    if let Some(disagreement) = &judgement.disagreement {
        return (Outcome::Failed, Some(format!("the witnesses disagree: {disagreement}")));
    }
    let verdict = &judgement.verdict;
    match (demand.is_met_by(verdict), known) {
        (true, []) => (Outcome::Passed, None),
        (true, _) => {
            let should = |issue: &Affecting| format!("{} should have shown as {}", issue.id, issue.verdict);
            (Outcome::UnexpectedPass, Some(not_shown(known.iter().map(should))))
        }
        (false, []) => (Outcome::Failed, Some(format!("demanded {demand:?}"))),
        (false, _) => against(verdict, known),
    }
}

/// Holds a verdict that is not the demanded one against the known issues. Names of other domains add up: what the
/// issues give together must be found, and nothing else.
fn against(verdict: &Verdict, known: &[Affecting]) -> (Outcome, Option<String>) {
    let add_up = known.iter().all(|issue| matches!(issue.verdict, Verdict::NamesForeignDomain { .. }));
    let Verdict::NamesForeignDomain { names } = verdict else { return whole(verdict, known) };
    if !add_up {
        return whole(verdict, known);
    }
    let mut missing = Vec::new();
    for issue in known {
        let lacks: Vec<&ForeignName> = issue.names().iter().filter(|name| !names.contains(name)).collect();
        if !lacks.is_empty() {
            missing.push(format!("{} did not show: {}", issue.id, join(&lacks)));
        }
    }
    let is_known =
        |name: &&ForeignName| known.iter().any(|i| i.names().contains(name) || i.fleeting.contains(name));
    let extra: Vec<&ForeignName> = names.iter().filter(|name| !is_known(name)).collect();
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => (Outcome::KnownIssue, Some(reasons(known))),
        (false, true) => (Outcome::UnexpectedPass, Some(not_shown(missing.into_iter()))),
        (_, false) => {
            missing.insert(0, format!("no known issue gives {}", join(&extra)));
            (Outcome::Failed, Some(missing.join("; ")))
        }
    }
}

/// Of other verdicts each issue gives the whole.
fn whole(verdict: &Verdict, known: &[Affecting]) -> (Outcome, Option<String>) {
    if known.iter().all(|issue| issue.verdict.same_finding(verdict)) {
        return (Outcome::KnownIssue, Some(reasons(known)));
    }
    let gives: Vec<String> =
        known.iter().map(|issue| format!("{} gives {}", issue.id, issue.verdict)).collect();
    (Outcome::Failed, Some(format!("{}, and this is another verdict", join(&gives))))
}

fn not_shown(words: impl Iterator<Item = String>) -> String {
    format!("{}; if it is fixed here, its data must say so", words.collect::<Vec<_>>().join("; "))
}

/// `calico-10396, fixed in v3.30.1: https://...`
fn reasons(known: &[Affecting]) -> String {
    let reasons: Vec<String> = known
        .iter()
        .map(|issue| match &issue.fixed_in {
            Some(version) => format!("{}, fixed in {version}: {}", issue.id, issue.link),
            None => format!("{}, not fixed: {}", issue.id, issue.link),
        })
        .collect();
    join(&reasons)
}

#[cfg(test)]
#[path = "case_tests.rs"]
mod tests;
