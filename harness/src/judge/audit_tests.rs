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
