//! A statement of conformance claims what a real case showed, and nothing else.

use serde_json::{Value, json};

use super::{FLOW, Files, GOOD, KNOWN, bytes, case, evidence, repeat, xtask};

impl Files {
    /// `report conformance` of these reports: its exit code, and all that it says.
    pub(crate) fn conformance(&self, check: Option<&Value>, reports: &[&Value]) -> (i32, String) {
        let mut words = vec!["report".to_owned(), "conformance".to_owned()];
        if let Some(statement) = check {
            let path = self.write("conformance.json", &bytes(statement));
            words.extend(["--check".to_owned(), path.display().to_string()]);
        }
        for (index, report) in reports.iter().enumerate() {
            words.push(self.write(&format!("report-{index}.json"), &bytes(report)).display().to_string());
        }
        let ran = xtask(&words.iter().map(String::as_str).collect::<Vec<_>>());
        (ran.status.code().unwrap(), String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap())
    }

    pub(crate) fn state(&self, reports: &[&Value]) -> Value {
        let (code, said) = self.conformance(None, reports);
        assert_eq!(code, 0, "{said}");
        serde_json::from_str(&said).unwrap()
    }
}

#[test]
fn each_claim_names_the_real_case_that_shows_it() {
    let files = Files::new();
    let good = evidence(GOOD);
    let stated = files.state(&[&good]);
    assert_eq!((&stated["conformance"], &stated["calico"]), (&json!(1), &json!("v3.30.1")));
    let claims = stated["supports"].as_array().unwrap();
    let flow = claims.iter().find(|claim| claim["scenario"] == FLOW).unwrap();
    let run = good["run"].as_str().unwrap();
    assert_eq!(
        flow,
        &json!({
            "scenario": FLOW,
            "meaning": "Calico as released, in a cluster of this domain; when a flow is pushed to Goldmane and asked for at Whisker",
            "domain": "corp.internal", "dns": "strict", "with": [], "stage": "nodeless", "kubernetes": "v1.34.4",
            "shown_by": [format!("{run}/{FLOW}@v3.30.1-corp.internal-strict")],
        })
    );
    // One was skipped, and is claimed by nobody.
    assert_eq!(claims.len(), good["cases"].as_array().unwrap().len() - 1);
    assert!(stated["not_covered"].to_string().contains("kube-proxy"), "{stated}");
    assert!(stated["programs"]["image quay.io/tigera/operator:v1.38.1"].is_array(), "{stated}");
    let (code, said) = files.conformance(Some(&stated), &[&good]);
    assert_eq!(code, 0, "{said}");

    // What is known to be otherwise is said.
    let stated = files.state(&[&evidence(KNOWN)]);
    let does_not = stated["does_not"].to_string();
    assert!(
        does_not.contains("known issue: NameNotFound: goldmane.calico-system.svc.cluster.local"),
        "{does_not}"
    );
    assert!(!stated["supports"].to_string().contains(FLOW), "{stated}");
}

#[test]
fn a_claim_that_no_real_case_shows_is_refused() {
    let files = Files::new();
    let good = evidence(GOOD);
    let stated = files.state(&[&good]);
    type Edit = fn(&mut Value);
    let rows: &[(Edit, &str)] = &[
        (
            |s| s["supports"][0]["domain"] = json!("other.domain"),
            "no real case that passed shows its claim of audit/full-names-are-served under other.domain",
        ),
        (
            |s| {
                let mut more = s["supports"][0].clone();
                more["dns"] = json!("dual");
                s["supports"].as_array_mut().unwrap().push(more);
            },
            "under corp.internal (dual)",
        ),
        (|s| s["supports"][0]["shown_by"] = json!(["run/case"]), "no real case that passed shows its claim"),
        (|s| s["supports"][0]["kubernetes"] = json!("v1.99.0"), "no real case that passed shows its claim"),
        (|s| s["not_covered"] = json!([]), "it leaves out what is not covered: "),
        (|s| s["calico"] = json!("v3.30.2"), "are not those of the reports"),
        (|s| s["programs"] = json!({}), "are not those of the reports"),
        (|s| s["conformance"] = json!(2), "is of version 2, and this reads 1"),
        (|s| s["extra"] = json!(1), "is no statement"),
    ];
    for (edit, expected) in rows {
        let mut edited = stated.clone();
        edit(&mut edited);
        let (code, said) = files.conformance(Some(&edited), &[&good]);
        assert!(code == 1 || code == 2, "{expected}: {code}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // To claim less, and to admit more, is no lie.
    let mut modest = stated.clone();
    modest["supports"].as_array_mut().unwrap().pop();
    modest["does_not"].as_array_mut().unwrap().push(json!("something"));
    modest["not_covered"].as_array_mut().unwrap().push(json!("something else"));
    let (code, said) = files.conformance(Some(&modest), &[&good]);
    assert_eq!(code, 0, "{said}");
    // A statement that leaves out what was found otherwise.
    let known = evidence(KNOWN);
    let mut edited = files.state(&[&known]);
    edited["does_not"] = json!([]);
    let (code, said) = files.conformance(Some(&edited), &[&known]);
    assert_eq!(code, 1);
    assert!(said.contains("it leaves out: audit/no-foreign-domain@v3.30.0-corp.internal-strict"), "{said}");
}

#[test]
fn of_reports_that_show_nothing_nothing_is_stated() {
    let files = Files::new();
    type Edit = fn(&mut Value);
    let rows: &[(Edit, &str)] = &[
        (
            |r| {
                r["modelled"] = json!(true);
                r["environments"][0]["about"]["modelled"] = json!(true);
            },
            "is modelled: no Calico program ran",
        ),
        // Each of what says so is enough.
        (|r| r["modelled"] = json!(true), "is modelled"),
        (|r| r["stage"] = json!("lab"), "is modelled"),
        (|r| r["environments"][0]["about"]["modelled"] = json!(true), "is modelled"),
        (|r| r["interrupted"] = json!(true), "is of an interrupted run"),
        (|r| r["catwalk"] = json!("0.0.9"), "is of Catwalk 0.0.9"),
        (|r| r["shard"] = json!({"index": 1, "of": 2, "cases": 12, "whole": "0f"}), "is of a part alone"),
        (|r| r["cases"] = json!([]), "no case passed"),
        (
            |r| r["environments"] = json!([]),
            "its environment v3.30.1-corp.internal-strict is not in the report",
        ),
        (|r| case(r, FLOW)["finding"]["sight"] = Value::Null, "passed, and nothing was seen"),
        (
            |r| {
                let text = r["environments"][0]["provenance"].to_string();
                let other = text.replace("operator:v1.38.1", "operator:v1.38.0");
                r["environments"][0]["provenance"] = serde_json::from_str(&other).unwrap();
            },
            "operator:v1.38.0 ran, and v3.30.1 has quay.io/tigera/operator:v1.38.1",
        ),
        (
            |r| {
                repeat(r, 2);
                r["environments"].as_array_mut().unwrap().pop();
                r["cases"].as_array_mut().unwrap().retain(|c| !c["id"].as_str().unwrap().ends_with("~2"));
            },
            "repetition 2 of 2 of environment v3.30.1-corp.internal-strict on nodeless is not there",
        ),
    ];
    for (edit, expected) in rows {
        let mut report = evidence(GOOD);
        edit(&mut report);
        let (code, said) = files.conformance(None, &[&report]);
        assert_eq!(code, 1, "{expected}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // An environment that could not be taken down is no ground for a claim.
    let mut problem = evidence(GOOD);
    problem["environments"][0]["problem"] = json!("taking it down: no");
    assert_eq!(files.conformance(None, &[&problem]).0, 1);
    let two = files.conformance(None, &[&evidence(GOOD), &evidence(KNOWN)]);
    assert!(two.0 == 1 && two.1.contains("it is of one release"), "{two:?}");
}

#[test]
fn what_holds_only_at_times_is_not_claimed() {
    let files = Files::new();
    let mut flaky = evidence(GOOD);
    repeat(&mut flaky, 2);
    let whole = files.state(&[&flaky]);
    let of_flow = |stated: &Value| {
        stated["supports"].as_array().unwrap().iter().find(|claim| claim["scenario"] == FLOW).cloned()
    };
    assert_eq!(of_flow(&whole).unwrap()["shown_by"].as_array().unwrap().len(), 2);
    let flow = case(&mut flaky, FLOW);
    flow["finding"]["sight"]["whisker"] = json!({"not_there": "nobody"});
    flow["finding"]["judgement"]["verdict"] = json!({"verdict": "WhiskerNotRunning", "reason": "nobody"});
    flow["outcome"] = json!("failed");
    let stated = files.state(&[&flaky]);
    assert_eq!(of_flow(&stated), None);
    assert!(
        stated["does_not"].to_string().contains("is flaky: passed (Delivered) in repetition 2"),
        "{stated}"
    );
}

/// The report of another run of the same.
fn another_run(report: &Value) -> Value {
    let run = report["run"].as_str().unwrap();
    let text = serde_json::to_string(report).unwrap().replace(run, "0f0f0f0f");
    serde_json::from_str(&text).unwrap()
}

fn fail_flow(report: &mut Value) {
    let flow = case(report, FLOW);
    flow["finding"]["sight"]["whisker"] = json!({"not_there": "nobody"});
    flow["finding"]["judgement"]["verdict"] = json!({"verdict": "WhiskerNotRunning", "reason": "nobody"});
    flow["outcome"] = json!("failed");
}

#[test]
fn what_one_run_shows_and_another_refutes_is_not_claimed() {
    let files = Files::new();
    let good = evidence(GOOD);
    let mut other = another_run(&good);
    let both = files.state(&[&good, &other]);
    let of_flow = |stated: &Value| -> Vec<Value> {
        let claims = stated["supports"].as_array().unwrap();
        claims.iter().filter(|claim| claim["scenario"] == FLOW).cloned().collect()
    };
    assert_eq!(of_flow(&both)[0]["shown_by"].as_array().unwrap().len(), 2);
    fail_flow(&mut other);
    for reports in [[&good, &other], [&other, &good]] {
        let stated = files.state(&reports);
        assert_eq!(of_flow(&stated), [] as [Value; 0], "{stated}");
        assert!(stated["does_not"].to_string().contains(FLOW), "{stated}");
        let (code, said) = files.conformance(Some(&both), &reports);
        assert!(code == 1 && said.contains("no real case that passed shows its claim of"), "{said}");
    }
    // With other flags, or on another Kubernetes, it is another claim.
    let mut given = other.clone();
    given["given"] = json!(["--node-image mine:1"]);
    assert_eq!(of_flow(&files.state(&[&good, &given])).len(), 1);
    other["environments"][0]["provenance"]["kubernetes"] = json!("v1.31.0");
    let stated = files.state(&[&good, &other]);
    assert_eq!(of_flow(&stated).len(), 1, "{stated}");
    assert_eq!(of_flow(&stated)[0]["kubernetes"], "v1.34.4");
}

#[test]
fn a_repetition_that_showed_nothing_is_missed() {
    let files = Files::new();
    let claims_flow = |report: &Value| files.state(&[report])["supports"].to_string().contains(FLOW);
    let mut report = evidence(GOOD);
    repeat(&mut report, 3);
    assert!(claims_flow(&report));
    let mut errored = report.clone();
    let flow = case(&mut errored, FLOW);
    flow["outcome"] = json!("errored");
    flow["finding"] = Value::Null;
    flow["reason"] = json!("it did not end within 60 s");
    assert!(!claims_flow(&errored));
    let mut without = report.clone();
    let id = case(&mut without, FLOW)["id"].clone();
    without["cases"].as_array_mut().unwrap().retain(|case| case["id"] != id);
    assert!(!claims_flow(&without));
    report["problems"] = json!(["a panic"]);
    let (code, said) = files.conformance(None, &[&report]);
    assert!(code == 1 && said.contains("has a problem: a panic"), "{said}");
}

#[test]
fn what_any_run_left_out_is_said() {
    let files = Files::new();
    let good = evidence(GOOD);
    let mut other = another_run(&good);
    let of_both = "kube-proxy, CNI, network policy and calico-node: there is no node";
    other["not_covered"] = json!([of_both, "network policy: another network connected the pods"]);
    let stated = files.state(&[&good, &other]);
    let has = |axis: &str| stated["not_covered"].as_array().unwrap().iter().any(|known| known == axis);
    assert!(has(of_both), "{stated}");
    assert!(
        has("network policy: another network connected the pods (by run 0f0f0f0f on nodeless)"),
        "{stated}"
    );
}
