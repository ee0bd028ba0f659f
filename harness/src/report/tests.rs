//! A report's exit codes and renderings.

use catwalk_fixtures::{ClusterDomain, DnsProfile};

use super::*;
use crate::environment::Repetition;
use crate::judge::Judgement;
use crate::verdict::Verdict;

/// A run of one case that ended so.
pub(crate) fn of(outcome: Outcome) -> Report {
    let about = About {
        calico: "v3.30.1".into(),
        domain: ClusterDomain::observed("corp.internal"),
        dns: DnsProfile::Strict,
        stage: "lab".into(),
        modelled: true,
        host_search: Vec::new(),
        repetition: None,
        with: vec![],
    };
    let verdict = match outcome {
        Outcome::Passed | Outcome::UnexpectedPass => Verdict::Delivered { after_ms: 12 },
        _ => Verdict::NameNotFound { name: "goldmane.x <&>".into() },
    };
    let judgement = Judgement { verdict, disagreement: None, further_defects: vec![] };
    Report {
        schema: SCHEMA,
        catwalk: "0.1.0".into(),
        run: "00000000".into(),
        command: "cargo xtask e2e --stage lab".into(),
        given: Vec::new(),
        started: "2026-11-24T00:00:00Z".into(),
        took_ms: 1234,
        stage: "lab".into(),
        modelled: true,
        not_covered: vec![],
        environments: vec![EnvironmentReport {
            id: about.id(),
            about,
            provenance: BTreeMap::new(),
            problem: None,
            took_ms: 1200,
            added_ms: 100,
            timings: vec![],
            not_gathered: vec![],
        }],
        cases: vec![CaseReport {
            id: "delivery/flow-is-delivered@v3.30.1-corp.internal-strict".into(),
            scenario: "delivery/flow-is-delivered".into(),
            environment: "v3.30.1-corp.internal-strict".into(),
            demands: Demand::Delivered,
            outcome,
            reason: Some("because".into()),
            known_issues: vec![],
            finding: Some(Finding { of: String::new(), judgement, sight: None, audit: None }),
            claims: None,
            took_ms: 50,
        }],
        left_behind: vec![],
        kept: vec![],
        problems: vec![],
        interrupted: false,
        shard: None,
        gate: None,
    }
}

#[test]
fn exit_codes() {
    let rows: &[(Outcome, &[u8])] = &[
        (Outcome::Passed, &[]),
        (Outcome::KnownIssue, &[]),
        (Outcome::Failed, &[1]),
        (Outcome::UnexpectedPass, &[1]),
        (Outcome::Errored, &[3]),
        (Outcome::Skipped, &[3]),
    ];
    for (outcome, exits) in rows {
        assert_eq!(of(*outcome).exits(), *exits, "{outcome:?}");
    }
    let mut all = of(Outcome::Failed);
    all.cases.extend(of(Outcome::Errored).cases);
    all.left_behind.push("a cluster".into());
    all.interrupted = true;
    assert_eq!(all.exits(), [130, 1, 3, 4]);
    let mut none = of(Outcome::Passed);
    none.cases.clear();
    assert_eq!(none.exits(), [3], "no case is no success");
}

/// The same case in so many repetitions, ended so.
fn repeated(outcomes: &[Outcome]) -> Report {
    let mut report = of(Outcome::Passed);
    report.environments.clear();
    report.cases.clear();
    for (index, outcome) in outcomes.iter().enumerate() {
        let mut one = of(*outcome);
        let environment = &mut one.environments[0];
        environment.about.repetition = Some(Repetition { index: index + 1, of: outcomes.len() });
        environment.id = environment.about.id();
        one.cases[0].environment = environment.id.clone();
        one.cases[0].id = format!("delivery/flow-is-delivered@{}", environment.id);
        report.environments.extend(one.environments);
        report.cases.extend(one.cases);
    }
    report
}

#[test]
fn a_case_whose_repetitions_end_differently_is_flaky_and_named() {
    use Outcome::{Errored, Failed, KnownIssue, Passed, Skipped};
    let rows: &[(&[Outcome], &str, &[u8])] = &[
        (&[Passed, Passed, Passed], "", &[]),
        (&[Failed, Failed], "", &[1]),
        (&[KnownIssue], "", &[]),
        (
            &[Passed, Failed, Passed],
            "passed (Delivered) in repetition 1, 3; failed (NameNotFound) in repetition 2",
            &[1],
        ),
        (
            &[Skipped, Passed],
            "passed (Delivered) in repetition 2; skipped (NameNotFound) in repetition 1",
            &[1],
        ),
        // It came to no verdict, which is another thing.
        (&[Passed, Errored], "", &[3]),
    ];
    for (outcomes, ends, exits) in rows {
        let report = repeated(outcomes);
        let flaky: Vec<String> = report.flaky().iter().map(ToString::to_string).collect();
        let expected: Vec<String> = (!ends.is_empty())
            .then(|| format!("delivery/flow-is-delivered@v3.30.1-corp.internal-strict is flaky: {ends}"))
            .into_iter()
            .collect();
        assert_eq!(flaky, expected, "{outcomes:?}");
        assert_eq!(report.exits(), *exits, "{outcomes:?}");
        for line in expected {
            assert!(terminal::render(&report, 200).contains(&line));
            assert!(summary::render(&report).contains("is flaky"));
            assert!(html::render(&report).unwrap().contains(&line));
            assert!(summary::annotations(&report).contains("title=flaky::"));
        }
    }
}

#[test]
fn what_is_written_reads_again_and_junit_says_what_is_no_pass() {
    let folder = tempfile::tempdir().unwrap();
    for (outcome, element) in [
        (Outcome::Failed, "<failure"),
        (Outcome::UnexpectedPass, "<failure"),
        (Outcome::Errored, "<error"),
        (Outcome::Skipped, "<skipped"),
        (Outcome::KnownIssue, "<skipped"),
    ] {
        of(outcome).write(folder.path()).unwrap();
        let read: Report =
            serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
        assert_eq!(read.cases[0].outcome, outcome);
        let junit = std::fs::read_to_string(folder.path().join("junit.xml")).unwrap();
        assert!(junit.contains(element), "{outcome:?}: {junit}");
    }
    of(Outcome::Passed).write(folder.path()).unwrap();
    let junit = std::fs::read_to_string(folder.path().join("junit.xml")).unwrap();
    assert!(
        junit.contains("tests=\"1\"") && !junit.contains("<failure") && !junit.contains("<skipped"),
        "{junit}"
    );
}

#[test]
fn a_modelled_report_says_so_in_the_terminal() {
    let mut report = of(Outcome::Passed);
    assert!(terminal::render(&report, 100).contains("modelled: no Calico program ran"));
    report.modelled = false;
    assert!(!terminal::render(&report, 100).contains("modelled"));
}
