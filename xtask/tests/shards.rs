//! A run in parts, merged, is the run as a whole, times apart.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const RUN: [&str; 11] = [
    "e2e",
    "--stage",
    "lab",
    "--calico",
    "v3.30.0",
    "--calico",
    "v3.30.1",
    "--domain",
    "cluster.local",
    "--domain",
    "corp.internal",
];

fn xtask(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(words).output().unwrap()
}

fn run(folder: &Path, more: &[&str]) -> PathBuf {
    let dns = ["--dns", "strict", "--dns", "dual", "--report", folder.to_str().unwrap()];
    let ran = xtask(&[&RUN[..], &dns[..], more].concat());
    assert!(ran.status.success(), "{ran:?}");
    folder.join("report.json")
}

/// What does not differ between two runs.
fn lasting(report: &Path) -> Value {
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let environments = report["environments"].as_array().unwrap().iter();
    let environments: Vec<Value> = environments
        .map(|e| json!([e["id"], e["about"], e["provenance"], e["problem"], e["not_gathered"]]))
        .collect();
    let cases = report["cases"].as_array().unwrap().iter();
    let cases: Vec<Value> = cases
        .map(|c| {
            let verdict = &c["finding"]["judgement"]["verdict"]["verdict"];
            json!([
                c["id"],
                c["scenario"],
                c["environment"],
                c["demands"],
                c["outcome"],
                c["reason"],
                c["known_issues"],
                verdict
            ])
        })
        .collect();
    json!({
        "environments": environments, "cases": cases, "not_covered": report["not_covered"], "stage": report["stage"],
        "modelled": report["modelled"], "catwalk": report["catwalk"], "shard": report["shard"], "schema": report["schema"],
    })
}

#[test]
fn four_parts_merged_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = run(&folder.path().join("whole"), &[]);
    let parts: Vec<PathBuf> = (1..=4)
        .map(|index| {
            let part = format!("{index}/4");
            run(
                &folder.path().join(index.to_string()),
                &["--shard", &part, "--costs", whole.to_str().unwrap()],
            )
        })
        .collect();
    let into = folder.path().join("merged");
    let paths: Vec<&str> = parts.iter().map(|path| path.to_str().unwrap()).collect();
    let merged = xtask(&[&["report", "merge", "--into", into.to_str().unwrap()], &paths[..]].concat());
    assert!(merged.status.success(), "{merged:?}");
    let expected = lasting(&whole);
    // Two releases, two domains, two profiles, and every scenario.
    let cases = expected["cases"].as_array().unwrap().len();
    assert!(cases >= 48 && cases.is_multiple_of(8), "{cases}");
    assert_eq!(lasting(&into.join("report.json")), expected);
    assert!(into.join("junit.xml").is_file());

    // A part's own folder, however it is written, would lose the part.
    let folder = Path::new(paths[0]).parent().unwrap();
    let part = std::fs::read(paths[0]).unwrap();
    let dots = folder.join("../").join(folder.file_name().unwrap());
    for own in [folder, &dots] {
        let refused = xtask(&[&["report", "merge", "--into", own.to_str().unwrap()], &paths[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert_eq!(std::fs::read(paths[0]).unwrap(), part);
    }
    let missing = xtask(&[&["report", "merge", "--into", into.to_str().unwrap()], &paths[1..]].concat());
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("part 1/4 is missing"), "{missing:?}");
    assert!(!into.join("report.json").exists());
}

#[test]
fn a_matrix_has_a_row_for_each_part() {
    let matrix = |parts: &str| -> Value {
        let printed = xtask(&[&RUN[..], &["--list", "--output", "github", "--shards", parts]].concat());
        assert!(printed.status.success(), "{printed:?}");
        serde_json::from_slice(&printed.stdout).unwrap()
    };
    let rows = matrix("3");
    assert_eq!(rows["include"].as_array().unwrap().len(), 3);
    assert_eq!(rows["include"][2]["shard"], "3/3");
    let of_all = rows["include"].to_string();
    for id in ["v3.30.0-cluster.local-strict", "v3.30.1-corp.internal-strict"] {
        assert_eq!(of_all.matches(id).count(), 1, "{of_all}");
    }
    // No part without an environment.
    assert_eq!(matrix("9")["include"].as_array().unwrap().len(), 4);
    let empty = xtask(&[&RUN[..], &["--shard", "9/9", "--list"]].concat());
    assert_eq!(empty.status.code(), Some(2), "{empty:?}");
}
