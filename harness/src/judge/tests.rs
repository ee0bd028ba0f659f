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
