//! After each of many edits of a good report the gate says no, for a reason that names the edit.

use serde_json::{Value, json};

use super::{FLOW, Files, GOOD, POLICY, bytes, case, evidence};

#[test]
fn no_edited_report_passes() {
    type Edit = fn(&mut Value);
    let rows: &[(&str, Edit, &str)] = &[
        (
            "a case removed",
            |r| r["cases"].as_array_mut().unwrap().retain(|c| c["scenario"] != FLOW),
            "delivery/flow-is-delivered under corp.internal (strict) was not shown for real on nodeless or kind: it did not run",
        ),
        (
            "a case duplicated",
            |r| {
                let copy = case(r, FLOW).clone();
                r["cases"].as_array_mut().unwrap().push(copy);
            },
            "delivery/flow-is-delivered@v3.30.1-corp.internal-strict on nodeless is there twice",
        ),
        (
            "a case skipped",
            |r| {
                let c = case(r, FLOW);
                c["outcome"] = json!("skipped");
                c["finding"] = Value::Null;
            },
            "skipped on nodeless",
        ),
        (
            "skipped, its finding kept",
            |r| case(r, FLOW)["outcome"] = json!("skipped"),
            "its outcome is skipped, and its verdict comes to passed",
        ),
        (
            "a case errored",
            |r| {
                let c = case(r, FLOW);
                c["outcome"] = json!("errored");
                c["finding"] = Value::Null;
                c["reason"] = json!("no verdict: boom");
            },
            "errored: no verdict: boom",
        ),
        (
            "a verdict changed",
            |r| case(r, FLOW)["finding"]["judgement"]["verdict"] = json!({"verdict": "FlowMissing"}),
            "its verdict is FlowMissing, and what was seen comes to Delivered",
        ),
        (
            "what was seen changed",
            |r| case(r, FLOW)["finding"]["sight"]["whisker"] = json!({"not_there": "connection refused"}),
            "its verdict is Delivered",
        ),
        (
            "what was seen removed",
            |r| case(r, FLOW)["finding"]["sight"] = Value::Null,
            "passed, and nothing was seen",
        ),
        (
            "nothing was seen in time",
            |r| {
                let c = case(r, FLOW);
                c["outcome"] = json!("failed");
                c["finding"]["sight"] = Value::Null;
                c["finding"]["judgement"]["verdict"] = json!({"verdict": "TimedOut", "last": "no answer"});
            },
            "on nodeless: failed: TimedOut: last seen: no answer",
        ),
        ("the finding removed", |r| case(r, FLOW)["finding"] = Value::Null, "passed, and nothing was found"),
        (
            "another case's finding",
            |r| {
                let other = case(r, "delivery/stream-opens")["finding"].clone();
                case(r, FLOW)["finding"] = other;
            },
            "its finding is of \"",
        ),
        (
            "an audit of another domain",
            |r| {
                let other = json!("other.domain");
                case(r, "audit/no-foreign-domain")["finding"]["audit"]["rendered"]["domain"] = other;
            },
            "what was audited is of other.domain",
        ),
        (
            "another operator's image",
            |r| {
                let text = r["environments"][0]["provenance"]
                    .to_string()
                    .replace("operator:v1.38.1", "operator:v1.38.0");
                r["environments"][0]["provenance"] = serde_json::from_str(&text).unwrap();
            },
            "operator:v1.38.0 ran, and v3.30.1 has quay.io/tigera/operator:v1.38.1",
        ),
        (
            "the outcome changed",
            |r| case(r, FLOW)["outcome"] = json!("failed"),
            "its outcome is failed, and its verdict comes to passed",
        ),
        (
            "the witnesses disagree",
            |r| case(r, FLOW)["finding"]["judgement"]["disagreement"] = json!("x"),
            "what was seen comes to",
        ),
        (
            "the demand changed",
            |r| case(r, FLOW)["demands"] = json!("clean"),
            "it demands Clean, its scenario Delivered",
        ),
        (
            "the scenario changed",
            |r| case(r, FLOW)["scenario"] = json!("delivery/stream-opens"),
            "by its scenario and environment it is delivery/stream-opens@",
        ),
        (
            "a scenario that there is not",
            |r| case(r, FLOW)["scenario"] = json!("delivery/nonsense"),
            "there is no scenario delivery/nonsense",
        ),
        (
            "a known issue that is none",
            |r| case(r, FLOW)["known_issues"] = json!([{"id": "made-up", "link": "https://x", "fixed_in": null, "verdict": {"verdict": "FlowMissing"}}]),
            "the known issues that it names (made-up) are not those of the data (none)",
        ),
        (
            "modelled",
            |r| {
                r["modelled"] = json!(true);
                r["environments"][0]["about"]["modelled"] = json!(true);
            },
            "is modelled: no Calico program ran",
        ),
        (
            "modelled, and so nothing is shown for real",
            |r| {
                r["modelled"] = json!(true);
                r["environments"][0]["about"]["modelled"] = json!(true);
            },
            "delivery/flow-is-delivered under corp.internal (strict) was not shown for real on nodeless or kind: passed \
             on nodeless",
        ),
        (
            "modelled passed off as real",
            |r| r["environments"][0]["about"]["modelled"] = json!(true),
            "is of nodeless, modelled, its report of nodeless",
        ),
        (
            "the lab passed off as real",
            |r| {
                r["stage"] = json!("lab");
                r["environments"][0]["about"]["stage"] = json!("lab");
            },
            "claims to be of real programs, and the lab has none",
        ),
        ("another stage", |r| r["stage"] = json!("kind"), "is of nodeless, its report of kind"),
        (
            "another Calico",
            |r| r["environments"][0]["about"]["calico"] = json!("v3.30.2"),
            "says of itself that it is v3.30.2-corp.internal-strict",
        ),
        (
            "another domain",
            |r| r["environments"][0]["about"]["domain"] = json!("cluster.local"),
            "says of itself that it is v3.30.1-cluster.local-strict",
        ),
        (
            "no environment",
            |r| r["environments"] = json!([]),
            "its environment v3.30.1-corp.internal-strict is not in the report",
        ),
        (
            "an environment twice",
            |r| {
                let copy = r["environments"][0].clone();
                r["environments"].as_array_mut().unwrap().push(copy);
            },
            "has environment v3.30.1-corp.internal-strict twice",
        ),
        (
            "an environment with a problem",
            |r| r["environments"][0]["problem"] = json!("taking it down: no"),
            "environment v3.30.1-corp.internal-strict: taking it down: no",
        ),
        ("another Catwalk", |r| r["catwalk"] = json!("0.0.9"), "is of Catwalk 0.0.9, this is "),
        ("another schema", |r| r["schema"] = json!(1), "has schema 1, and this reads 2"),
        (
            "a part of a run",
            |r| r["shard"] = json!({"index": 1, "of": 2, "cases": 12, "whole": "0f"}),
            "is of part 1/2 alone",
        ),
        ("interrupted", |r| r["interrupted"] = json!(true), "is of an interrupted run"),
        ("a problem of the run", |r| r["problems"] = json!(["it broke"]), "has a problem: it broke"),
        ("something left behind", |r| r["left_behind"] = json!(["a cluster"]), "has a problem: a cluster"),
        (
            "empty",
            |r| {
                r["cases"] = json!([]);
                r["environments"] = json!([]);
            },
            "has no case",
        ),
        (
            "no cases field",
            |r| {
                r.as_object_mut().unwrap().remove("cases");
            },
            "missing field `cases`",
        ),
    ];
    let files = Files::new();
    for (edit, apply, expected) in rows {
        let mut report = evidence(GOOD);
        apply(&mut report);
        let (code, said) = files.gate(POLICY, &[&bytes(&report)]);
        assert!(code == 1 || code == 2, "{edit}: exit {code}: {said}");
        assert!(said.contains(expected), "{edit}: not {expected:?} in: {said}");
    }
}
