//! What Whisker's log admits: Go's and gRPC-Go's words, read as the set of verdicts that may lie behind them.
//!
//! Source of the words: whisker-backend v3.30.0 (`facts`, recorded logs), grpc-go 1.70 `internal/transport` and
//! `internal/resolver/dns`, Go `net`, `crypto/tls`, `crypto/x509`.

use crate::verdict::{Kind, Verdict};

/// A set of verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted(Vec<Member>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    /// Any verdict of this name.
    Any(Kind),
    /// This one with its parameters.
    Exactly(Verdict),
}

impl Admitted {
    fn any(kinds: &[Kind]) -> Self {
        Self(kinds.iter().map(|kind| Member::Any(kind)).collect())
    }

    fn exactly(verdict: Verdict) -> Self {
        Self(vec![Member::Exactly(verdict)])
    }

    /// Whether the verdict is in the set.
    pub fn contains(&self, verdict: &Verdict) -> bool {
        self.0.iter().any(|member| match member {
            Member::Any(kind) => *kind == verdict.kind(),
            Member::Exactly(exact) => exact.same_finding(verdict),
        })
    }

    /// The names in the set, in its order.
    pub fn kinds(&self) -> Vec<Kind> {
        self.0
            .iter()
            .map(|member| match member {
                Member::Any(kind) => *kind,
                Member::Exactly(verdict) => verdict.kind(),
            })
            .collect()
    }

    /// The only verdict of the set; none where several may be meant, or the words leave its parameters out.
    pub fn only(&self) -> Option<Verdict> {
        match self.0.as_slice() {
            [Member::Exactly(verdict)] => Some(verdict.clone()),
            [Member::Any("ConnectionRefused")] => Some(Verdict::ConnectionRefused),
            [Member::Any("ConnectionTimedOut")] => Some(Verdict::ConnectionTimedOut),
            [Member::Any("NotTls")] => Some(Verdict::NotTls),
            [Member::Any("UnknownAuthority")] => Some(Verdict::UnknownAuthority),
            [Member::Any("ClientCertificateRejected")] => Some(Verdict::ClientCertificateRejected),
            _ => None,
        }
    }
}

/// Every verdict that Whisker's words for a failed call may stand for.
pub const LINK: [Kind; 14] = [
    "NameNotFound",
    "NameServerFailed",
    "NameServerUnreachable",
    "ConnectionRefused",
    "ConnectionTimedOut",
    "NotTls",
    "CertificateNameMismatch",
    "UnknownAuthority",
    "CertificateExpired",
    "CertificateNotYetValid",
    "CertificateUnusable",
    "ClientCertificateRejected",
    "RpcFailed",
    "TimedOut",
];

/// What the lines admit: the set of the last one that says anything; none where no line does. A process that ended
/// has spoken last, unless another has come after it.
pub fn admitted<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Admitted> {
    let mut last = None;
    for line in lines {
        if let Some(reason) = fatal(line) {
            last = Some(Admitted::exactly(Verdict::WhiskerNotRunning { reason }));
        } else if let Some(set) = line_admits(line) {
            last = Some(set);
        }
    }
    last
}

/// The words after `error=` of a line with which the process ended.
pub fn fatal(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("[FATAL]")?;
    Some(rest.split_once("error=").map_or(rest, |(_, error)| error).trim().to_owned())
}

/// The first set whose words are in the line. The order matters: a TLS error is wrapped in a transport error, that
/// in a status.
fn line_admits(line: &str) -> Option<Admitted> {
    // The caller hung up: it says nothing of the link.
    if line.contains("code = Canceled") || line.contains("context canceled") {
        return None;
    }
    if !(line.contains("rpc error:") || line.contains("addrConn.createTransport failed")) {
        return None;
    }
    if let Some(mismatch) = name_mismatch(line) {
        return Some(Admitted::exactly(mismatch));
    }
    if let Some((_, rest)) = line.split_once("certificate has expired or is not yet valid") {
        let expired = rest.contains(" is after ");
        let time = rest
            .split_once(if expired { " is after " } else { " is before " })
            .and_then(|(_, t)| t.split(|c: char| c == '"' || c.is_whitespace()).next());
        return Some(match time {
            Some(t) if expired => Admitted::exactly(Verdict::CertificateExpired { not_after: t.to_owned() }),
            Some(t) => Admitted::exactly(Verdict::CertificateNotYetValid { not_before: t.to_owned() }),
            None => Admitted::any(&["CertificateExpired", "CertificateNotYetValid"]),
        });
    }
    // The words before it are `A record lookup error: `.
    if let Some((_, rest)) = line.rsplit_once(" lookup ") {
        let name = rest.split([' ', ':']).next().unwrap_or_default().to_owned();
        if rest.contains("server misbehaving") {
            return Some(Admitted::exactly(Verdict::NameServerFailed { name }));
        }
        if rest.contains("i/o timeout") || rest.contains("connection refused") || rest.contains("unreachable")
        {
            return Some(Admitted::exactly(Verdict::NameServerUnreachable { name }));
        }
        if rest.contains("no such host") {
            return Some(Admitted::exactly(Verdict::NameNotFound { name }));
        }
        return Some(Admitted::any(&["NameServerUnreachable", "NameServerFailed"]));
    }
    const WORDS: &[(&str, &[Kind])] = &[
        // grpc-go swallows every lookup error that is not temporary, and to Go all response codes but SERVFAIL are
        // not (`net`, `checkHeader`; `internal/resolver/dns`, `handleDNSError`).
        ("produced zero addresses", &["NameNotFound", "NameServerFailed"]),
        ("first record does not look like a TLS handshake", &["NotTls"]),
        ("certificate signed by unknown authority", &["UnknownAuthority"]),
        ("x509: ", &["CertificateUnusable"]),
        ("remote error: tls: bad certificate", &["ClientCertificateRejected"]),
        ("remote error: tls: certificate required", &["ClientCertificateRejected"]),
        ("remote error: tls: unknown certificate", &["ClientCertificateRejected"]),
        ("remote error: tls: expired certificate", &["ClientCertificateRejected"]),
        ("remote error: tls: unsupported certificate", &["ClientCertificateRejected"]),
        ("remote error: tls: revoked certificate", &["ClientCertificateRejected"]),
        ("remote error: tls: access denied", &["ClientCertificateRejected"]),
        ("remote error: tls: error decrypting message", &["ClientCertificateRejected"]),
        ("connect: connection refused", &["ConnectionRefused"]),
        ("i/o timeout", &["ConnectionTimedOut"]),
        ("no route to host", &["ConnectionTimedOut", "ConnectionRefused"]),
        ("network is unreachable", &["ConnectionTimedOut", "ConnectionRefused"]),
        // The server hung up. A rejected client certificate looks so when the alert loses the race.
        ("broken pipe", &["ClientCertificateRejected", "RpcFailed"]),
        ("connection reset by peer", &["ClientCertificateRejected", "NotTls", "RpcFailed"]),
        ("error reading server preface", &["ClientCertificateRejected", "NotTls", "RpcFailed"]),
        ("authentication handshake failed: EOF", &["NotTls", "ClientCertificateRejected"]),
    ];
    if let Some((_, kinds)) = WORDS.iter().find(|(words, _)| line.contains(words)) {
        return Some(Admitted::any(kinds));
    }
    // The transport failed in words that are not known here: any layer may have.
    if line.contains("connection error:") || line.contains("createTransport failed") {
        return Some(Admitted::any(&LINK));
    }
    let code: String = line
        .rsplit_once("code = ")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_alphabetic).collect())
        .filter(|code: &String| !code.is_empty())?;
    // The call waited for a connection until its time was over: which layer is not said.
    if code == "DeadlineExceeded" {
        return None;
    }
    Some(Admitted::exactly(Verdict::RpcFailed { code }))
}

/// Go's `x509.HostnameError`.
fn name_mismatch(line: &str) -> Option<Verdict> {
    let name = |text: &str| text.split(['"', ' ']).next().unwrap_or_default().to_owned();
    if let Some((_, rest)) = line.split_once("certificate is not valid for any names, but wanted to match ") {
        return Some(Verdict::CertificateNameMismatch { dialled: name(rest), valid_for: Vec::new() });
    }
    let (_, rest) = line.split_once("certificate is valid for ")?;
    let (names, dialled) = rest.split_once(", not ")?;
    Some(Verdict::CertificateNameMismatch {
        dialled: name(dialled),
        valid_for: names.split(", ").map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_log(name: &str) -> Option<Admitted> {
        let path = format!(
            "{}/../fixtures/data/logs/whisker-backend-v3.30.0-{name}.log",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(&path).unwrap();
        admitted(text.lines())
    }

    /// What a person reads in each recorded log of the real whisker-backend.
    #[test]
    fn recorded_logs_admit_what_a_reader_allows() {
        let rows: &[(&str, &[Kind])] = &[
            ("badca", &["UnknownAuthority"]),
            ("badclient", &["ClientCertificateRejected", "RpcFailed"]),
            ("nofile", &["WhiskerNotRunning"]),
            ("notls", &["NotTls"]),
            ("nx", &["NameNotFound", "NameServerFailed"]),
            ("refused", &["ConnectionRefused"]),
            ("san", &["CertificateNameMismatch"]),
        ];
        for (name, kinds) in rows {
            assert_eq!(
                of_log(name).unwrap_or_else(|| panic!("{name} says nothing")).kinds(),
                *kinds,
                "{name}"
            );
        }
        assert_eq!(of_log("good"), None, "context canceled in a healthy log means nothing");
    }

    #[test]
    fn a_name_mismatch_keeps_both_names() {
        let valid_for = [
            "goldmane",
            "goldmane.calico-system",
            "goldmane.calico-system.svc",
            "goldmane.calico-system.svc.corp.internal",
        ];
        let exact = Verdict::CertificateNameMismatch {
            dialled: "goldmane.calico-system.svc.cluster.local".to_owned(),
            valid_for: valid_for.map(str::to_owned).to_vec(),
        };
        let set = of_log("san").unwrap();
        assert!(set.contains(&exact));
        let other = Verdict::CertificateNameMismatch { dialled: "goldmane".to_owned(), valid_for: vec![] };
        assert!(!set.contains(&other));
    }

    #[test]
    fn a_missing_key_file_is_a_process_that_ended() {
        let reason = "failed to load keypair: open missing.crt: no such file or directory".to_owned();
        assert_eq!(of_log("nofile").unwrap().only(), Some(Verdict::WhiskerNotRunning { reason }));
    }

    /// Lines of other runs, as `facts/observed.md` has them.
    #[test]
    fn single_lines() {
        let rpc = "failed to list flows: rpc error: code = Unavailable desc = ";
        let rows: &[(&str, Option<Verdict>)] = &[
            (
                "dns: A record lookup error: lookup goldmane.calico-system.svc.cluster.local on 10.96.0.10:53: server misbehaving",
                Some(Verdict::NameServerFailed { name: "goldmane.calico-system.svc.cluster.local".into() }),
            ),
            (
                "dns: A record lookup error: lookup g.x on 10.96.0.10:53: read udp 10.0.0.1:4->10.96.0.10:53: i/o timeout",
                Some(Verdict::NameServerUnreachable { name: "g.x".into() }),
            ),
            (
                r#"connection error: desc = "transport: Error while dialing: dial tcp 10.96.29.94:7443: i/o timeout""#,
                Some(Verdict::ConnectionTimedOut),
            ),
            (
                r#"connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-24T17:13:28Z is after 2025-01-01T00:00:00Z""#,
                Some(Verdict::CertificateExpired { not_after: "2025-01-01T00:00:00Z".into() }),
            ),
            (
                r#"connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-24T17:13:28Z is before 2030-01-01T00:00:00Z""#,
                Some(Verdict::CertificateNotYetValid { not_before: "2030-01-01T00:00:00Z".into() }),
            ),
            (
                r#"connection error: desc = "transport: authentication handshake failed: remote error: tls: certificate required""#,
                Some(Verdict::ClientCertificateRejected),
            ),
            (
                "dns: A record lookup error: lookup g.x on 10.96.0.10:53: dial udp 10.96.0.10:53: connect: network is unreachable",
                Some(Verdict::NameServerUnreachable { name: "g.x".into() }),
            ),
            (
                "dns: A record lookup error: lookup g.x on 127.0.0.1:53: read udp 127.0.0.1:4->127.0.0.1:53: read: connection refused",
                Some(Verdict::NameServerUnreachable { name: "g.x".into() }),
            ),
            (
                r#"connection error: desc = "transport: Error while dialing: dial tcp 10.96.0.7:7443: connect: connection refused""#,
                Some(Verdict::ConnectionRefused),
            ),
            (
                r#"connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake""#,
                Some(Verdict::NotTls),
            ),
            (
                r#"connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority""#,
                Some(Verdict::UnknownAuthority),
            ),
            // Its parameters are in other words than ours.
            (
                r#"connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate specifies an incompatible key usage""#,
                None,
            ),
        ];
        for (desc, only) in rows {
            let line = format!("{rpc}{desc}");
            assert_eq!(admitted([line.as_str()]).and_then(|set| set.only()), *only, "{line}");
        }
        let unimplemented =
            "error=failed to list flows: rpc error: code = Unimplemented desc = unknown service";
        assert_eq!(
            admitted([unimplemented]).unwrap().only(),
            Some(Verdict::RpcFailed { code: "Unimplemented".into() })
        );
        let unknown = r#"rpc error: code = Unavailable desc = connection error: desc = "transport: authentication handshake failed: missing selected ALPN property""#;
        assert_eq!(admitted([unknown]).unwrap().kinds(), LINK, "unknown words are no RpcFailed");
        let fatal = "2026-11-24 17:13:37.345 [FATAL][1] whisker-backend/app.go 36: x error=gone";
        assert_eq!(
            admitted([fatal, unimplemented]).unwrap().kinds(),
            ["RpcFailed"],
            "a new process came after it"
        );
        assert_eq!(admitted([unimplemented, fatal]).unwrap().kinds(), ["WhiskerNotRunning"]);
        let waiting = "rpc error: code = Canceled desc = context canceled while waiting for connections to become ready";
        assert_eq!(admitted([waiting]), None);
        assert_eq!(admitted(["a line about x509: nothing"]), None);
        // Either word alone says that the caller hung up, whatever else is in the line.
        for hung_up in ["code = Canceled", "context canceled"] {
            assert_eq!(admitted([format!("{rpc}{hung_up} connect: connection refused").as_str()]), None);
        }
        // What gRPC-Go itself logs of a failed connection has no status.
        let transport =
            r#"addrConn.createTransport failed to connect: dial tcp: connect: connection refused"#;
        assert_eq!(admitted([transport]).unwrap().kinds(), ["ConnectionRefused"]);
    }
}
