//! From a sight to a verdict. Pure: the same sight gives the same judgement on any machine, at any time.
//!
//! Two witnesses are held against each other: our own dial, layer by layer, and Whisker's own words. What the two
//! cannot both have seen is a disagreement, and a disagreement fails the case whatever the verdict.

pub mod audit;
pub mod words;

use catwalk_fixtures::{pki, verify};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::sight::{
    CallSeen, Connection, Dial, DnsAnswer, Push, Said, Sight, TlsEnd, TlsSeen, Vantage, Wanted,
};
use crate::verdict::Verdict;

/// What a sight comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// Delivered, or the first broken layer.
    pub verdict: Verdict,
    /// What the two witnesses contradict each other in.
    pub disagreement: Option<String>,
    /// Defects of Goldmane's certificate beyond the one in the verdict, in Go's words.
    pub further_defects: Vec<String>,
}

/// How far our own dial came.
enum Reach {
    /// The call was answered.
    Goldmane,
    /// It broke.
    Broken(Verdict),
}

/// Judges one sight.
pub fn judge(sight: &Sight) -> Judgement {
    let (reach, further_defects) = dial(&sight.dial);
    let (verdict, disagreement) = match &sight.whisker {
        Said::NotThere(why) => {
            (Verdict::WhiskerNotRunning { reason: ended(&sight.log).unwrap_or_else(|| why.clone()) }, None)
        }
        Said::Silent(why) => (Verdict::TimedOut { last: format!("Whisker was asked: {why}") }, None),
        Said::Answer { status, body, content_type } => {
            match read_answer(*status, content_type, body, &sight.wanted) {
                Answer::Shows => match reach {
                    Reach::Goldmane => (Verdict::Delivered { after_ms: sight.after_ms }, None),
                    Reach::Broken(verdict) => {
                        let words = format!("Whisker shows the flow, and our own dial ends in {verdict}");
                        (verdict, Some(words))
                    }
                },
                // A stream has begun with 200 before its call fails; only the log tells (whisker-backend v3.30.0,
                // `ListOrStream`).
                Answer::Lacks if content_type.starts_with(EVENT_STREAM) && speaks(&sight.log) => {
                    call_failed(reach, sight)
                }
                Answer::Lacks => lacking(reach, sight.pushed.as_ref()),
                Answer::CallFailed => call_failed(reach, sight),
                // Behind nginx a process that ended looks like a bad gateway; its last words say more.
                Answer::Other => match ended(&sight.log) {
                    Some(reason) => (Verdict::WhiskerNotRunning { reason }, None),
                    None => (Verdict::WhiskerFailed { status: *status, body: beginning(body) }, None),
                },
            }
        }
    };
    Judgement { verdict, disagreement, further_defects }
}

/// The content type of a stream (HTML Living Standard, server-sent events).
pub const EVENT_STREAM: &str = "text/event-stream";

/// Whether the log says anything of the link.
fn speaks(log: &[String]) -> bool {
    words::admitted(log.iter().map(String::as_str)).is_some()
}

/// Whisker lists flows, and not the wanted one.
fn lacking(reach: Reach, pushed: Option<&Push>) -> (Verdict, Option<String>) {
    match (reach, pushed) {
        (Reach::Broken(verdict), _) => {
            let words = format!("Whisker lists flows, and our own dial ends in {verdict}");
            (verdict, Some(words))
        }
        (Reach::Goldmane, Some(Push::Failed(why))) => {
            (Verdict::TimedOut { last: format!("no flow could be pushed to Goldmane: {why}") }, None)
        }
        (Reach::Goldmane, Some(Push::Receipted) | None) => (Verdict::FlowMissing, None),
    }
}

/// Whisker says that its call to Goldmane failed; its log may say why.
fn call_failed(reach: Reach, sight: &Sight) -> (Verdict, Option<String>) {
    let admitted = words::admitted(sight.log.iter().map(String::as_str));
    match (reach, admitted) {
        (Reach::Broken(verdict), None) => match &sight.log_not_seen {
            None => (verdict, None),
            Some(why) => {
                let words =
                    format!("our own dial ends in {verdict}, and Whisker's log could not be read: {why}");
                (verdict, Some(words))
            }
        },
        (Reach::Broken(verdict), Some(set)) if set.contains(&verdict) => (verdict, None),
        // Our own dial saw nothing: then Whisker's word stands alone.
        (Reach::Broken(Verdict::TimedOut { last }), Some(set)) => {
            (set.only().unwrap_or(Verdict::TimedOut { last }), None)
        }
        (Reach::Broken(verdict), Some(set)) => {
            let words = format!(
                "our own dial ends in {verdict}, and Whisker's log admits {}",
                set.kinds().join(", ")
            );
            (verdict, Some(words))
        }
        (Reach::Goldmane, Some(set)) => {
            let said = set.only();
            match said {
                // A port-forward goes past the Service and past policy, so of these Whisker alone can tell.
                Some(verdict)
                    if sight.dial.vantage == Vantage::PortForward && past_port_forward(&verdict) =>
                {
                    (verdict, None)
                }
                said => {
                    let words = format!(
                        "our own dial reaches Goldmane, and Whisker's log admits {}",
                        set.kinds().join(", ")
                    );
                    let last = format!("Whisker says that its call failed; {words}");
                    (said.unwrap_or(Verdict::TimedOut { last }), Some(words))
                }
            }
        }
        (Reach::Goldmane, None) => {
            let words = "our own dial reaches Goldmane, Whisker says that its call failed, and its log does not say why";
            (Verdict::TimedOut { last: words.to_owned() }, Some(words.to_owned()))
        }
    }
}

/// Layers that a port-forward does not pass through.
fn past_port_forward(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::ConnectionRefused | Verdict::ConnectionTimedOut | Verdict::NameServerUnreachable { .. }
    )
}

/// The words with which the process ended, if it did and no other has come up since.
fn ended(log: &[String]) -> Option<String> {
    let after_start = |line: &&String| !line.contains("Listening on ");
    log.iter().rev().take_while(after_start).find_map(|line| words::fatal(line))
}

/// `host:port` without the port.
pub fn host(target: &str) -> &str {
    target.rsplit_once(':').map_or(target, |(host, _)| host)
}

/// Our own dial, layer by layer.
fn dial(dial: &Dial) -> (Reach, Vec<String>) {
    let broken = |verdict| (Reach::Broken(verdict), Vec::new());
    if let Some(why) = &dial.not_seen {
        return broken(Verdict::TimedOut { last: why.clone() });
    }
    let name = host(&dial.target);
    if let Some(verdict) = unresolved(name, &dial.names) {
        return broken(verdict);
    }
    let not_seen = |what: &str| Verdict::TimedOut { last: format!("{what} was not seen") };
    match &dial.connection {
        Some(Connection::Open(_)) => {}
        Some(Connection::Refused) => return broken(Verdict::ConnectionRefused),
        Some(Connection::TimedOut) => return broken(Verdict::ConnectionTimedOut),
        None => return broken(not_seen("the connection")),
    }
    let Some(tls) = &dial.tls else { return broken(not_seen("the handshake")) };
    let (verdict, further) = handshake(tls);
    if let Some(verdict) = verdict {
        return (Reach::Broken(verdict), further);
    }
    match &dial.call {
        Some(call) => match call_verdict(call) {
            None => (Reach::Goldmane, further),
            Some(verdict) => (Reach::Broken(verdict), further),
        },
        None => broken(not_seen("the call")),
    }
}

/// Why no question gave an address. Go reports the error of the name as it was given, else the first (`net`,
/// `goLookupIPCNAMEOrder`: "prefer error for original name").
fn unresolved(name: &str, names: &[(String, DnsAnswer)]) -> Option<Verdict> {
    let found =
        |answer: &DnsAnswer| matches!(answer, DnsAnswer::Addresses(addresses) if !addresses.is_empty());
    if names.iter().any(|(_, answer)| found(answer)) {
        return None;
    }
    let as_given = names.iter().find(|(asked, _)| asked.trim_end_matches('.') == name.trim_end_matches('.'));
    let name = name.to_owned();
    Some(match as_given.or(names.first()) {
        Some((_, DnsAnswer::Unreachable(_))) => Verdict::NameServerUnreachable { name },
        Some((_, DnsAnswer::Failed(_))) => Verdict::NameServerFailed { name },
        Some((_, DnsAnswer::NoSuchName | DnsAnswer::Addresses(_))) => Verdict::NameNotFound { name },
        None => Verdict::TimedOut { last: "no name was asked for".to_owned() },
    })
}

/// Whether a client that judges as Go does would end the connection here.
pub fn handshake_is_broken(tls: Option<&TlsSeen>) -> bool {
    tls.is_none_or(|tls| handshake(tls).0.is_some())
}

/// The handshake's verdict, and the defects after the first.
fn handshake(tls: &TlsSeen) -> (Option<Verdict>, Vec<String>) {
    if tls.end == TlsEnd::NotTls {
        return (Some(Verdict::NotTls), Vec::new());
    }
    let mut defects = match defects(tls) {
        Ok(defects) => defects.into_iter(),
        Err(e) => return (Some(Verdict::CertificateUnusable { reason: e.to_string() }), Vec::new()),
    };
    let first = defects.next();
    let further = defects.map(|d| d.to_string()).collect();
    let verdict = match (first, &tls.end) {
        (Some(defect), _) => Some(of_defect(defect, &tls.name)),
        (None, TlsEnd::Complete | TlsEnd::NotTls) => None,
        (None, TlsEnd::Alert(alert)) if about_certificate(alert) => Some(Verdict::ClientCertificateRejected),
        // The peer ends the handshake for a reason that is no certificate's.
        (None, TlsEnd::Alert(alert)) => Some(Verdict::TimedOut { last: format!("TLS alert {alert}") }),
        (None, TlsEnd::Failed(why)) => Some(Verdict::TimedOut { last: format!("TLS handshake: {why}") }),
    };
    (verdict, further)
}

fn defects(tls: &TlsSeen) -> Result<Vec<verify::Defect>, pki::PkiError> {
    if tls.chain.is_empty() {
        return Ok(Vec::new());
    }
    let chain = pki::certificates(&tls.chain.concat())?;
    let roots = pki::certificates(&tls.roots.concat())?;
    let now = OffsetDateTime::parse(&tls.now, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Ok(verify::verify_server(&chain, &roots, &tls.name, now))
}

fn of_defect(defect: verify::Defect, name: &str) -> Verdict {
    use verify::Defect;
    let rfc3339 = |t: OffsetDateTime| t.format(&Rfc3339).unwrap_or_else(|_| t.to_string());
    match defect {
        Defect::NameMismatch { dialled, valid_for } => {
            Verdict::CertificateNameMismatch { dialled, valid_for }
        }
        Defect::NoNames { .. } => {
            Verdict::CertificateNameMismatch { dialled: name.to_owned(), valid_for: Vec::new() }
        }
        Defect::UnknownAuthority { .. } => Verdict::UnknownAuthority,
        Defect::Expired { not_after, .. } | Defect::AuthorityExpired { not_after, .. } => {
            Verdict::CertificateExpired { not_after: rfc3339(not_after) }
        }
        Defect::NotYetValid { not_before, .. } | Defect::AuthorityNotYetValid { not_before, .. } => {
            Verdict::CertificateNotYetValid { not_before: rfc3339(not_before) }
        }
        other => Verdict::CertificateUnusable { reason: other.to_string() },
    }
}

/// Alerts about the certificate that we sent (RFC 8446, 6.2; rustls' names).
fn about_certificate(alert: &str) -> bool {
    let alert = alert.to_ascii_lowercase();
    ["certificate", "unknownca", "accessdenied", "decrypterror"].iter().any(|word| alert.contains(word))
}

fn call_verdict(call: &CallSeen) -> Option<Verdict> {
    match (call.code.as_str(), &call.alert) {
        ("Ok", _) => None,
        (_, Some(alert)) if about_certificate(alert) => Some(Verdict::ClientCertificateRejected),
        (code, _) => Some(Verdict::RpcFailed { code: code.to_owned() }),
    }
}

/// What an HTTP answer of Whisker is.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A listing with what was wanted.
    Shows,
    /// A listing without it.
    Lacks,
    /// Its words for a failed call, whatever the status (v3.30 to v3.32 send 200).
    CallFailed,
    /// Neither: an index page, an error of a proxy, a refusal.
    Other,
}

fn read_answer(status: u16, content_type: &str, body: &str, wanted: &Wanted) -> Answer {
    // Of an event stream each event's data is a JSON document; of a listing the whole body is one.
    if status == 200 && content_type.starts_with(EVENT_STREAM) {
        let mut events =
            body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok());
        return if events.any(|item: Value| is_wanted(&item, wanted)) {
            Answer::Shows
        } else {
            Answer::Lacks
        };
    }
    let Ok(document) = serde_json::from_str::<Value>(body) else { return Answer::Other };
    if document.get("error").and_then(Value::as_str) == Some("Internal Server Error") {
        return Answer::CallFailed;
    }
    match (status, document.get("items")) {
        (200, Some(Value::Array(items))) if items.iter().any(|item| is_wanted(item, wanted)) => Answer::Shows,
        (200, Some(Value::Array(_) | Value::Null)) => Answer::Lacks,
        _ => Answer::Other,
    }
}

/// Whether an item is the wanted flow, or a hint at its namespace.
fn is_wanted(item: &Value, wanted: &Wanted) -> bool {
    let text = |key: &str| item.get(key).and_then(Value::as_str);
    match text("source_namespace") {
        Some(namespace) => {
            namespace == wanted.source_namespace
                && text("source_name").is_some_and(|name| name.starts_with(&wanted.source_name))
        }
        None => text("value") == Some(wanted.source_namespace.as_str()),
    }
}

/// As much of a body as a report needs.
fn beginning(body: &str) -> String {
    let body = body.trim();
    match body.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &body[..end]),
        None => body.to_owned(),
    }
}

#[cfg(test)]
mod tests;
