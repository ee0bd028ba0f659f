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
    // Its own report would take the other's place.
    let dots = format!("{}/.", first.display());
    for folder in [first.to_str().unwrap(), &dots] {
        let words = ["--stage", "lab", "--rerun-failed", report.to_str().unwrap(), "--report", folder];
        let refused = e2e(&words);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("name another folder"), "{refused:?}");
    }
    assert_eq!(read(&first), edited);
    // What stood there was another, by flags that are not given again.
    edited["given"] = json!(["--kubernetes v1.31.0"]);
    std::fs::write(&report, serde_json::to_vec(&edited).unwrap()).unwrap();
    let refused = again(&["--stage", "lab"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(--kubernetes v1.31.0)"), "{refused:?}");
    edited["given"] = json!([]);
    std::fs::write(&report, serde_json::to_vec(&edited).unwrap()).unwrap();
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

/// A commit, or a switch of branches, while a run goes on changes nothing of what the run is.
#[cfg(unix)]
#[test]
fn a_commit_in_the_middle_of_a_run_does_not_make_its_gate_another_version_s() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (count, git) = (folder.path().join("count"), folder.path().join("git"));
    let script = format!(
        "#!/bin/sh\ncase $* in *--short*) echo x >> '{0}'; wc -l < '{0}' ;; esac\n",
        count.to_str().unwrap()
    );
    std::fs::write(&git, script).unwrap();
    std::fs::set_permissions(&git, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let xtask = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(words).env("PATH", &path).output().unwrap()
    };
    let policy = folder.path().join("policy.toml");
    let text = "[[require]]\nscenarios = [\"flow-is-delivered\"]\ndomains = [\"corp.internal\"]\n\
                dns = [\"strict\"]\nstages = [\"nodeless\"]\n";
    std::fs::write(&policy, text).unwrap();
    let (of, policy) = (folder.path().to_str().unwrap(), policy.to_str().unwrap());
    let lab = ["e2e", "--stage", "lab", "--calico", "v3.30.1", "--domain", "corp.internal"];
    let ran = xtask(&[&lab[..], &["--dns", "strict", "--gate", policy, "--report", of]].concat());
    let ran = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.contains("modelled"), "{ran}");
    assert!(!ran.contains("this is 0."), "{ran}");
    // The version did change under it: asked once more, the gate is another's.
    let report = folder.path().join("report.json");
    let word = xtask(&["report", "gate", "--policy", policy, report.to_str().unwrap()]);
    let word = format!("{}{}", String::from_utf8_lossy(&word.stdout), String::from_utf8_lossy(&word.stderr));
    assert!(word.contains("is of Catwalk 0.1.0 (") && word.contains("this is 0."), "{word}");
}
