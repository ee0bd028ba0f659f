//! The gate on reports of real programs: as they are it says yes, and after each of many edits no, for a reason that
//! names the edit.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests end a test where they find what must not be"
)]

mod conformance;
mod edits;
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const GOOD: &str = "v3.30.1-corp.internal-strict";
const KNOWN: &str = "v3.30.0-corp.internal-strict";
const POLICY: &str = r#"
[[require]]
scenarios = ["audit", "delivery/flow-is-delivered"]
domains = ["corp.internal"]
dns = ["strict"]
stages = ["nodeless", "kind"]
"#;
const ACCEPT: &str = r#"
[[accept]]
known_issue = "calico-10396"
until = "2999-12-31"
why = "this is its evidence"
"#;

fn xtask(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(words).output().unwrap()
}

/// A report of real programs, as if this version had written it.
fn evidence(id: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/evidence/nodeless/{id}/report.json"));
    let mut report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let version = String::from_utf8(xtask(&["--version"]).stdout).unwrap();
    report["catwalk"] = json!(version.trim().trim_start_matches("xtask "));
    report["schema"] = json!(2);
    // It was written when an environment's provenance had every image of its run, also those of the other release.
    let others = if id.starts_with("v3.30.1") { ["v3.30.0", "v1.38.0"] } else { ["v3.30.1", "v1.38.1"] };
    let provenance = report["environments"][0]["provenance"].as_object_mut().unwrap();
    provenance.retain(|name, _| !others.iter().any(|other| name.ends_with(other)));
    let run = report["run"].as_str().unwrap().to_owned();
    for case in report["cases"].as_array_mut().unwrap() {
        let id = case["id"].as_str().unwrap().to_owned();
        if case["finding"].is_object() {
            case["finding"]["of"] = json!(format!("{run}/{id}"));
        }
    }
    report
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The gate's exit code, and all that it says.
    fn gate(&self, policy: &str, reports: &[&[u8]]) -> (i32, String) {
        let policy = self.write("policy.toml", policy.as_bytes());
        let mut words =
            vec!["report".to_owned(), "gate".to_owned(), "--policy".to_owned(), policy.display().to_string()];
        for (index, report) in reports.iter().enumerate() {
            words.push(self.write(&format!("report-{index}.json"), report).display().to_string());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Output { status, stdout, stderr } = xtask(&words);
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }
}

fn bytes(report: &Value) -> Vec<u8> {
    serde_json::to_vec(report).unwrap()
}

/// The case of a scenario.
fn case<'r>(report: &'r mut Value, scenario: &str) -> &'r mut Value {
    let cases = report["cases"].as_array_mut().unwrap();
    cases.iter_mut().find(|case| case["scenario"] == scenario).unwrap_or_else(|| panic!("no {scenario}"))
}

const FLOW: &str = "delivery/flow-is-delivered";

#[test]
fn of_real_evidence_the_gate_says_yes() {
    let files = Files::new();
    let (code, said) = files.gate(POLICY, &[&bytes(&evidence(GOOD))]);
    assert_eq!((code, said.as_str()), (0, "gate: yes for v3.30.1: 3 required cases passed for real\n"));
    let (code, said) = files.gate(&format!("{POLICY}{ACCEPT}"), &[&bytes(&evidence(KNOWN))]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(
            "gate: yes for v3.30.0: 1 required cases passed for real, 2 are excused by a known issue"
        ),
        "{said}"
    );
    assert!(said.contains("accepted calico-10396 until 2999-12-31: this is its evidence"), "{said}");
}

/// The same environment and cases so many times, as `--repeat` has them.
fn repeat(report: &mut Value, times: usize) {
    let (environment, cases) =
        (report["environments"][0].clone(), report["cases"].as_array().unwrap().clone());
    let (run, id) =
        (report["run"].as_str().unwrap().to_owned(), environment["id"].as_str().unwrap().to_owned());
    report["environments"] = json!([]);
    report["cases"] = json!([]);
    for index in 1..=times {
        let of_this = format!("{id}~{index}");
        let mut environment = environment.clone();
        environment["about"]["repetition"] = json!({"index": index, "of": times});
        environment["id"] = json!(of_this);
        report["environments"].as_array_mut().unwrap().push(environment);
        for case in &cases {
            let mut case = case.clone();
            let case_id = format!("{}@{of_this}", case["scenario"].as_str().unwrap());
            case["environment"] = json!(of_this);
            if case["finding"].is_object() {
                case["finding"]["of"] = json!(format!("{run}/{case_id}"));
            }
            case["id"] = json!(case_id);
            report["cases"].as_array_mut().unwrap().push(case);
        }
    }
}

#[test]
fn of_what_was_repeated_every_repetition_counts() {
    let files = Files::new();
    let mut good = evidence(GOOD);
    repeat(&mut good, 3);
    let (code, said) = files.gate(POLICY, &[&bytes(&good)]);
    assert_eq!((code, said.as_str()), (0, "gate: yes for v3.30.1: 3 required cases passed for real\n"));

    let last = |report: &mut Value| {
        let cases = report["cases"].as_array_mut().unwrap();
        cases.iter().rposition(|case| case["scenario"] == FLOW).unwrap()
    };
    let mut flaky = good.clone();
    let at = last(&mut flaky);
    let case = &mut flaky["cases"][at];
    case["finding"]["sight"]["whisker"] = json!({"not_there": "nobody"});
    case["finding"]["judgement"]["verdict"] = json!({"verdict": "WhiskerNotRunning", "reason": "nobody"});
    case["outcome"] = json!("failed");
    let (code, said) = files.gate(POLICY, &[&bytes(&flaky)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("strict~3 on nodeless: failed: WhiskerNotRunning: nobody"), "{said}");
    assert!(
        said.contains(
            "flow-is-delivered@v3.30.1-corp.internal-strict is flaky: passed (Delivered) in repetition 1, 2; failed \
             (WhiskerNotRunning) in repetition 3 (on nodeless)"
        ),
        "{said}"
    );

    let mut skipped = good.clone();
    let at = last(&mut skipped);
    skipped["cases"][at]["outcome"] = json!("skipped");
    skipped["cases"][at]["finding"] = Value::Null;
    let (code, said) = files.gate(POLICY, &[&bytes(&skipped)]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("was not shown for real on nodeless or kind: passed on nodeless; skipped on nodeless"),
        "{said}"
    );

    let mut missing = good.clone();
    let keep = |name: &'static str| move |of: &Value| !of[name].as_str().unwrap().ends_with("~2");
    missing["environments"].as_array_mut().unwrap().retain(keep("id"));
    missing["cases"].as_array_mut().unwrap().retain(keep("environment"));
    let (code, said) = files.gate(POLICY, &[&bytes(&missing)]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(
            "repetition 2 of 3 of environment v3.30.1-corp.internal-strict on nodeless is not there"
        ),
        "{said}"
    );
}

#[test]
fn no_edited_file_passes() {
    let files = Files::new();
    let good = bytes(&evidence(GOOD));
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        let (code, said) = files.gate(POLICY, &[&good[..length]]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("is no whole report"), "{said}");
    }
    let (code, said) = files.gate(POLICY, &[&good, &good]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is there twice"), "{said}");
    let (code, said) = files.gate(&format!("{POLICY}{ACCEPT}"), &[&good, &bytes(&evidence(KNOWN))]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("several Calico versions, v3.30.0, v3.30.1: a gate is for one"), "{said}");
}

#[test]
fn what_is_accepted_is_accepted_until_its_day_and_no_other_way() {
    let files = Files::new();
    let known = bytes(&evidence(KNOWN));
    let expired = ACCEPT.replace("2999-12-31", "2026-01-31");
    let rows = [
        (
            "",
            "known issue calico-10396 is not accepted by the policy: NameNotFound: goldmane.calico-system.svc.cluster.local",
        ),
        (&expired, "known issue calico-10396 was accepted until 2026-01-31"),
    ];
    for (accept, expected) in rows {
        let (code, said) = files.gate(&format!("{POLICY}{accept}"), &[&known]);
        assert_eq!(code, 1, "{said}");
        assert!(said.lines().next().unwrap().contains("known issue"), "the weightiest comes first: {said}");
        assert!(said.contains(expected), "{said}");
    }
    // A known issue that nobody saw.
    let mut unseen = evidence(KNOWN);
    case(&mut unseen, FLOW)["finding"]["sight"] = Value::Null;
    let (code, said) = files.gate(&format!("{POLICY}{ACCEPT}"), &[&bytes(&unseen)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("known issue, and nothing was seen"), "{said}");
    // Images of which nobody knows where they came from.
    let mut unknown = evidence(GOOD);
    unknown["environments"][0]["provenance"] = json!({});
    let (code, said) = files.gate(&format!("pulled_images = true\n{POLICY}"), &[&bytes(&unknown)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("it is not known which operator ran"), "{said}");
    unknown["environments"][0]["provenance"] =
        json!({"image quay.io/tigera/operator:v1.38.1": "sha256:0 ( locally )"});
    let (_, said) = files.gate(&format!("pulled_images = true\n{POLICY}"), &[&bytes(&unknown)]);
    assert!(said.contains("operator:v1.38.1 has no digest of a registry"), "{said}");
    // A known issue that is gone, and its data not changed.
    let mut gone = evidence(GOOD);
    let mut issue = evidence(KNOWN);
    let issues = case(&mut issue, FLOW)["known_issues"].clone();
    let text = serde_json::to_string(&gone).unwrap().replace("v3.30.1", "v3.30.0");
    gone = serde_json::from_str(&text).unwrap();
    let flow = case(&mut gone, FLOW);
    flow["known_issues"] = issues;
    flow["outcome"] = json!("unexpected-pass");
    let (code, said) = files.gate(&format!("{POLICY}{ACCEPT}"), &[&bytes(&gone)]);
    assert_eq!(code, 1, "{said}");
    assert!(said.lines().next().unwrap().contains("unexpected pass: Delivered"), "{said}");
}

#[test]
fn a_policy_that_cannot_be_held_is_refused() {
    let files = Files::new();
    let good = bytes(&evidence(GOOD));
    let rows = [
        ("", 2, "missing field `require`"),
        ("require = []", 2, "would let everything through"),
        (&POLICY.replace("[\"corp.internal\"]", "[]"), 2, "requirement 1 has no domains"),
        (&POLICY.replace("\"kind\"", "\"lab\""), 2, "on lab nothing real is shown"),
        (&POLICY.replace("corp.internal", "-corp"), 2, "-corp"),
        (&POLICY.replace("strict", "strickt"), 2, "strickt"),
        (&POLICY.replace("domains", "domain"), 2, "unknown field `domain`"),
        (&POLICY.replace("audit", "awdit"), 1, "the policy requires awdit, and there is no such scenario"),
        (
            &format!("{POLICY}{}", ACCEPT.replace("calico-10396", "calico-1")),
            1,
            "the policy accepts calico-1, and no known issue has that id",
        ),
        (&format!("{POLICY}{}", ACCEPT.replace("2999-12-31", "soon")), 2, "is no day like"),
        (&format!("{POLICY}{}", ACCEPT.replace("this is its evidence", " ")), 2, "does not say why"),
        (
            &POLICY.replace("corp.internal", "k8s.example.org"),
            1,
            "under k8s.example.org (strict) was not shown for real",
        ),
        (&format!("{POLICY}with = [\"gatewayapi\"]\n"), 1, "with gatewayapi was not shown"),
        (
            &POLICY.replace("[\"nodeless\", \"kind\"]", "[\"kind\"]"),
            1,
            "was not shown for real on kind: it did not run",
        ),
    ];
    for (policy, exit, expected) in rows {
        let (code, said) = files.gate(policy, &[&good]);
        assert_eq!(code, exit, "{policy}: {said}");
        assert!(said.contains(expected), "{policy}: {said}");
    }
}

#[test]
fn an_acceptance_holds_on_its_last_day() {
    let files = Files::new();
    let known = bytes(&evidence(KNOWN));
    let today = || time::OffsetDateTime::now_utc().date();
    // Midnight may come in between.
    let (code, said) = loop {
        let day = today();
        let accept = ACCEPT.replace("2999-12-31", &day.to_string());
        let answer = files.gate(&format!("{POLICY}{accept}"), &[&known]);
        if day == today() {
            break answer;
        }
    };
    assert_eq!(code, 0, "{said}");
}

#[test]
fn of_a_required_case_that_failed_the_failure_is_the_reason_and_no_second_one() {
    let files = Files::new();
    let (code, said) = files.gate(POLICY, &[&bytes(&evidence(KNOWN))]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is not accepted by the policy") && !said.contains("was not shown"), "{said}");
}
