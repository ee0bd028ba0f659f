//! A case's outcome, worked out again from what was seen.

use super::Knowledge;
use crate::audit::Audit;
use crate::case::{self, Outcome};
use crate::judge::{audit, judge};
use crate::report::{CaseReport, EnvironmentReport};

/// The outcome in a report of these runs, or in which way the case contradicts itself, its environment, or the data.
pub(crate) fn again(
    runs: &str,
    case: &CaseReport,
    environment: Option<&EnvironmentReport>,
    knows: &Knowledge<'_>,
) -> Result<Outcome, String> {
    let environment =
        environment.ok_or_else(|| format!("its environment {} is not in the report", case.environment))?;
    let about = &environment.about;
    let scenario = knows.scenarios.iter().find(|scenario| scenario.id == case.scenario);
    let scenario = scenario.ok_or_else(|| format!("there is no scenario {}", case.scenario))?;
    let id = case::id(scenario, about);
    if case.id != id {
        return Err(format!("by its scenario and environment it is {id}"));
    }
    if case.demands != scenario.demands {
        return Err(format!("it demands {:?}, its scenario {:?}", case.demands, scenario.demands));
    }
    let known = knows.issues.affecting(scenario.id, about);
    if case.known_issues != known {
        let ids = |issues: &[case::Affecting]| match issues {
            [] => "none".to_owned(),
            _ => issues.iter().map(|issue| issue.id.as_str()).collect::<Vec<_>>().join(", "),
        };
        let (named, data) = (ids(&case.known_issues), ids(&known));
        return Err(format!("the known issues that it names ({named}) are not those of the data ({data})"));
    }
    let Some(finding) = &case.finding else {
        // Nothing was seen, so nothing can have been shown.
        return match case.outcome {
            Outcome::Skipped | Outcome::Errored => Ok(case.outcome),
            outcome => Err(format!("{}, and nothing was found", outcome.as_str())),
        };
    };
    if !runs.split('+').any(|run| finding.of == case::finding_of(run, &id)) {
        return Err(format!("its finding is of {:?}", finding.of));
    }
    if let Some(Audit::Rendered { domain, .. }) = &finding.audit
        && *domain != about.domain
    {
        return Err(format!("what was audited is of {domain}"));
    }
    let judgement = match (&finding.sight, &finding.audit) {
        (Some(sight), None) => judge(sight),
        (None, Some(audit)) => audit::judge(audit),
        _ if matches!(case.outcome, Outcome::Passed | Outcome::KnownIssue) => {
            return Err(format!("{}, and nothing was seen", case.outcome.as_str()));
        }
        _ => finding.judgement.clone(),
    };
    if judgement != finding.judgement {
        let (said, seen) = (&finding.judgement.verdict, &judgement.verdict);
        return Err(format!("its verdict is {said}, and what was seen comes to {seen}"));
    }
    let (outcome, _) = case::outcome(&case.demands, &judgement, &known);
    if outcome != case.outcome {
        return Err(format!(
            "its outcome is {}, and its verdict comes to {}",
            case.outcome.as_str(),
            outcome.as_str()
        ));
    }
    Ok(outcome)
}
