//! Host names in a text, and what each says of the cluster's domain.

use catwalk_fixtures::ClusterDomain;
use catwalk_fixtures::domain::DEFAULT;

/// The label before a cluster domain in the name of a Service (Kubernetes DNS specification 1.1.0, 2.3).
const SERVICES: &str = "svc";
/// The label before a cluster domain in the name of a pod.
const PODS: &str = "pod";
/// What ends the name of a file and no host's: none of them is, or can become, a domain of the public DNS.
pub(super) const FILES: [&str; 11] =
    ["cert", "conf", "crt", "csr", "json", "key", "log", "pem", "toml", "yaml", "yml"];

/// What a name says of the cluster's domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing, or that it is in the cluster's own.
    Nothing,
    /// It names a Service in full, in the cluster's own domain: `name.namespace` of the Service.
    Full { service: String },
    /// It names another cluster domain.
    Foreign,
}

/// The cluster's own domain, by labels.
pub(super) struct Own(Vec<String>);

impl Own {
    pub(super) fn new(domain: &ClusterDomain) -> Self {
        let domain = domain.as_str().to_ascii_lowercase();
        Self(domain.strip_suffix('.').unwrap_or(&domain).split('.').map(str::to_owned).collect())
    }

    /// Compares as DNS compares (RFC 4343), label by label.
    pub(super) fn says(&self, name: &str) -> Says {
        let name = name.to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        if labels.len() < 2 {
            return Says::Nothing;
        }
        let own: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let default: Vec<&str> = DEFAULT.split('.').collect();
        let in_default = labels.ends_with(&default);
        let Some(before) = labels.strip_suffix(own.as_slice()) else {
            return if in_default || is_foreign(&labels) { Says::Foreign } else { Says::Nothing };
        };
        // Of `cluster.local` and an own domain that both end a name, the longer one is meant.
        if in_default && own.len() < default.len() {
            return Says::Foreign;
        }
        // Fewer labels before it are no Service's name, and a namespace may be called svc.
        let Some(at) = before.iter().rposition(|label| *label == SERVICES).filter(|at| *at >= 2) else {
            return Says::Nothing;
        };
        if at + 1 == before.len() {
            // `_https._tcp.whisker.calico-system.svc.corp.internal` has no address (RFC 2782).
            let has_address = !name.starts_with('_');
            return if has_address {
                Says::Full { service: before[at - 2..at].join(".") }
            } else {
                Says::Nothing
            };
        }
        // `whisker.calico-system.svc.eu.corp.internal` under corp.internal: in the domain of another cluster.
        if before.last() == Some(&PODS) { Says::Nothing } else { Says::Foreign }
    }
}

/// Whether it is a name in a cluster domain that is not known: a Service's in full, or a resolver's search domain. For
/// a search domain of one label (`svc.corp`) there is no telling it from other words with a dot.
fn is_foreign(labels: &[&str]) -> bool {
    let Some(at) = labels.iter().rposition(|label| *label == SERVICES) else { return false };
    let domain = &labels[at + 1..];
    let is_file = domain.last().is_some_and(|last| FILES.contains(last));
    let is_whole = !domain.is_empty() && domain.iter().all(|label| !label.is_empty());
    is_whole && !is_file && (at >= 2 || domain.len() >= 2)
}

/// Every run of a text's characters that a host name may have, from its first letter, digit or underscore to its last.
///
/// The text of a PEM block has no dot, so nothing in it is taken for a name.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    // A line break that is written as `\n`, in text that is no JSON, ends a name as a real one does.
    let lines = text.split(r"\n").flat_map(|part| part.split(r"\t")).flat_map(|part| part.split(r"\r"));
    lines
        .flat_map(move |line| line.split(move |c: char| !is_part(c)))
        .map(|word| word.trim_matches(['.', '-']))
        .filter(|word| word.contains('.'))
}
