//! Cases: scenario x domain x release x DNS profile, on a stage; and how a verdict becomes an outcome.

use catwalk_fixtures::KnownIssue;
use serde::{Deserialize, Serialize};

use crate::environment::About;
use crate::judge::Judgement;
use crate::scenario::{Demand, Scenario};
use crate::verdict::Verdict;

/// How a case ended. A skip is never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The demanded verdict.
    Passed,
    /// Another verdict, and exactly the one that a known issue gives.
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
#[error("known issue {id}: its verdict for {profile} does not read as one: {source}")]
pub struct BadKnownIssue {
    id: String,
    profile: String,
    source: serde_json::Error,
}

/// A known issue that affects a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affecting {
    /// Its id.
    pub id: String,
    /// Where it was reported.
    pub link: String,
    /// The first version without it.
    pub fixed_in: String,
    /// The verdict that it gives to this case.
    pub verdict: Verdict,
}

impl KnownIssues {
    /// Takes the table if every verdict in it reads as one.
    pub fn new(table: Vec<KnownIssue>) -> Result<Self, BadKnownIssue> {
        for issue in &table {
            for (profile, template) in &issue.verdicts {
                serde_json::from_value::<Verdict>(template.clone()).map_err(|source| BadKnownIssue {
                    id: issue.id.clone(),
                    profile: profile.to_string(),
                    source,
                })?;
            }
        }
        Ok(Self(table))
    }

    /// The issue that affects this case.
    pub fn affecting(&self, scenario: &str, about: &About) -> Option<Affecting> {
        self.0.iter().find_map(|issue| {
            let value = issue.verdict(scenario, &about.calico, &about.domain, about.dns)?;
            let verdict = serde_json::from_value(value).ok()?;
            Some(Affecting {
                id: issue.id.clone(),
                link: issue.link.clone(),
                fixed_in: issue.fixed_in.clone(),
                verdict,
            })
        })
    }
}

/// A case's stable id: `delivery/flow-is-delivered@v3.30.1-corp.internal-strict`.
pub fn id(scenario: &Scenario, about: &About) -> String {
    format!("{}@{}", scenario.id, about.id())
}

/// Holds a judgement against the demand, then against the known issue, and says why where it is not a pass.
pub fn outcome(
    demand: &Demand,
    judgement: &Judgement,
    known: Option<&Affecting>,
) -> (Outcome, Option<String>) {
    if let Some(disagreement) = &judgement.disagreement {
        return (Outcome::Failed, Some(format!("the witnesses disagree: {disagreement}")));
    }
    let verdict = &judgement.verdict;
    match (demand.is_met_by(verdict), known) {
        (true, None) => (Outcome::Passed, None),
        (true, Some(issue)) => {
            let words = format!(
                "{} should have shown as {}; if it is fixed here, its data must say so",
                issue.id, issue.verdict
            );
            (Outcome::UnexpectedPass, Some(words))
        }
        (false, Some(issue)) if issue.verdict.same_finding(verdict) => {
            (Outcome::KnownIssue, Some(format!("{}, fixed in {}: {}", issue.id, issue.fixed_in, issue.link)))
        }
        (false, Some(issue)) => (
            Outcome::Failed,
            Some(format!("{} gives {}, and this is another verdict", issue.id, issue.verdict)),
        ),
        (false, None) => (Outcome::Failed, Some(format!("demanded {demand:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use catwalk_fixtures::{ClusterDomain, DnsProfile};

    use super::*;

    fn judgement(verdict: Verdict) -> Judgement {
        Judgement { verdict, disagreement: None, further_defects: vec![] }
    }

    fn not_found(name: &str) -> Verdict {
        Verdict::NameNotFound { name: name.into() }
    }

    #[test]
    fn every_known_issue_reads_as_a_verdict() {
        KnownIssues::new(KnownIssue::table().unwrap()).unwrap();
    }

    #[test]
    fn only_the_exact_verdict_is_the_known_issue() {
        let issues = KnownIssues::new(KnownIssue::table().unwrap()).unwrap();
        let about = About {
            calico: "v3.30.0".into(),
            domain: ClusterDomain::observed("corp.internal"),
            dns: DnsProfile::Strict,
            stage: "lab".into(),
            modelled: true,
            with: vec![],
        };
        let known = issues.affecting("delivery/flow-is-delivered", &about).unwrap();
        let hold = |verdict| outcome(&Demand::Delivered, &judgement(verdict), Some(&known)).0;
        assert_eq!(hold(not_found("goldmane.calico-system.svc.cluster.local")), Outcome::KnownIssue);
        assert_eq!(hold(not_found("goldmane.calico-system.svc.other")), Outcome::Failed);
        assert_eq!(hold(Verdict::ConnectionRefused), Outcome::Failed);
        assert_eq!(hold(Verdict::Delivered { after_ms: 1 }), Outcome::UnexpectedPass);
        let about = About { calico: "v3.30.1".into(), ..about };
        assert_eq!(issues.affecting("delivery/flow-is-delivered", &about), None);
    }

    #[test]
    fn a_disagreement_fails_whatever_the_verdict() {
        let mut judgement = judgement(Verdict::Delivered { after_ms: 1 });
        assert_eq!(outcome(&Demand::Delivered, &judgement, None).0, Outcome::Passed);
        judgement.disagreement = Some("x".into());
        assert_eq!(outcome(&Demand::Delivered, &judgement, None).0, Outcome::Failed);
    }
}
