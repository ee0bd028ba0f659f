//! Sights as people would describe them, and what they must come to.

use super::*;

const TARGET: &str = "goldmane.calico-system.svc.corp.internal:7443";
const NX: &str = "error=failed to list flows: rpc error: code = Unavailable desc = name resolver error: produced zero addresses";
const TIMEOUT: &str = r#"error=rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 10.96.0.7:7443: i/o timeout""#;
const FAILED: &str = r#"{"error":"Internal Server Error"}"#;

fn wanted() -> Wanted {
    Wanted { source_namespace: "ns".into(), source_name: "canary".into() }
}

fn shows() -> String {
    r#"{"total":{"totalPages":1},"items":[{"source_namespace":"ns","source_name":"canary"}]}"#.into()
}

fn answer(status: u16, body: &str) -> Said {
    Said::Answer { status, content_type: String::new(), body: body.into() }
}

/// A dial whose name does not exist.
fn unresolved_dial() -> Dial {
    Dial {
        vantage: Vantage::PortForward,
        target: TARGET.into(),
        names: vec![("x.".into(), DnsAnswer::NoSuchName)],
        connection: None,
        tls: None,
        call: None,
        not_seen: None,
    }
}

/// A dial that reaches Goldmane; with no chain to judge.
fn good_dial() -> Dial {
    let address = "10.96.0.7".parse().unwrap();
    Dial {
        names: vec![("x.".into(), DnsAnswer::Addresses(vec![address]))],
        connection: Some(Connection::Open(None)),
        tls: Some(TlsSeen {
            chain: vec![],
            roots: vec![],
            name: host(TARGET).into(),
            now: "2026-11-24T00:00:00Z".into(),
            end: TlsEnd::Complete,
        }),
        call: Some(CallSeen { code: "Ok".into(), message: String::new(), alert: None, broken: None }),
        ..unresolved_dial()
    }
}

fn sight(dial: Dial, whisker: Said, log: &[&str]) -> Sight {
    Sight {
        at: String::new(),
        wanted: wanted(),
        pushed: Some(Push::Receipted),
        dial,
        whisker,
        log: log.iter().map(|line| (*line).to_owned()).collect(),
        log_not_seen: None,
        after_ms: 7,
    }
}

fn not_found() -> Verdict {
    Verdict::NameNotFound { name: host(TARGET).into() }
}

#[test]
fn both_witnesses_agree() {
    let rows = [
        (sight(good_dial(), answer(200, &shows()), &[]), Verdict::Delivered { after_ms: 7 }),
        (sight(unresolved_dial(), answer(200, FAILED), &[NX]), not_found()),
        (sight(unresolved_dial(), answer(200, FAILED), &[]), not_found()),
        (sight(unresolved_dial(), answer(500, FAILED), &[NX]), not_found()),
        // a port-forward goes past policy, so Whisker alone can tell
        (sight(good_dial(), answer(200, FAILED), &[TIMEOUT]), Verdict::ConnectionTimedOut),
        (sight(good_dial(), answer(200, r#"{"total":{},"items":null}"#), &[]), Verdict::FlowMissing),
        (
            sight(good_dial(), answer(200, r#"{"total":{},"items":[{"value":"other"}]}"#), &[]),
            Verdict::FlowMissing,
        ),
    ];
    for (sight, verdict) in rows {
        let judgement = judge(&sight);
        assert_eq!(judgement.disagreement, None, "{sight:?}");
        assert_eq!(judgement.verdict, verdict, "{sight:?}");
    }
}

#[test]
fn what_the_witnesses_cannot_both_have_seen_is_a_disagreement() {
    let beside = |mut dial: Dial| {
        dial.vantage = Vantage::Beside;
        dial
    };
    let rows = [
        sight(unresolved_dial(), answer(200, &shows()), &[]),
        sight(unresolved_dial(), answer(200, FAILED), &[TIMEOUT]),
        sight(unresolved_dial(), answer(200, r#"{"total":{},"items":null}"#), &[]),
        sight(good_dial(), answer(200, FAILED), &[NX]),
        sight(good_dial(), answer(200, FAILED), &[]),
        sight(beside(good_dial()), answer(200, FAILED), &[TIMEOUT]),
    ];
    for sight in rows {
        assert!(judge(&sight).disagreement.is_some(), "{sight:?}");
    }
}

#[test]
fn a_status_of_200_proves_nothing() {
    for body in ["<!doctype html><title>Calico Whisker</title>", "{}", "[]", r#"{"items":"x"}"#, "ok"] {
        let verdict = judge(&sight(good_dial(), answer(200, body), &[])).verdict;
        assert_eq!(verdict, Verdict::WhiskerFailed { status: 200, body: body.into() });
    }
    let verdict = judge(&sight(good_dial(), answer(502, &shows()), &[])).verdict;
    assert_eq!(verdict.kind(), "WhiskerFailed");
}

#[test]
fn a_flow_of_another_run_is_not_ours() {
    let body = shows().replace("canary", "other");
    assert_eq!(judge(&sight(good_dial(), answer(200, &body), &[])).verdict, Verdict::FlowMissing);
    let body = shows().replace(r#""ns""#, r#""elsewhere""#);
    assert_eq!(judge(&sight(good_dial(), answer(200, &body), &[])).verdict, Verdict::FlowMissing);
}

#[test]
fn an_event_stream_is_read_event_by_event() {
    let stream =
        |body: &str| Said::Answer { status: 200, content_type: EVENT_STREAM.into(), body: body.into() };
    let event = "data: {\"source_namespace\":\"ns\",\"source_name\":\"canary-1\"}\n\n";
    assert_eq!(judge(&sight(good_dial(), stream(event), &[])).verdict.kind(), "Delivered");
    assert_eq!(judge(&sight(good_dial(), stream(""), &[])).verdict, Verdict::FlowMissing);
    let other = event.replace("canary", "other");
    assert_eq!(judge(&sight(good_dial(), stream(&other), &[])).verdict, Verdict::FlowMissing);
    // headers alone, of what is no stream, list nothing
    assert_eq!(judge(&sight(good_dial(), answer(200, ""), &[])).verdict.kind(), "WhiskerFailed");
}

/// What our own dial did not see contradicts nobody.
#[test]
fn an_unknown_dial_leaves_the_word_to_whisker() {
    let unknown = || Dial { not_seen: Some("no such pod is running".into()), ..unresolved_dial() };
    let judgement = judge(&sight(unknown(), answer(200, FAILED), &[TIMEOUT]));
    assert_eq!((judgement.verdict, judgement.disagreement), (Verdict::ConnectionTimedOut, None));
    let judgement = judge(&sight(unknown(), answer(200, &shows()), &[]));
    assert!(judgement.disagreement.is_some(), "a delivery needs both witnesses");
}

/// Go prefers the error of the name as it was given over those of the search list.
#[test]
fn the_name_as_given_decides_why_nothing_resolved() {
    let name = host(TARGET);
    let asked = |searched: DnsAnswer, given: DnsAnswer| {
        let names = vec![(format!("{name}.x."), searched), (format!("{name}."), given)];
        judge(&sight(Dial { names, ..unresolved_dial() }, answer(200, FAILED), &[])).verdict
    };
    let failed = || DnsAnswer::Failed("Server Failure".into());
    assert_eq!(asked(failed(), DnsAnswer::NoSuchName), not_found());
    assert_eq!(asked(DnsAnswer::NoSuchName, failed()).kind(), "NameServerFailed");
    assert_eq!(asked(failed(), DnsAnswer::Unreachable("x".into())).kind(), "NameServerUnreachable");
}

/// Words that two layers may hide behind name neither, where our own dial cannot decide.
#[test]
fn ambiguous_words_alone_name_no_layer() {
    let unknown = Dial { not_seen: Some("no such pod is running".into()), ..unresolved_dial() };
    assert_eq!(judge(&sight(unknown, answer(200, FAILED), &[NX])).verdict.kind(), "TimedOut");
}

#[test]
fn last_words_of_a_process_that_was_replaced_explain_nothing() {
    let fatal = "2026-11-24 17:13:37.345 [FATAL][1] whisker-backend/app.go 36: x error=no key";
    let started = "2026-11-24 17:13:38.438 [INFO][1] whisker-backend/app.go 65: Listening on :3002.";
    let verdict = |log: &[&str]| judge(&sight(good_dial(), answer(502, "<html>"), log)).verdict;
    assert_eq!(verdict(&[started, fatal]), Verdict::WhiskerNotRunning { reason: "no key".into() });
    assert_eq!(verdict(&[fatal, started]).kind(), "WhiskerFailed");
}

#[test]
fn a_body_is_cut_and_says_so() {
    let body = |length: usize| match judge(&sight(good_dial(), answer(502, &"ä".repeat(length)), &[])).verdict
    {
        Verdict::WhiskerFailed { body, .. } => body,
        other => panic!("{other}"),
    };
    assert_eq!(body(200), "ä".repeat(200));
    assert_eq!(body(201), "ä".repeat(200) + "…");
}

/// A stream begins with 200 before its call fails: then the log tells.
#[test]
fn a_stream_without_the_flow_is_a_failed_call_where_the_log_says_so() {
    let stream = Said::Answer { status: 200, content_type: EVENT_STREAM.into(), body: String::new() };
    let judgement = judge(&sight(unresolved_dial(), stream, &[NX]));
    assert_eq!((judgement.verdict, judgement.disagreement), (not_found(), None));
}

/// Layers that a port-forward goes past are Whisker's word alone; of the others our own dial would have seen them.
#[test]
fn a_port_forward_excuses_only_what_it_goes_past() {
    let failed =
        |why: &str| format!("error=rpc error: code = Unavailable desc = connection error: desc = \"{why}\"");
    let rows = [
        ("dial tcp 10.96.0.7:7443: i/o timeout", "ConnectionTimedOut", false),
        ("dial tcp 10.96.0.7:7443: connect: connection refused", "ConnectionRefused", false),
        ("A record lookup error: lookup g.x on 10.96.0.10:53: i/o timeout", "NameServerUnreachable", false),
        ("A record lookup error: lookup g.x on 10.96.0.10:53: server misbehaving", "NameServerFailed", true),
        ("tls: first record does not look like a TLS handshake", "NotTls", true),
        ("x509: certificate signed by unknown authority", "UnknownAuthority", true),
    ];
    for (why, kind, disagrees) in rows {
        let judgement = judge(&sight(good_dial(), answer(200, FAILED), &[&failed(why)]));
        assert_eq!((judgement.verdict.kind(), judgement.disagreement.is_some()), (kind, disagrees), "{why}");
    }
}

/// What a handshake comes to that ended so, the certificate being for these names.
fn of_handshake(names: &[&str], end: TlsEnd, now: &str) -> (Verdict, Vec<String>) {
    let authority = pki::Authority::generate("ours").unwrap();
    let mut request = pki::LeafRequest::client("goldmane");
    request.dns_names = names.iter().map(|name| (*name).to_owned()).collect();
    request.usages = vec![pki::Usage::Server];
    let chain = match names {
        [] => vec![],
        ["no certificate"] => {
            vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()]
        }
        _ => vec![authority.issue(&request).unwrap().certificate_pem().to_owned()],
    };
    let tls = TlsSeen {
        chain,
        roots: vec![authority.certificate_pem().to_owned()],
        name: host(TARGET).into(),
        now: now.into(),
        end,
    };
    assert_eq!(handshake_is_broken(Some(&tls)), handshake(&tls).0.is_some());
    let judgement = judge(&sight(Dial { tls: Some(tls), ..good_dial() }, answer(200, FAILED), &[]));
    (judgement.verdict, judgement.further_defects)
}

#[test]
fn a_handshake_is_judged_by_its_certificate_first_and_then_by_how_it_ended() {
    let own = "goldmane.calico-system.svc.corp.internal";
    let alert = |name: &str| TlsEnd::Alert(name.to_owned());
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let rows: [(&[&str], TlsEnd, &str); 8] = [
        (&[own], TlsEnd::NotTls, "NotTls"),
        (&[own], alert("UnknownCA"), "ClientCertificateRejected"),
        (&[own], alert("CertificateRequired"), "ClientCertificateRejected"),
        (&[own], alert("ProtocolVersion"), "TimedOut: last seen: TLS alert ProtocolVersion"),
        (&[own], TlsEnd::Failed("reset".into()), "TimedOut: last seen: TLS handshake: reset"),
        (
            &["goldmane"],
            TlsEnd::Complete,
            "CertificateNameMismatch: dialled goldmane.calico-system.svc.corp.internal, valid for goldmane",
        ),
        (&["goldmane"], alert("UnknownCA"), "CertificateNameMismatch"),
        (&["no certificate"], TlsEnd::Complete, "CertificateUnusable"),
    ];
    for (names, end, expected) in rows {
        let (verdict, further) = of_handshake(names, end.clone(), &now);
        assert!(verdict.to_string().starts_with(expected), "{names:?} {end:?}: {verdict}");
        assert_eq!(further, Vec::<String>::new(), "{names:?} {end:?}");
    }
    // Expired, and for another name: Go holds the time first, and the other is not lost.
    let (verdict, further) = of_handshake(&["goldmane"], TlsEnd::Complete, "2099-01-01T00:00:00Z");
    assert_eq!((verdict.kind(), further.len()), ("CertificateExpired", 1), "{further:?}");
    assert!(further[0].contains("not goldmane.calico-system.svc.corp.internal"), "{further:?}");
}

#[test]
fn a_handshake_that_nobody_saw_is_broken() {
    assert!(handshake_is_broken(None));
    let complete = good_dial().tls.unwrap();
    assert!(!handshake_is_broken(Some(&complete)));
}

/// The alert to a refused certificate comes with the first read after the handshake in TLS 1.3.
#[test]
fn a_call_is_judged_by_its_code_and_its_alert() {
    let rows = [
        ("Ok", None, None),
        ("Unavailable", Some("BadCertificate"), Some("ClientCertificateRejected")),
        ("Unavailable", Some("InternalError"), Some("RpcFailed")),
        ("Unimplemented", None, Some("RpcFailed")),
    ];
    for (code, alert, kind) in rows {
        let call = CallSeen {
            code: code.into(),
            message: String::new(),
            alert: alert.map(str::to_owned),
            broken: None,
        };
        assert_eq!(call_verdict(&call).map(|verdict| verdict.kind()), kind, "{code} {alert:?}");
    }
}

#[test]
fn a_dial_that_breaks_names_what_it_dialled() {
    let name = "goldmane.calico-system.svc.corp.internal".to_owned();
    let judged = judge(&sight(unresolved_dial(), answer(200, FAILED), &[])).verdict;
    assert_eq!(judged, Verdict::NameNotFound { name });
    assert_eq!(host("goldmane"), "goldmane");
}
