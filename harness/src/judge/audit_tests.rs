//! What an audit's evidence comes to where no stage shows it.

use catwalk_fixtures::ClusterDomain;

use super::*;
use crate::sight::{DnsAnswer, Vantage};

fn name(dial: Option<Dial>) -> FullName {
    FullName {
        name: "goldmane.calico-system.svc.corp.internal".into(),
        service: "goldmane.calico-system".into(),
        named_by: vec!["Deployment calico-system/whisker".into()],
        exists: true,
        dial,
        not_dialled: None,
    }
}

fn dial() -> Dial {
    let name = "goldmane.calico-system.svc.corp.internal.".to_owned();
    Dial {
        vantage: Vantage::PortForward,
        target: "goldmane.calico-system.svc.corp.internal:7443".into(),
        names: vec![(name, DnsAnswer::Addresses(vec![[10, 96, 0, 1].into()]))],
        connection: Some(Connection::Open(None)),
        tls: None,
        call: None,
        not_seen: None,
    }
}

fn verdict(name: FullName) -> Verdict {
    judge(&Audit::Served { objects: 3, names: vec![name] }).verdict
}

#[test]
fn what_was_not_seen_is_never_clean() {
    let tls = |end| TlsSeen { chain: vec![], roots: vec![], name: "x".into(), now: String::new(), end };
    let rows = [
        None,
        Some(Dial { names: vec![], ..dial() }),
        Some(Dial { connection: None, ..dial() }),
        Some(dial()),
        Some(Dial { tls: Some(tls(TlsEnd::Complete)), ..dial() }),
        Some(Dial { tls: Some(tls(TlsEnd::Alert("HandshakeFailure".into()))), ..dial() }),
        Some(Dial { not_seen: Some("no port-forward".into()), ..dial() }),
    ];
    for row in rows {
        let words = format!("{row:?}");
        let Verdict::NamesNotServed { names } = verdict(name(row)) else { panic!("{words}") };
        assert!(matches!(names[0].why, Verdict::TimedOut { .. }), "{words}");
        assert!(verdict(name(None)).may_pass(), "{words}");
    }
}

#[test]
fn a_name_that_is_not_dialled_is_served_by_its_address() {
    let not_dialled = Some("only Goldmane's certificate is asked for".to_owned());
    let served = FullName { not_dialled: not_dialled.clone(), ..name(Some(dial())) };
    assert_eq!(verdict(served), Verdict::Clean { objects: 3, names: 1, without_service: vec![] });
    let no_address = vec![("x.".to_owned(), DnsAnswer::Addresses(vec![]))];
    let unserved = FullName { not_dialled, ..name(Some(Dial { names: no_address, ..dial() })) };
    assert!(matches!(verdict(unserved), Verdict::NamesNotServed { .. }));
}

#[test]
fn nothing_rendered_is_no_success() {
    let nothing = [
        Audit::Served { objects: 0, names: vec![] },
        Audit::Rendered {
            domain: ClusterDomain::observed("corp.internal"),
            objects: 0,
            own: 0,
            foreign: vec![],
        },
    ];
    for audit in nothing {
        assert!(matches!(judge(&audit).verdict, Verdict::TimedOut { .. }), "{audit:?}");
    }
}

#[test]
fn a_foreign_name_is_never_clean_and_none_is() {
    let foreign = crate::audit::ForeignName {
        object: "Deployment calico-system/whisker".into(),
        field: "spec".into(),
        name: "goldmane.calico-system.svc.cluster.local".into(),
    };
    let rendered = |foreign: Vec<_>| {
        let domain = ClusterDomain::observed("corp.internal");
        judge(&Audit::Rendered { domain, objects: 3, own: 2, foreign }).verdict
    };
    assert_eq!(rendered(vec![]), Verdict::Clean { objects: 3, names: 2, without_service: vec![] });
    assert_eq!(rendered(vec![foreign.clone()]), Verdict::NamesForeignDomain { names: vec![foreign] });
}

#[test]
fn a_name_is_served_by_a_certificate_that_covers_it() {
    use catwalk_fixtures::pki::{Authority, LeafRequest};
    let authority = Authority::generate("ours").unwrap();
    let of = |domain: &str| {
        let leaf = authority.issue(&LeafRequest::goldmane(&ClusterDomain::observed(domain))).unwrap();
        vec![leaf.certificate_pem().to_owned()]
    };
    let tls = |chain: Vec<String>, end| TlsSeen {
        chain,
        roots: vec![authority.certificate_pem().to_owned()],
        name: "goldmane.calico-system.svc.corp.internal".into(),
        now: "2026-11-24T00:00:00Z".into(),
        end,
    };
    let rows = [
        (tls(of("corp.internal"), TlsEnd::Complete), None),
        // What else is wrong with it, others find: here its time, which is not that of `now`.
        (TlsSeen { now: "2099-01-01T00:00:00Z".into(), ..tls(of("corp.internal"), TlsEnd::Complete) }, None),
        (tls(of("cluster.local"), TlsEnd::Complete), Some("CertificateNameMismatch")),
        (tls(of("cluster.local"), TlsEnd::NotTls), Some("NotTls")),
        (tls(vec![], TlsEnd::NotTls), Some("NotTls")),
    ];
    for (tls, expected) in rows {
        let words = format!("{:?}", tls.end);
        match (verdict(name(Some(Dial { tls: Some(tls), ..dial() }))), expected) {
            (Verdict::Clean { .. }, None) => {}
            (Verdict::NamesNotServed { names }, Some(kind)) => {
                assert_eq!(names[0].why.kind(), kind, "{words}")
            }
            (other, _) => panic!("{expected:?} {words}: {other}"),
        }
    }
}
