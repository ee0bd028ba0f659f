//! Replays what real Calico showed through today's judgement.
//!
//! Each folder of `docs/evidence` is an environment on which real programs ran: the part of the report with everything
//! that was seen, Whisker's log, the rendered objects, and `checked.json`, the verdict that a person read in them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests end a test where they find what must not be"
)]

use std::path::{Path, PathBuf};

use catwalk_fixtures::ClusterDomain;
use catwalk_harness::audit::{ForeignName, names};
use catwalk_harness::case::{KnownIssues, Outcome, outcome};
use catwalk_harness::judge::{audit, judge, words};
use catwalk_harness::report::Report;
use catwalk_harness::verdict::Verdict;
use serde_json::Value;

fn folders() -> Vec<PathBuf> {
    let evidence = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/evidence");
    let mut folders = Vec::new();
    for stage in ["kind", "nodeless"] {
        let entries = std::fs::read_dir(evidence.join(stage)).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    folders.sort();
    folders
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn today_s_judgement_gives_the_verdict_that_a_person_checked() {
    let issues = KnownIssues::new(catwalk_fixtures::KnownIssue::table().unwrap()).unwrap();
    let folders = folders();
    assert!(folders.len() >= 12, "evidence is missing: {folders:?}");
    for folder in folders {
        let checked: Verdict = json(&folder.join("checked.json"));
        let report: Report = json(&folder.join("report.json"));
        assert!(!report.modelled, "{}: stand-ins are no evidence", folder.display());
        assert_eq!(report.environments.len(), 1, "{}", folder.display());
        let about = &report.environments[0].about;
        assert_eq!(folder.file_name().unwrap().to_str().unwrap(), about.id());
        let mut judged = 0;
        for case in &report.cases {
            let Some(finding) = &case.finding else { continue };
            let judgement = match (&finding.sight, &finding.audit) {
                (Some(sight), _) => {
                    let judgement = judge(sight);
                    assert!(checked.same_finding(&judgement.verdict), "{}: {judgement:?}", case.id);
                    judged += 1;
                    judgement
                }
                (None, Some(audit)) => audit::judge(audit),
                (None, None) => continue,
            };
            let known = issues.affecting(&case.scenario, about);
            let (outcome, reason) = outcome(&case.demands, &judgement, &known);
            assert!(matches!(outcome, Outcome::Passed | Outcome::KnownIssue), "{}: {reason:?}", case.id);
        }
        // Without a node there is no traffic of nodes.
        let expected = if about.stage == "kind" { 4 } else { 3 };
        assert_eq!(judged, expected, "{}", folder.display());
    }
}

#[test]
fn whisker_s_whole_log_admits_the_checked_verdict() {
    for folder in folders() {
        let checked: Verdict = json(&folder.join("checked.json"));
        let log = std::fs::read_to_string(folder.join("whisker.log")).unwrap();
        match (words::admitted(log.lines()), &checked) {
            (None, Verdict::Delivered { .. }) => {}
            (Some(set), verdict) if set.contains(verdict) => {}
            (set, verdict) => panic!("{}: {set:?} does not admit {verdict}", folder.display()),
        }
    }
}

/// The one name of another domain that operator v1.38.0 rendered.
fn hard_coded() -> ForeignName {
    ForeignName {
        object: "Deployment calico-system/whisker".into(),
        field: "spec.template.spec.containers[whisker-backend].env[GOLDMANE_HOST]".into(),
        name: "goldmane.calico-system.svc.cluster.local".into(),
    }
}

#[test]
fn in_what_real_operators_rendered_the_audit_finds_what_a_person_found() {
    let mut audited = Vec::new();
    for folder in folders() {
        let report: Report = json(&folder.join("report.json"));
        let about = report.environments[0].about.clone();
        // What a person found in them by eye.
        let foreign: Vec<ForeignName> = json(&folder.join("foreign.json"));
        audited.push((about.calico, about.domain, json(&folder.join("objects.json")), foreign));
    }
    let rendered = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/rendered");
    for version in ["v3.30.0", "v3.30.1", "v3.32.1"] {
        let recorded: Value = json(&rendered.join(format!("{version}.json")));
        let domain = ClusterDomain::observed(recorded["cluster_domain"].as_str().unwrap());
        let foreign = if version == "v3.30.0" { vec![hard_coded()] } else { vec![] };
        audited.push((version.to_owned(), domain, recorded["items"].as_array().unwrap().clone(), foreign));
    }
    assert!(audited.len() >= 7);
    for (calico, domain, objects, expected) in audited {
        let named = names(&objects, &domain);
        assert_eq!(Vec::from_iter(named.foreign), expected, "{calico} under {domain}");
        let guardian = domain.service("guardian", "calico-system");
        assert!(named.full.contains_key(&guardian), "{calico} under {domain}: {:?}", named.full);
        // The same objects in another cluster would name a foreign domain all over.
        let elsewhere = names(&objects, &ClusterDomain::observed("else.where")).foreign;
        assert!(elsewhere.iter().any(|foreign| foreign.name == guardian), "{calico}: {elsewhere:?}");
    }
}

#[test]
fn evidence_holds_no_secret() {
    for folder in folders() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["PRIVATE KEY", "client-key-data", "eyJhbGciOi"] {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
        let objects: Vec<Value> = json(&folder.join("objects.json"));
        assert!(objects.iter().all(|object| object["kind"] != "Secret"), "{}", folder.display());
        assert!(objects.iter().any(|object| object["metadata"]["name"] == "whisker"), "{}", folder.display());
    }
}
