//! One planted defect for each finding, beside a control that differs in one thing. The lab's stand-ins carry the
//! defect; the looking is the one that real clusters get.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use catwalk_audit::{FULL_NAMES_ARE_SERVED, NO_FOREIGN_DOMAIN};
use catwalk_fixtures::pki::{Authority, LeafRequest};
use catwalk_fixtures::standin::goldmane::GoldmaneFault;
use catwalk_fixtures::{ClusterDomain, DnsProfile, Release};
use catwalk_harness::audit::{Audit, ForeignName};
use catwalk_harness::environment::About;
use catwalk_harness::judge::audit::judge;
use catwalk_harness::look::{Finding, Place};
use catwalk_harness::progress::Teller;
use catwalk_harness::scenario::Scenario;
use catwalk_harness::stage::Stage;
use catwalk_harness::stage::lab::{DnsPlant, Lab, Plant, ServicePlant};
use catwalk_harness::timing::Stopwatch;
use catwalk_harness::verdict::{Unserved, Verdict};
use serde_json::{Value, json};

const GOLDMANE: &str = "goldmane.calico-system.svc.corp.internal";
const GUARDIAN: &str = "guardian.calico-system.svc.corp.internal";

/// What the scenario finds with this defect in Calico of that version.
async fn find(calico: &str, plant: Plant, scenario: &Scenario) -> Finding {
    let about = About {
        calico: calico.to_owned(),
        domain: ClusterDomain::observed("corp.internal"),
        dns: DnsProfile::Strict,
        stage: "lab".to_owned(),
        modelled: true,
        host_search: vec![],
        repetition: None,
        with: vec![],
    };
    let lab = Lab::new(Release::table().unwrap()).with(plant);
    let (teller, stopwatch) = (Teller::new("lab", Arc::new(|_| {})), Stopwatch::default());
    let env = lab.provision(&about, &teller, &stopwatch).await.unwrap();
    // What time may cure is believed soon.
    let deadline = Instant::now() + Duration::from_millis(500);
    let place = Place::new(env.clone().environment(), "catwalk-test".into(), teller, stopwatch, deadline);
    let finding = (scenario.run)(place).await.unwrap();
    env.finish().await.unwrap();
    // What was seen is written down, and read again gives the same.
    let raw = serde_json::to_string(finding.audit.as_ref().unwrap()).unwrap();
    assert_eq!(judge(&serde_json::from_str::<Audit>(&raw).unwrap()), finding.judgement);
    finding
}

async fn verdict(plant: Plant, scenario: &Scenario) -> Verdict {
    find("v3.30.1", plant, scenario).await.judgement.verdict
}

/// The object as the operator renders it: owned by a custom resource.
fn rendered(mut object: Value) -> Value {
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "operator.tigera.io/v1", "kind": "Goldmane", "name": "default"}]);
    object
}

fn config_map() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "planted", "namespace": "calico-system"},
        "data": {"config.json": "{\"endpoint\": \"https://goldmane.calico-system.svc.cluster.local:7443\"}"},
    })
}

fn guardian() -> Value {
    rendered(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "guardian", "namespace": "calico-system"},
        "spec": {"ports": [{"port": 443}]},
    }))
}

fn with(objects: Vec<Value>) -> Plant {
    Plant { objects, ..Plant::default() }
}

fn foreign(object: &str, field: &str, name: &str) -> Verdict {
    let names = vec![ForeignName { object: object.into(), field: field.into(), name: name.into() }];
    Verdict::NamesForeignDomain { names }
}

/// The verdict with one name that is not served.
fn unserved(verdict: Verdict, why: &Verdict) {
    let Verdict::NamesNotServed { names } = &verdict else { unreachable!("{verdict}") };
    let [Unserved { named_by, why: found }] = names.as_slice() else { unreachable!("{verdict}") };
    assert!(found.same_finding(why), "{verdict}");
    assert!(!named_by.is_empty(), "{verdict}");
}

#[tokio::test]
async fn a_right_operator_is_clean() {
    let verdict = verdict(Plant::default(), &NO_FOREIGN_DOMAIN).await;
    let Verdict::Clean { objects, names, .. } = verdict else { unreachable!("{verdict}") };
    assert!(objects > 10 && names > 2, "{objects} objects, {names} names");
}

#[tokio::test]
async fn the_hard_coded_domain_of_v3_30_0_is_found_where_it_is() {
    let expected = foreign(
        "Deployment calico-system/whisker",
        "spec.template.spec.containers[whisker-backend].env[GOLDMANE_HOST]",
        "goldmane.calico-system.svc.cluster.local",
    );
    let finding = find("v3.30.0", Plant::default(), &NO_FOREIGN_DOMAIN).await;
    assert_eq!(finding.judgement.verdict, expected);
    // By its own names Goldmane is served all the same.
    let finding = find("v3.30.0", Plant::default(), &FULL_NAMES_ARE_SERVED).await;
    assert!(matches!(finding.judgement.verdict, Verdict::Clean { .. }), "{}", finding.judgement.verdict);
}

#[tokio::test]
async fn what_the_operator_rendered_is_a_finding_and_what_a_user_made_is_none() {
    let name = "goldmane.calico-system.svc.cluster.local";
    let expected = foreign("ConfigMap calico-system/planted", "data[config.json]", name);
    assert_eq!(verdict(with(vec![rendered(config_map())]), &NO_FOREIGN_DOMAIN).await, expected);
    let found = verdict(with(vec![config_map()]), &NO_FOREIGN_DOMAIN).await;
    assert!(matches!(found, Verdict::Clean { .. }), "{found}");
}

#[tokio::test]
async fn a_certificate_for_another_domain_is_a_finding() {
    for (domain, is_finding) in [("cluster.local", true), ("corp.internal", false)] {
        let authority = Authority::generate("x").unwrap();
        let leaf = authority.issue(&LeafRequest::goldmane(&ClusterDomain::observed(domain))).unwrap();
        let secret = rendered(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted", "namespace": "calico-system"},
            "data": {"tls.crt": STANDARD.encode(leaf.certificate_pem()), "tls.key": STANDARD.encode(leaf.key_pem())},
        }));
        let name = "goldmane.calico-system.svc.cluster.local";
        let expected = foreign("Secret calico-system/planted", "certificates[tls.crt]", name);
        let found = verdict(with(vec![secret]), &NO_FOREIGN_DOMAIN).await;
        assert_eq!(found == expected, is_finding, "{found}");
        assert_eq!(matches!(found, Verdict::Clean { .. }), !is_finding, "{found}");
    }
}

#[tokio::test]
async fn a_name_without_a_service_is_listed_and_no_finding() {
    let finding = find("v3.30.1", Plant::default(), &FULL_NAMES_ARE_SERVED).await;
    let Verdict::Clean { without_service, .. } = &finding.judgement.verdict else {
        unreachable!("{}", finding.judgement.verdict)
    };
    let whisker = "whisker-backend.calico-system.svc.corp.internal";
    assert_eq!(without_service, &[GUARDIAN, whisker]);
    let Some(Audit::Served { names, .. }) = &finding.audit else { unreachable!() };
    let of = |name: &str| names.iter().find(|n| n.name == name).unwrap();
    assert_eq!(of(GUARDIAN).named_by, ["Deployment calico-system/goldmane"]);
    assert!(of(GUARDIAN).dial.is_none() && !of(GUARDIAN).exists);
    assert_eq!(
        of(GOLDMANE).named_by,
        ["Deployment calico-system/whisker", "Secret calico-system/goldmane-key-pair"]
    );
    assert!(of(GOLDMANE).dial.as_ref().unwrap().tls.is_some());
}

#[tokio::test]
async fn a_service_that_dns_does_not_know_is_a_finding() {
    let found = verdict(with(vec![guardian()]), &FULL_NAMES_ARE_SERVED).await;
    assert!(matches!(&found, Verdict::Clean { .. }), "{found}");
    for (service, name) in [("guardian.calico-system", GUARDIAN), ("goldmane.calico-system", GOLDMANE)] {
        let plant = Plant { dns: DnsPlant::Lacks(service), ..with(vec![guardian()]) };
        unserved(verdict(plant, &FULL_NAMES_ARE_SERVED).await, &Verdict::NameNotFound { name: name.into() });
    }
    let plant = Plant { dns: DnsPlant::Fails, ..Plant::default() };
    let why = Verdict::NameServerFailed { name: GOLDMANE.into() };
    unserved(verdict(plant, &FULL_NAMES_ARE_SERVED).await, &why);
    let plant = Plant { dns: DnsPlant::Gone, ..Plant::default() };
    let why = Verdict::NameServerUnreachable { name: GOLDMANE.into() };
    unserved(verdict(plant, &FULL_NAMES_ARE_SERVED).await, &why);
}

#[tokio::test]
async fn a_certificate_without_the_name_is_a_finding() {
    let short = || vec!["goldmane".to_owned(), "goldmane.calico-system".to_owned()];
    let certificate = |request: &mut LeafRequest| {
        request.dns_names.truncate(2);
    };
    let why = Verdict::CertificateNameMismatch { dialled: GOLDMANE.into(), valid_for: short() };
    let plant = Plant { certificate, ..Plant::default() };
    unserved(verdict(plant, &FULL_NAMES_ARE_SERVED).await, &why);
    // A certificate that nobody here trusts is still for that name; other scenarios say what is wrong with it.
    let plant = Plant { whisker_distrusts: true, ..Plant::default() };
    let found = verdict(plant, &FULL_NAMES_ARE_SERVED).await;
    assert!(matches!(&found, Verdict::Clean { .. }), "{found}");
}

#[tokio::test]
async fn where_no_certificate_answers_nothing_is_clean() {
    let rows = [
        (Plant { service: ServicePlant::Refuses, ..Plant::default() }, Verdict::ConnectionRefused),
        (Plant { service: ServicePlant::Drops, ..Plant::default() }, Verdict::ConnectionTimedOut),
        (Plant { goldmane: GoldmaneFault::SpeaksNoTls, ..Plant::default() }, Verdict::NotTls),
    ];
    for (plant, why) in rows {
        unserved(verdict(plant, &FULL_NAMES_ARE_SERVED).await, &why);
    }
}
