//! `junit.xml`, as CI systems read it. A known issue is shown as skipped with its link: JUnit has no word for it, and
//! a pass it is not.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{CaseReport, Report};
use crate::case::Outcome;

/// Renders it: one suite per environment.
pub fn render(report: &Report) -> io::Result<String> {
    let label = if report.modelled { " (modelled: no Calico program ran)" } else { "" };
    let mut junit = quick_junit::Report::new(format!("catwalk {}{label}", report.stage));
    for environment in &report.environments {
        let mut suite = TestSuite::new(environment.id.clone());
        suite.set_time(Duration::from_millis(environment.took_ms));
        for (name, value) in &environment.provenance {
            suite.add_property((name.as_str(), value.as_str()));
        }
        for case in report.cases.iter().filter(|case| case.environment == environment.id) {
            let mut test = TestCase::new(case.id.clone(), status(case));
            test.set_classname(case.scenario.clone()).set_time(Duration::from_millis(case.took_ms));
            suite.add_test_case(test);
        }
        junit.add_test_suite(suite);
    }
    junit.to_string().map_err(io::Error::other)
}

fn status(case: &CaseReport) -> TestCaseStatus {
    let verdict = case.finding.as_ref().map(|f| f.judgement.verdict.to_string()).unwrap_or_default();
    let words = match &case.reason {
        Some(reason) if verdict.is_empty() => reason.clone(),
        Some(reason) => format!("{verdict}: {reason}"),
        None => verdict,
    };
    let mut status = match case.outcome {
        Outcome::Passed => return TestCaseStatus::success(),
        Outcome::KnownIssue | Outcome::Skipped => TestCaseStatus::skipped(),
        Outcome::Failed | Outcome::UnexpectedPass => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Outcome::Errored => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    status.set_message(format!("{}: {words}", case.outcome.as_str()));
    status
}
