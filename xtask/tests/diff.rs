//! What real operators v1.38.0 and v1.38.1 showed, compared.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn evidence(id: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/evidence/nodeless/{id}/report.json"))
}

fn diff(first: &str, second: &str) -> (Option<i32>, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["report", "diff"])
        .args([evidence(first), evidence(second)])
        .output()
        .unwrap();
    (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
}

#[test]
fn the_fix_of_10396_shows_in_verdicts_and_in_the_one_name() {
    let (code, said) = diff("v3.30.0-corp.internal-strict", "v3.30.1-corp.internal-strict");
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "verdict: delivery/flow-is-delivered@corp.internal-strict on nodeless: known issue, NameNotFound: \
         goldmane.calico-system.svc.cluster.local -> passed, Delivered after",
        "rendered: audit/no-foreign-domain@corp.internal-strict on nodeless: - goldmane.calico-system.svc.cluster.local in \
         Deployment calico-system/whisker, spec.template.spec.containers[whisker-backend].env[GOLDMANE_HOST]\n",
        "rendered: audit/full-names-are-served@corp.internal-strict on nodeless: + \
         goldmane.calico-system.svc.corp.internal in Deployment calico-system/whisker\n",
    ] {
        assert!(said.contains(line), "not {line:?} in: {said}");
    }
    assert!(!said.contains("coverage:"), "{said}");
}

#[test]
fn a_report_does_not_differ_from_itself_and_another_domain_is_other_coverage() {
    let good = "v3.30.1-corp.internal-strict";
    let same = "no difference in verdicts, rendered names and coverage\n";
    assert_eq!(diff(good, good), (Some(0), same.to_owned()));
    let (code, said) = diff(good, "v3.30.1-corp.internal-dual");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(
            "coverage: delivery/stream-opens@corp.internal-dual on nodeless: only in the second (passed)"
        ),
        "{said}"
    );
    assert!(
        said.contains(
            "coverage: delivery/stream-opens@corp.internal-strict on nodeless: only in the first (passed)"
        ),
        "{said}"
    );
}
