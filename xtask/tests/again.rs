//! Running again what was bad, and stopping at the first of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn e2e(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).arg("e2e").args(words).output().unwrap()
}

fn read(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn only_what_was_bad_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let lab =
        ["--stage", "lab", "--calico", "v3.30.1", "--domain", "corp.internal", "--domain", "cluster.local"];
    let ran = e2e(&[&lab[..], &["--report", first.to_str().unwrap()]].concat());
    assert!(ran.status.success(), "{ran:?}");
    let report = first.join("report.json");
    let again = |more: &[&str]| {
        let words = ["--rerun-failed", report.to_str().unwrap(), "--report", second.to_str().unwrap()];
        e2e(&[&words[..], more].concat())
    };
    let none = again(&["--stage", "lab"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("nothing to run again"), "{none:?}");

    let mut edited = read(&first);
    let bad = [("delivery/stream-opens", "failed"), ("audit/no-foreign-domain", "errored")];
    for case in edited["cases"].as_array_mut().unwrap() {
        if case["environment"] != "v3.30.1-corp.internal-strict" {
            continue;
        }
        if let Some((_, outcome)) = bad.iter().find(|(scenario, _)| case["scenario"] == *scenario) {
            case["outcome"] = json!(outcome);
        }
    }
    std::fs::write(&report, serde_json::to_vec(&edited).unwrap()).unwrap();
    let ran = again(&["--stage", "lab"]);
    assert!(ran.status.success(), "{ran:?}");
    let ids: Vec<Value> =
        read(&second)["cases"].as_array().unwrap().iter().map(|case| case["id"].clone()).collect();
    assert_eq!(
        ids,
        [
            "audit/no-foreign-domain@v3.30.1-corp.internal-strict",
            "delivery/stream-opens@v3.30.1-corp.internal-strict"
        ]
    );
    let other = again(&["--stage", "nodeless"]);
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("the report is of lab, with stand-ins"),
        "{other:?}"
    );
    assert_eq!(again(&["--stage", "lab", "--domain", "corp.internal"]).status.code(), Some(2));
}

/// Each repetition is a result of its own, with an id of its own.
#[test]
fn every_environment_runs_as_often_as_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().to_str().unwrap();
    let lab = [
        "--stage",
        "lab",
        "--calico",
        "v3.30.0",
        "--domain",
        "corp.internal",
        "--scenario",
        "flow-is-delivered",
    ];
    let ran = e2e(&[&lab[..], &["--repeat", "3", "--report", report]].concat());
    assert!(ran.status.success(), "{ran:?}");
    let read = read(folder.path());
    let ids: Vec<&Value> = read["cases"].as_array().unwrap().iter().map(|case| &case["id"]).collect();
    let id = |n: usize| json!(format!("delivery/flow-is-delivered@v3.30.0-corp.internal-strict~{n}"));
    assert_eq!(ids, [&id(1), &id(2), &id(3)]);
    assert_eq!(read["environments"][1]["about"]["repetition"], json!({"index": 2, "of": 3}));
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(!printed.contains("flaky") && printed.contains("3 known issue"), "{printed}");
    assert_eq!(e2e(&[&lab[..], &["--repeat", "0"]].concat()).status.code(), Some(2));

    // What was bad in several repetitions runs again once.
    let mut edited = read.clone();
    for case in edited["cases"].as_array_mut().unwrap() {
        if case["environment"] != "v3.30.0-corp.internal-strict~2" {
            case["outcome"] = json!("failed");
        }
    }
    let path = folder.path().join("edited.json");
    std::fs::write(&path, serde_json::to_vec(&edited).unwrap()).unwrap();
    let listed = e2e(&["--stage", "lab", "--list", "--rerun-failed", path.to_str().unwrap()]);
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        "delivery/flow-is-delivered@v3.30.0-corp.internal-strict\n"
    );
}
