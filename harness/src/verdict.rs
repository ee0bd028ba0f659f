//! Verdicts: delivered, or the first broken layer with its parameters.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::ForeignName;

/// What a look at Whisker and Goldmane, or at what the operator rendered, comes to.
///
/// Two verdicts are equal only with all their parameters; [`Verdict::same_finding`] leaves out what differs between
/// two looks at the same defect (times, and the status at which a wait ended).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", deny_unknown_fields)]
pub enum Verdict {
    /// Whisker showed what was pushed to Goldmane.
    Delivered {
        /// Milliseconds from the question to the answer that showed it.
        after_ms: u64,
    },
    /// The cluster's DNS says that the name does not exist, or has no address.
    NameNotFound {
        /// The name that is dialled, without port.
        name: String,
    },
    /// The cluster's DNS answers with a failure (SERVFAIL, REFUSED).
    NameServerFailed {
        /// The name that is dialled, without port.
        name: String,
    },
    /// The cluster's DNS does not answer.
    NameServerUnreachable {
        /// The name that is dialled, without port.
        name: String,
    },
    /// The address is there and nothing listens.
    ConnectionRefused,
    /// Packets to the address are dropped.
    ConnectionTimedOut,
    /// The peer does not speak TLS.
    NotTls,
    /// Goldmane's certificate does not cover the name that is dialled.
    CertificateNameMismatch {
        /// The name that is dialled, without port.
        dialled: String,
        /// The names in the certificate, in its order.
        valid_for: Vec<String>,
    },
    /// Whisker does not trust the issuer of Goldmane's certificate.
    UnknownAuthority,
    /// Goldmane's certificate, or its issuer's, has expired.
    CertificateExpired {
        /// The end of its validity, RFC 3339, UTC.
        not_after: String,
    },
    /// Goldmane's certificate, or its issuer's, is not valid yet.
    CertificateNotYetValid {
        /// The start of its validity, RFC 3339, UTC.
        not_before: String,
    },
    /// Goldmane's certificate breaks another rule that Go holds it to, such as its extended key usage.
    CertificateUnusable {
        /// Go's words.
        reason: String,
    },
    /// Goldmane refuses Whisker's certificate.
    ClientCertificateRejected,
    /// The connection stands, and the call fails.
    RpcFailed {
        /// The gRPC status code's name, `Unimplemented`.
        code: String,
    },
    /// Whisker's process is not there to be asked.
    WhiskerNotRunning {
        /// What is seen of it.
        reason: String,
    },
    /// Whisker answers with neither a listing nor its words for a failed call.
    WhiskerFailed {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// Whisker lists flows, and the one that was pushed is not among them.
    FlowMissing,
    /// What the operator rendered names no cluster domain but the cluster's own, or is served by every name.
    Clean {
        /// How many objects were looked at.
        objects: usize,
        /// How many different full names of the cluster's own domain are in them.
        names: usize,
        /// Those of them whose Service does not exist, where that was looked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        without_service: Vec<String>,
    },
    /// What the operator rendered names another cluster domain.
    NamesForeignDomain {
        /// Each name with its place, sorted.
        names: Vec<ForeignName>,
    },
    /// What the operator rendered names Services that exist, by names that do not lead to them.
    NamesNotServed {
        /// Each name with what is broken, sorted by name.
        names: Vec<Unserved>,
    },
    /// Nothing could be said before the deadline.
    TimedOut {
        /// What was last seen.
        last: String,
    },
}

/// A full name in rendered objects that does not lead to its Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unserved {
    /// The objects that name it, sorted.
    pub named_by: Vec<String>,
    /// The first broken layer, with the name.
    pub why: Verdict,
}

/// A verdict's name without its parameters.
pub type Kind = &'static str;

impl Verdict {
    /// Its name.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Delivered { .. } => "Delivered",
            Self::NameNotFound { .. } => "NameNotFound",
            Self::NameServerFailed { .. } => "NameServerFailed",
            Self::NameServerUnreachable { .. } => "NameServerUnreachable",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::ConnectionTimedOut => "ConnectionTimedOut",
            Self::NotTls => "NotTls",
            Self::CertificateNameMismatch { .. } => "CertificateNameMismatch",
            Self::UnknownAuthority => "UnknownAuthority",
            Self::CertificateExpired { .. } => "CertificateExpired",
            Self::CertificateNotYetValid { .. } => "CertificateNotYetValid",
            Self::CertificateUnusable { .. } => "CertificateUnusable",
            Self::ClientCertificateRejected => "ClientCertificateRejected",
            Self::RpcFailed { .. } => "RpcFailed",
            Self::WhiskerNotRunning { .. } => "WhiskerNotRunning",
            Self::WhiskerFailed { .. } => "WhiskerFailed",
            Self::FlowMissing => "FlowMissing",
            Self::Clean { .. } => "Clean",
            Self::NamesForeignDomain { .. } => "NamesForeignDomain",
            Self::NamesNotServed { .. } => "NamesNotServed",
            Self::TimedOut { .. } => "TimedOut",
        }
    }

    /// Whether both are the same finding: equal but for times, counts and a wait's last status.
    pub fn same_finding(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Delivered { .. }, Self::Delivered { .. })
            | (Self::Clean { .. }, Self::Clean { .. })
            | (Self::TimedOut { .. }, Self::TimedOut { .. }) => true,
            (Self::NamesNotServed { names: a }, Self::NamesNotServed { names: b }) => {
                let same =
                    |(a, b): (&Unserved, &Unserved)| a.named_by == b.named_by && a.why.same_finding(&b.why);
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            _ => self == other,
        }
    }

    /// Whether time alone may cure it. The others need a change of what is deployed, so a second look that agrees
    /// settles them.
    pub fn may_pass(&self) -> bool {
        if let Self::NamesNotServed { names } = self {
            return names.iter().any(|name| name.why.may_pass());
        }
        matches!(
            self,
            Self::NameServerUnreachable { .. }
                | Self::ConnectionRefused
                | Self::ConnectionTimedOut
                | Self::RpcFailed { .. }
                | Self::WhiskerNotRunning { .. }
                | Self::WhiskerFailed { .. }
                | Self::FlowMissing
                | Self::CertificateNotYetValid { .. }
                | Self::TimedOut { .. }
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Delivered { after_ms } => write!(f, "{kind} after {after_ms} ms"),
            Self::NameNotFound { name }
            | Self::NameServerFailed { name }
            | Self::NameServerUnreachable { name } => write!(f, "{kind}: {name}"),
            Self::CertificateNameMismatch { dialled, valid_for } => {
                write!(f, "{kind}: dialled {dialled}, valid for {}", valid_for.join(", "))
            }
            Self::CertificateExpired { not_after } => write!(f, "{kind}: since {not_after}"),
            Self::CertificateNotYetValid { not_before } => write!(f, "{kind}: until {not_before}"),
            Self::CertificateUnusable { reason } | Self::WhiskerNotRunning { reason } => {
                write!(f, "{kind}: {reason}")
            }
            Self::RpcFailed { code } => write!(f, "{kind}: {code}"),
            Self::WhiskerFailed { status, body } => write!(f, "{kind}: status {status}, {body:?}"),
            Self::Clean { objects, names, without_service } => {
                write!(f, "{kind}: {objects} objects, {names} full names")?;
                match without_service.as_slice() {
                    [] => Ok(()),
                    without => write!(f, ", without a Service {}", without.join(", ")),
                }
            }
            Self::NamesForeignDomain { names } => match believed(names) {
                Some(domain) => {
                    write!(f, "{kind}: the operator takes the cluster domain to be {domain}: {}", join(names))
                }
                None => write!(f, "{kind}: {}", join(names)),
            },
            Self::NamesNotServed { names } => write!(f, "{kind}: {}", join(names)),
            Self::TimedOut { last } => write!(f, "{kind}: last seen: {last}"),
            Self::ConnectionRefused
            | Self::ConnectionTimedOut
            | Self::NotTls
            | Self::UnknownAuthority
            | Self::ClientCertificateRejected
            | Self::FlowMissing => f.write_str(kind),
        }
    }
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (in {})", self.why, self.named_by.join(", "))
    }
}

/// The other domain for which the operator itself issued Goldmane's certificate: then it is not one name that is wrong,
/// it believes to be in another cluster. It takes the domain from its own resolv.conf, from the first search domain that
/// begins with `svc.` (operator v1.38.0, `pkg/dns`, `GetClusterDomain`).
fn believed(names: &[ForeignName]) -> Option<&str> {
    let issued = names.iter().find(|name| {
        name.object == "Secret calico-system/goldmane-key-pair" && name.field.starts_with("certificates")
    });
    issued?.name.strip_prefix("goldmane.calico-system.svc.")
}

/// Each in its words, in one line.
pub(crate) fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_that_believes_in_another_domain_is_told_from_one_wrong_name() {
        let of = |object: &str, field: &str| ForeignName {
            object: object.into(),
            field: field.into(),
            name: "goldmane.calico-system.svc.corp.example".into(),
        };
        let whisker = of("Deployment calico-system/whisker", "env");
        let issued = of("Secret calico-system/goldmane-key-pair", "certificates[tls.crt]");
        let words = |names: Vec<ForeignName>| Verdict::NamesForeignDomain { names }.to_string();
        assert!(!words(vec![whisker.clone()]).contains("takes the cluster domain to be"));
        assert!(
            words(vec![whisker, issued])
                .contains("the operator takes the cluster domain to be corp.example: ")
        );
        // Both must be so: a certificate in another Secret, and another field of that one, say nothing of the kind.
        let elsewhere = of("Secret calico-system/whisker-backend-key-pair", "certificates[tls.crt]");
        let other_field = of("Secret calico-system/goldmane-key-pair", "metadata.annotations");
        assert!(!words(vec![elsewhere, other_field]).contains("takes the cluster domain to be"));
    }

    fn unserved(by: &str, why: Verdict) -> Unserved {
        Unserved { named_by: vec![by.to_owned()], why }
    }

    #[test]
    fn what_differs_between_two_looks_at_one_defect_is_no_difference() {
        let timed_out = |last: &str| Verdict::TimedOut { last: last.into() };
        let clean = |objects| Verdict::Clean { objects, names: 1, without_service: vec![] };
        let served = |names: &[Unserved]| Verdict::NamesNotServed { names: names.to_vec() };
        let name = |name: &str| Verdict::NameNotFound { name: name.into() };
        let a = || unserved("a", timed_out("x"));
        let rows = [
            (Verdict::Delivered { after_ms: 1 }, Verdict::Delivered { after_ms: 2 }, true),
            (clean(1), clean(2), true),
            (timed_out("x"), timed_out("y"), true),
            (name("a"), name("a"), true),
            (name("a"), name("b"), false),
            (clean(1), timed_out("x"), false),
            (served(&[a()]), served(&[unserved("a", timed_out("y"))]), true),
            (served(&[a()]), served(&[unserved("b", timed_out("x"))]), false),
            (served(&[a()]), served(&[unserved("a", Verdict::NotTls)]), false),
            (served(&[a()]), served(&[a(), a()]), false),
            (served(&[a(), unserved("b", name("x"))]), served(&[a(), unserved("b", name("y"))]), false),
        ];
        for (a, b, same) in rows {
            assert_eq!(a.same_finding(&b), same, "{a} and {b}");
            assert_eq!(b.same_finding(&a), same, "{b} and {a}");
        }
    }

    #[test]
    fn time_cures_what_is_on_its_way_and_no_wrong_name() {
        let name = || Verdict::NameNotFound { name: "x".into() };
        let served = |why| Verdict::NamesNotServed { names: vec![unserved("a", name()), unserved("b", why)] };
        let rows = [
            (Verdict::ConnectionRefused, true),
            (Verdict::FlowMissing, true),
            (name(), false),
            (Verdict::UnknownAuthority, false),
            (served(Verdict::ConnectionTimedOut), true),
            (served(Verdict::NotTls), false),
        ];
        for (verdict, may) in rows {
            assert_eq!(verdict.may_pass(), may, "{verdict}");
        }
        assert_eq!(
            served(Verdict::NotTls).to_string(),
            "NamesNotServed: NameNotFound: x (in a); NotTls (in b)"
        );
    }
}
