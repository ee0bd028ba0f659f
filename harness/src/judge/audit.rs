//! From what an audit saw to a verdict.

use catwalk_fixtures::verify::Defect;

use super::{Judgement, defects, of_defect, unresolved};
use crate::audit::{Audit, FullName};
use crate::sight::{Connection, Dial, TlsEnd, TlsSeen};
use crate::verdict::{Unserved, Verdict};

/// Judges what an audit saw.
pub fn judge(audit: &Audit) -> Judgement {
    let verdict = match audit {
        Audit::Rendered { objects: 0, .. } | Audit::Served { objects: 0, .. } => {
            Verdict::TimedOut { last: "the operator has rendered nothing".to_owned() }
        }
        Audit::Rendered { objects, own, foreign, .. } if foreign.is_empty() => {
            Verdict::Clean { objects: *objects, names: *own, without_service: Vec::new() }
        }
        Audit::Rendered { foreign, .. } => Verdict::NamesForeignDomain { names: foreign.clone() },
        Audit::Served { objects, names } => served(*objects, names),
    };
    Judgement { verdict, disagreement: None, further_defects: Vec::new() }
}

fn served(objects: usize, names: &[FullName]) -> Verdict {
    let unserved: Vec<Unserved> = names
        .iter()
        .filter_map(|name| Some(Unserved { named_by: name.named_by.clone(), why: broken(name)? }))
        .collect();
    if !unserved.is_empty() {
        return Verdict::NamesNotServed { names: unserved };
    }
    let without_service = names.iter().filter(|name| !name.exists).map(|name| name.name.clone()).collect();
    Verdict::Clean { objects, names: names.len(), without_service }
}

/// The first layer that does not serve a name; none where there is no Service to serve it.
fn broken(name: &FullName) -> Option<Verdict> {
    let not_seen = |what: &str| Verdict::TimedOut { last: format!("{}: {what} was not seen", name.name) };
    if !name.exists {
        return None;
    }
    let Some(dial) = &name.dial else { return Some(not_seen("its address")) };
    if let Some(why) = &dial.not_seen {
        return Some(Verdict::TimedOut { last: format!("{}: {why}", name.name) });
    }
    if let Some(verdict) = unresolved(&name.name, &dial.names) {
        return Some(verdict);
    }
    if name.not_dialled.is_some() {
        return None;
    }
    answered(dial, not_seen)
}

/// Whether a certificate for the name answers there.
fn answered(dial: &Dial, not_seen: impl Fn(&str) -> Verdict) -> Option<Verdict> {
    match &dial.connection {
        Some(Connection::Open(_)) => {}
        Some(Connection::Refused) => return Some(Verdict::ConnectionRefused),
        Some(Connection::TimedOut) => return Some(Verdict::ConnectionTimedOut),
        None => return Some(not_seen("the connection")),
    }
    match &dial.tls {
        Some(TlsSeen { end: TlsEnd::NotTls, .. }) => Some(Verdict::NotTls),
        Some(tls) if !tls.chain.is_empty() => not_covered(tls),
        _ => Some(not_seen("the certificate")),
    }
}

/// Whether the certificate is for another name. What else may be wrong with it, the scenarios that dial as Whisker
/// does find.
fn not_covered(tls: &TlsSeen) -> Option<Verdict> {
    let found = match defects(tls) {
        Ok(found) => found,
        Err(e) => return Some(Verdict::CertificateUnusable { reason: e.to_string() }),
    };
    let is_of_names = |defect: &Defect| {
        matches!(
            defect,
            Defect::NameMismatch { .. }
                | Defect::NoNames { .. }
                | Defect::LegacyCommonName { .. }
                | Defect::Malformed { .. }
        )
    };
    found.into_iter().find(is_of_names).map(|defect| of_defect(defect, &tls.name))
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
