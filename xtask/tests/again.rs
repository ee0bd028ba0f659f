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
