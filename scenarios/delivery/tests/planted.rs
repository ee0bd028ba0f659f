//! One planted defect for each verdict, and none for Delivered: every scenario must find exactly that, with its exact
//! parameters. The lab's stand-ins carry the defect; the looking is the one that real clusters get.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests end a test where they find what must not be"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use catwalk_delivery::{FILTER_HINTS_ANSWER, FLOW_IS_DELIVERED, STREAM_OPENS};
use catwalk_fixtures::pki::{LeafRequest, Usage};
use catwalk_fixtures::standin::goldmane::GoldmaneFault;
use catwalk_fixtures::{ClusterDomain, DnsProfile, Release};
use catwalk_harness::case::{KnownIssues, Outcome};
use catwalk_harness::environment::About;
use catwalk_harness::report::{CaseReport, Report, SCHEMA};
use catwalk_harness::run::{Group, Keep, Options, run};
use catwalk_harness::scenario::Scenario;
use catwalk_harness::stage::lab::{DnsPlant, Lab, Plant, ServicePlant, WhiskerPlant};
use catwalk_harness::verdict::Verdict;
use time::macros::datetime;
use tokio::sync::watch;

const RIGHT: &str = "goldmane.calico-system.svc.corp.internal";
const WRONG: &str = "goldmane.calico-system.svc.cluster.local";

fn about(calico: &str, domain: &str, dns: DnsProfile) -> About {
    About {
        calico: calico.to_owned(),
        domain: ClusterDomain::observed(domain),
        dns,
        stage: "lab".to_owned(),
        modelled: true,
        host_search: Vec::new(),
        repetition: None,
        with: vec![],
    }
}

/// The cases of these groups in a lab with that defect.
async fn run_in_lab(groups: Vec<Group>, plant: Plant, fail_fast: bool) -> Vec<CaseReport> {
    let lab = Lab::new(Release::table().unwrap()).with(plant).impatient(Duration::from_millis(500));
    let record = Arc::new(Mutex::new(empty_report()));
    let options = Options {
        jobs: 1,
        timeout: Duration::from_secs(20),
        keep: Keep::Never,
        fail_fast,
        evidence: None,
        run: "planted".into(),
    };
    let (_go_on, stop) = watch::channel(false);
    // No known issue is consulted: what is found must stand by itself.
    let issues = Arc::new(KnownIssues::default());
    run(Arc::new(lab), groups, issues, options, record.clone(), Arc::new(|_| {}), stop).await;
    record.lock().unwrap().cases.clone()
}

/// What the scenarios find with this defect in Calico of that version.
async fn find(calico: &str, dns: DnsProfile, plant: Plant, scenarios: &[Scenario]) -> Vec<CaseReport> {
    let groups = vec![Group { about: about(calico, "corp.internal", dns), scenarios: scenarios.to_vec() }];
    let cases = run_in_lab(groups, plant, false).await;
    assert_eq!(cases.len(), scenarios.len());
    cases
}

#[tokio::test]
async fn after_a_bad_case_no_environment_is_begun_where_so_asked() {
    let group = |domain| Group {
        about: about("v3.30.0", domain, DnsProfile::Strict),
        scenarios: vec![FLOW_IS_DELIVERED, STREAM_OPENS],
    };
    let groups = vec![group("corp.internal"), group("cluster.local")];
    let outcomes = |cases: &[CaseReport]| cases.iter().map(|case| case.outcome).collect::<Vec<_>>();
    let cases = run_in_lab(groups.clone(), Plant::default(), false).await;
    let (failed, passed) = (Outcome::Failed, Outcome::Passed);
    assert_eq!(outcomes(&cases), [passed, failed, passed, failed]);
    let cases = run_in_lab(groups, Plant::default(), true).await;
    assert_eq!(outcomes(&cases), [Outcome::Errored, failed, Outcome::Errored, failed]);
    let reason = "not begun after delivery/flow-is-delivered@v3.30.0-corp.internal-strict (--fail-fast)";
    assert_eq!(cases[0].reason.as_deref(), Some(reason));
}

fn empty_report() -> Report {
    Report {
        schema: SCHEMA,
        catwalk: String::new(),
        run: "planted".into(),
        command: String::new(),
        given: Vec::new(),
        started: String::new(),
        took_ms: 0,
        stage: "lab".into(),
        modelled: true,
        not_covered: vec![],
        environments: vec![],
        cases: vec![],
        left_behind: vec![],
        kept: vec![],
        problems: vec![],
        interrupted: false,
        shard: None,
        gate: None,
    }
}

/// Every scenario of the canary finds the verdict, and no disagreement between the witnesses.
async fn expect(calico: &str, dns: DnsProfile, plant: Plant, verdict: Verdict) {
    for case in find(calico, dns, plant, &[FLOW_IS_DELIVERED, FILTER_HINTS_ANSWER, STREAM_OPENS]).await {
        let finding = case.finding.as_ref().unwrap_or_else(|| panic!("{}: {:?}", case.id, case.reason));
        assert_eq!(finding.judgement.disagreement, None, "{}: {:#?}", case.id, finding.sight);
        assert!(verdict.same_finding(&finding.judgement.verdict), "{}: {:#?}", case.id, finding);
        let outcome =
            if matches!(verdict, Verdict::Delivered { .. }) { Outcome::Passed } else { Outcome::Failed };
        assert_eq!(case.outcome, outcome, "{}", case.id);
    }
}

/// A defect of v3.30.1, which is right by itself.
async fn expect_of(plant: Plant, verdict: Verdict) {
    expect("v3.30.1", DnsProfile::Strict, plant, verdict).await;
}

fn valid_for(domain: &str) -> Vec<String> {
    let short = ["goldmane", "goldmane.calico-system", "goldmane.calico-system.svc"];
    short.iter().map(|s| (*s).to_owned()).chain([format!("goldmane.calico-system.svc.{domain}")]).collect()
}

#[tokio::test]
async fn none_delivered() {
    expect_of(Plant::default(), Verdict::Delivered { after_ms: 0 }).await;
}

#[tokio::test]
async fn name_not_found() {
    let verdict = Verdict::NameNotFound { name: WRONG.into() };
    expect("v3.30.0", DnsProfile::Strict, Plant::default(), verdict).await;
}

#[tokio::test]
async fn name_server_failed() {
    let verdict = Verdict::NameServerFailed { name: WRONG.into() };
    expect("v3.30.0", DnsProfile::UpstreamDown, Plant::default(), verdict).await;
    let plant = Plant { dns: DnsPlant::Fails, ..Plant::default() };
    expect_of(plant, Verdict::NameServerFailed { name: RIGHT.into() }).await;
}

#[tokio::test]
async fn name_server_unreachable() {
    let plant = Plant { dns: DnsPlant::Gone, ..Plant::default() };
    expect_of(plant, Verdict::NameServerUnreachable { name: RIGHT.into() }).await;
}

#[tokio::test]
async fn connection_refused() {
    let plant = Plant { service: ServicePlant::Refuses, ..Plant::default() };
    expect_of(plant, Verdict::ConnectionRefused).await;
}

#[tokio::test]
async fn connection_timed_out() {
    let plant = Plant { service: ServicePlant::Drops, ..Plant::default() };
    expect_of(plant, Verdict::ConnectionTimedOut).await;
}

#[tokio::test]
async fn not_tls() {
    let plant = Plant { goldmane: GoldmaneFault::SpeaksNoTls, ..Plant::default() };
    expect_of(plant, Verdict::NotTls).await;
}

#[tokio::test]
async fn certificate_name_mismatch() {
    let verdict =
        Verdict::CertificateNameMismatch { dialled: WRONG.into(), valid_for: valid_for("corp.internal") };
    expect("v3.30.0", DnsProfile::Dual, Plant::default(), verdict).await;
    let certificate = |request: &mut LeafRequest| request.dns_names = valid_for("other.domain");
    let verdict =
        Verdict::CertificateNameMismatch { dialled: RIGHT.into(), valid_for: valid_for("other.domain") };
    expect_of(Plant { certificate, ..Plant::default() }, verdict).await;
}

#[tokio::test]
async fn unknown_authority() {
    let plant = Plant { whisker_distrusts: true, ..Plant::default() };
    expect_of(plant, Verdict::UnknownAuthority).await;
}

#[tokio::test]
async fn certificate_expired() {
    let certificate = |request: &mut LeafRequest| {
        request.not_before = datetime!(2020-01-01 00:00:00 UTC);
        request.not_after = datetime!(2021-02-03 04:05:06 UTC);
    };
    let verdict = Verdict::CertificateExpired { not_after: "2021-02-03T04:05:06Z".into() };
    expect_of(Plant { certificate, ..Plant::default() }, verdict).await;
}

#[tokio::test]
async fn certificate_not_yet_valid() {
    let certificate = |request: &mut LeafRequest| {
        request.not_before = datetime!(2090-01-01 00:00:00 UTC);
        request.not_after = datetime!(2091-01-01 00:00:00 UTC);
    };
    let verdict = Verdict::CertificateNotYetValid { not_before: "2090-01-01T00:00:00Z".into() };
    expect_of(Plant { certificate, ..Plant::default() }, verdict).await;
}

#[tokio::test]
async fn certificate_unusable() {
    let certificate = |request: &mut LeafRequest| request.usages = vec![Usage::Client];
    let reason = "x509: certificate specifies an incompatible key usage".to_owned();
    expect_of(Plant { certificate, ..Plant::default() }, Verdict::CertificateUnusable { reason }).await;
}

#[tokio::test]
async fn client_certificate_rejected() {
    let plant = Plant { goldmane_distrusts: true, ..Plant::default() };
    expect_of(plant, Verdict::ClientCertificateRejected).await;
}

#[tokio::test]
async fn rpc_failed() {
    let plant = Plant { goldmane: GoldmaneFault::Answers(tonic::Code::Unimplemented), ..Plant::default() };
    expect_of(plant, Verdict::RpcFailed { code: "Unimplemented".into() }).await;
    let plant =
        Plant { goldmane: GoldmaneFault::Answers(tonic::Code::ResourceExhausted), ..Plant::default() };
    expect_of(plant, Verdict::RpcFailed { code: "ResourceExhausted".into() }).await;
}

#[tokio::test]
async fn whisker_not_running() {
    let plant = Plant { whisker: WhiskerPlant::LacksKey, ..Plant::default() };
    let reason =
        "failed to load keypair: open /whisker-backend-key-pair/missing.key: no such file or directory";
    expect_of(plant, Verdict::WhiskerNotRunning { reason: reason.into() }).await;
}

#[tokio::test]
async fn whisker_failed() {
    let rows = [
        (WhiskerPlant::Gone, 502, "An error occurred"),
        (WhiskerPlant::ShowsIndexPage, 200, "<link rel=\"icon\""),
    ];
    for (whisker, status, words) in rows {
        let plant = Plant { whisker, ..Plant::default() };
        for case in
            find("v3.30.1", DnsProfile::Strict, plant, &[FLOW_IS_DELIVERED, FILTER_HINTS_ANSWER]).await
        {
            let Verdict::WhiskerFailed { status: got, body } = case.finding.unwrap().judgement.verdict else {
                panic!("{}: another verdict", case.id);
            };
            assert_eq!(got, status, "{}", case.id);
            assert!(body.contains(words), "{}: {body}", case.id);
        }
    }
}

#[tokio::test]
async fn flow_missing() {
    let plant = Plant { goldmane: GoldmaneFault::LosesFlows, ..Plant::default() };
    expect_of(plant, Verdict::FlowMissing).await;
}

#[tokio::test]
async fn timed_out() {
    let plant = Plant { whisker: WhiskerPlant::Hangs, ..Plant::default() };
    for case in find("v3.30.1", DnsProfile::Strict, plant, &[FLOW_IS_DELIVERED, FILTER_HINTS_ANSWER]).await {
        let verdict = case.finding.unwrap().judgement.verdict;
        let last = "Whisker was asked: no answer within 2000 ms".to_owned();
        assert_eq!(verdict, Verdict::TimedOut { last }, "{}", case.id);
    }
}
