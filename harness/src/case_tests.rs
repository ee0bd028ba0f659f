//! How verdicts become outcomes.

use catwalk_fixtures::{ClusterDomain, DnsProfile};

use super::*;

fn judgement(verdict: Verdict) -> Judgement {
    Judgement { verdict, disagreement: None, further_defects: vec![] }
}

fn not_found(name: &str) -> Verdict {
    Verdict::NameNotFound { name: name.into() }
}

fn about(calico: &str, with: &[&str]) -> About {
    About {
        calico: calico.into(),
        domain: ClusterDomain::observed("corp.internal"),
        dns: DnsProfile::Strict,
        stage: "lab".into(),
        modelled: true,
        host_search: vec![],
        repetition: None,
        with: with.iter().map(|extra| (*extra).to_owned()).collect(),
    }
}

fn issues() -> KnownIssues {
    KnownIssues::new(KnownIssue::table().unwrap()).unwrap()
}

#[test]
fn only_the_exact_verdict_is_the_known_issue() {
    let issues = issues();
    let known = issues.affecting("delivery/flow-is-delivered", &about("v3.30.0", &["gatewayapi"]));
    let hold = |verdict| outcome(&Demand::Delivered, &judgement(verdict), &known).0;
    assert_eq!(hold(not_found("goldmane.calico-system.svc.cluster.local")), Outcome::KnownIssue);
    assert_eq!(hold(not_found("goldmane.calico-system.svc.other")), Outcome::Failed);
    assert_eq!(hold(Verdict::ConnectionRefused), Outcome::Failed);
    assert_eq!(hold(Verdict::Delivered { after_ms: 1 }), Outcome::UnexpectedPass);
    assert_eq!(issues.affecting("delivery/flow-is-delivered", &about("v3.30.1", &[])), []);
}

#[test]
fn a_disagreement_fails_whatever_the_verdict() {
    let mut judgement = judgement(Verdict::Delivered { after_ms: 1 });
    assert_eq!(outcome(&Demand::Delivered, &judgement, &[]).0, Outcome::Passed);
    judgement.disagreement = Some("x".into());
    assert_eq!(outcome(&Demand::Delivered, &judgement, &[]).0, Outcome::Failed);
}

#[test]
fn of_several_issues_exactly_the_union_is_known() {
    let with = ["gatewayapi", "managementcluster"];
    let known = issues().affecting("audit/no-foreign-domain", &about("v3.30.0", &with));
    let ids: Vec<&str> = known.iter().map(|issue| issue.id.as_str()).collect();
    assert_eq!(ids, ["calico-10396", "envoy-gateway-7551", "guardian-goldmane-endpoint"]);
    let [whisker, envoy, guardian] = [0, 1, 2].map(|i| known[i].names()[0].clone());
    let job = known[1].fleeting[0].clone();
    let other = ForeignName { object: "ConfigMap x/y".into(), ..whisker.clone() };
    let clean = Verdict::Clean { objects: 9, names: 9, without_service: vec![] };
    let found = |names: &[&ForeignName]| match names {
        [] => clean.clone(),
        names => Verdict::NamesForeignDomain { names: names.iter().map(|name| (*name).clone()).collect() },
    };
    let rows: [(&[&ForeignName], Outcome, &str); 7] = [
        (&[&whisker, &envoy, &guardian], Outcome::KnownIssue, "envoy-gateway-7551, not fixed: https"),
        (&[&whisker, &envoy, &job, &guardian], Outcome::KnownIssue, "fixed in v3.30.1: https"),
        (
            &[&whisker, &guardian],
            Outcome::UnexpectedPass,
            "envoy-gateway-7551 did not show: cluster.local in",
        ),
        (&[&job], Outcome::UnexpectedPass, "guardian-goldmane-endpoint did not show"),
        (&[&whisker, &envoy, &guardian, &other], Outcome::Failed, "no known issue gives goldmane"),
        (&[&other, &whisker], Outcome::Failed, "in ConfigMap x/y, spec"),
        (&[], Outcome::UnexpectedPass, "guardian-goldmane-endpoint should have shown as NamesForeignDomain"),
    ];
    for (names, expected, words) in rows {
        let (outcome, reason) = outcome(&Demand::Clean, &judgement(found(names)), &known);
        assert_eq!(outcome, expected, "{names:?}: {reason:?}");
        assert!(reason.as_ref().unwrap().contains(words), "{names:?}: {reason:?}");
    }
}

#[test]
fn an_audit_that_ends_otherwise_is_not_the_known_issue() {
    let known = issues().affecting("audit/no-foreign-domain", &about("v3.30.0", &[]));
    let verdict = Verdict::TimedOut { last: "x".into() };
    assert_eq!(outcome(&Demand::Clean, &judgement(verdict), &known).0, Outcome::Failed);
}

#[test]
fn ids_are_stable() {
    let scenario = crate::scenario! {
        id: "delivery/x", given: "", when: "", needs: [], demands: Demand::Delivered,
        run: |place| async move { let _ = place; unreachable!("nobody runs it") },
    };
    let mut about = about("v3.30.1", &["gatewayapi"]);
    assert_eq!(id(&scenario, &about), "delivery/x@v3.30.1-corp.internal-strict+gatewayapi");
    about.host_search = vec!["corp.example".into()];
    about.repetition = Some(crate::environment::Repetition { index: 2, of: 3 });
    let of_second = "delivery/x@v3.30.1-corp.internal-strict+gatewayapi+search-corp.example~2";
    assert_eq!(id(&scenario, &about), of_second);
    assert_eq!(finding_of("run", "x@y"), "run/x@y");
    assert_eq!(issues().ids().next(), Some("calico-10396"));
}
