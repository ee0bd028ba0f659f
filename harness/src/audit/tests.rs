//! Which names are found in what an operator renders.

use catwalk_fixtures::pki::{Authority, LeafRequest};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Whether a text of a Deployment's environment names another domain, and which Services it names in full.
fn in_text(own: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let object = json!({
        "kind": "Deployment", "metadata": {"name": "x", "namespace": "y"},
        "spec": {"env": [{"name": "V", "value": text}]},
    });
    found(&[object], own)
}

fn found(objects: &[Value], own: &str) -> (Vec<String>, Vec<String>) {
    let named = names(objects, &ClusterDomain::observed(own));
    (named.foreign.into_iter().map(|foreign| foreign.name).collect(), named.full.into_keys().collect())
}

#[test]
fn names_of_other_domains_are_told_from_the_cluster_s_own() {
    let label = "a".repeat(63);
    let long = format!("goldmane.calico-system.svc.{label}");
    let goldmane = |domain: &str| format!("goldmane.calico-system.svc.{domain}");
    let foreign =
        |own: &str, text: &str, name: &str| (own.to_owned(), text.to_owned(), Some(name.to_owned()));
    let nothing = |own: &str, text: &str| (own.to_owned(), text.to_owned(), None);
    let local = goldmane("cluster.local");
    let rows = [
        // Forms.
        foreign("corp.internal", &format!("{local}:7443"), &local),
        foreign("corp.internal", &format!("https://{local}:7443/api?x=y"), &local),
        foreign("corp.internal", &format!("a=1,{local},b"), &local),
        foreign("corp.internal", &format!("dial {local}. Then wait"), &local),
        foreign("corp.internal", "$(SERVICE).$(NAMESPACE).svc.cluster.local", "svc.cluster.local"),
        foreign("corp.internal", "*.calico-system.svc.cluster.local", "calico-system.svc.cluster.local"),
        foreign(
            "corp.internal",
            "Goldmane.Calico-System.SVC.Cluster.LOCAL.",
            "Goldmane.Calico-System.SVC.Cluster.LOCAL",
        ),
        foreign("corp.internal", r"one\ngoldmane.calico-system.svc.cluster.local\ttwo", &local),
        foreign("corp.internal", "cluster.local", "cluster.local"),
        foreign("corp.internal", "svc.cluster.local", "svc.cluster.local"),
        foreign(
            "corp.internal",
            "10-0-0-1.calico-system.pod.cluster.local",
            "10-0-0-1.calico-system.pod.cluster.local",
        ),
        // Other domains than cluster.local.
        foreign("corp.internal", &goldmane("old.domain"), &goldmane("old.domain")),
        foreign("corp.internal", &goldmane("corp"), &goldmane("corp")),
        foreign("corp.internal", "svc.old.domain", "svc.old.domain"),
        foreign("corp.internal", &goldmane("eu.corp.internal"), &goldmane("eu.corp.internal")),
        foreign("corp.internal", &goldmane("xcorp.internal"), &goldmane("xcorp.internal")),
        foreign("corp.internal", &goldmane("corp.internal.x"), &goldmane("corp.internal.x")),
        foreign("cluster.local", &goldmane("corp.internal"), &goldmane("corp.internal")),
        // Own domains that look like the default one.
        foreign("foo.cluster.local", &local, &local),
        nothing("foo.cluster.local", &goldmane("foo.cluster.local")),
        foreign("cluster.local.corp", &local, &local),
        nothing("cluster.local.corp", &goldmane("cluster.local.corp")),
        foreign("local", &local, &local),
        foreign("local", "cluster.local", "cluster.local"),
        nothing("local", &goldmane("local")),
        nothing("cluster.local", &local),
        nothing("cluster.local", "cluster.local"),
        nothing("Cluster.Local.", &local),
        // Own domains with a label svc.
        nothing("svc.local", &goldmane("svc.local")),
        nothing("svc.local", "svc.local"),
        foreign("svc.local", &local, &local),
        nothing("a.svc.b", &goldmane("a.svc.b")),
        nothing("a.svc.b", "a.svc.b"),
        foreign("a.svc.b", &goldmane("c.svc.b"), &goldmane("c.svc.b")),
        // Own domains of odd labels.
        nothing("corp", &goldmane("corp")),
        foreign("corp", &local, &local),
        nothing(&label, &long),
        foreign("corp", &long, &long),
        nothing("0day.42", &goldmane("0day.42")),
        nothing("xn--bcher-kva.example", &goldmane("XN--bcher-kva.example")),
        foreign("xn--bcher-kva.example", &goldmane("bücher.example"), &goldmane("bücher.example")),
        // Own names that are no Service's.
        nothing("corp.internal", "corp.internal"),
        nothing("corp.internal", "registry.corp.internal/calico/node"),
        nothing("corp.internal", "svc.corp.internal"),
        nothing("corp.internal", "proxy.svc.eu.corp.internal"),
        foreign("cluster.local", &goldmane("eu.cluster.local"), &goldmane("eu.cluster.local")),
        nothing("corp.internal", "10-0-0-1.svc.pod.corp.internal"),
        nothing("corp.internal", "_https._tcp.whisker.calico-system.svc.corp.internal"),
        // No domain at all.
        nothing("corp.internal", "goldmane.calico-system.svc:7443"),
        nothing("corp.internal", "kubernetes.default.svc"),
        nothing("corp.internal", "such as kubernetes.default.svc. No other usage is guaranteed"),
        nothing("corp.internal", "svc.calico-system.svc"),
        nothing("corp.internal", "/certs/goldmane.calico-system.svc.crt /etc/svc.d svc.config.yaml"),
        nothing("corp.internal", "quay.io/tigera/operator:v1.38.0 v3.30.0 10.96.0.10 a..b ... --x.y -"),
        nothing("corp.internal", "xcluster.local cluster.localx cluster.local.example"),
        nothing("corp.internal", ""),
    ];
    for (own, text, expected) in rows {
        let (foreign, _) = in_text(&own, &text);
        assert_eq!(foreign, Vec::from_iter(expected), "{text:?} under {own:?}");
    }
}

#[test]
fn full_names_are_those_of_services_in_the_own_domain() {
    let goldmane = ("goldmane.calico-system.svc.corp.internal", "goldmane.calico-system");
    let rows = [
        ("corp.internal", "https://Goldmane.calico-system.svc.corp.internal:443/x", Some(goldmane)),
        ("Corp.Internal.", "goldmane.calico-system.svc.Corp.Internal.:7443", Some(goldmane)),
        ("corp", "a.b.svc.corp", Some(("a.b.svc.corp", "a.b"))),
        ("a.svc.b", "x.y.svc.a.svc.b", Some(("x.y.svc.a.svc.b", "x.y"))),
        ("corp", "pod-0.a.b.svc.corp", Some(("pod-0.a.b.svc.corp", "a.b"))),
        ("corp", "svc.b.svc.corp", Some(("svc.b.svc.corp", "svc.b"))),
        ("corp", "b.svc.corp svc.corp x.corp a.b.pod.corp", None),
        ("corp", "a.b.svc", None),
    ];
    for (own, text, expected) in rows {
        let object = json!({"kind": "Service", "metadata": {"name": "x", "annotations": {"a": text}}});
        let named = names(&[object], &ClusterDomain::observed(own));
        let full = named.full.iter().map(|(name, (service, _))| (name.as_str(), service.as_str()));
        assert_eq!(Vec::from_iter(full), Vec::from_iter(expected), "{text:?}");
        assert!(named.foreign.is_empty(), "{text:?}");
    }
}

#[test]
fn a_field_is_written_as_a_person_would_find_it() {
    let wrong = "a.b.svc.cluster.local";
    let object = json!({
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": "y", "annotations": {"example.org/a": wrong, "plain": wrong}},
        "spec": {"template": {"spec": {
            "containers": [{
                "name": "c", "image": format!("{wrong}/image:1"), "args": ["--x", wrong],
                "env": [{"name": "E", "value": wrong}],
            }],
            "dnsConfig": {"searches": [wrong]},
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": [wrong]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": wrong}}]}}],
        }}},
    });
    let named = names(&[object], &ClusterDomain::observed("corp.internal"));
    let fields: Vec<&str> = named.foreign.iter().map(|foreign| foreign.field.as_str()).collect();
    let expected = [
        "metadata.annotations.plain",
        "metadata.annotations[example.org/a]",
        "spec.template.spec.containers[c].args[1]",
        "spec.template.spec.containers[c].env[E]",
        "spec.template.spec.dnsConfig.searches[0]",
        "spec.template.spec.hostAliases[0].hostnames[0]",
        "spec.template.spec.volumes[v].projected.sources[0].serviceAccountToken.audience",
    ];
    assert_eq!(fields, expected);
    assert!(named.foreign.iter().all(|foreign| foreign.object == "Deployment y/x"));
}

#[test]
fn what_the_api_server_and_kubectl_write_is_not_rendered() {
    let wrong = "a.b.svc.cluster.local";
    let object = json!({
        "kind": "APIService",
        "metadata": {
            "name": "v3.projectcalico.org",
            "managedFields": [{"manager": wrong}], "ownerReferences": [{"name": wrong}],
            "annotations": {crate::stage::objects::LAST_APPLIED: wrong},
        },
        "status": {"conditions": [{"message": wrong}]},
        "spec": {"caBundle": "bG9jYWw=", "service": {"name": "calico-api", "namespace": "calico-system"}},
    });
    assert_eq!(found(&[object], "corp.internal"), (vec![], vec![]));
}

#[test]
fn of_a_config_map_json_is_read_and_comments_are_not() {
    let pem = Authority::generate("x").unwrap().certificate_pem().to_owned();
    let corefile = "# was a.b.svc.cluster.local\n.:53 {\n  kubernetes corp.internal # not cluster.local\n\t#x.y.svc.z\n}";
    let windows = r#"{"plugins": [{"DNS": {"Search": ["svc.cluster.local"]}, "note": "{\"a\":\"x\\na.b.svc.corp.internal\"}"}]}"#;
    let config_map = |data: Value| json!({"kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
    let rows = [
        (json!({"Corefile": corefile}), vec![], vec![]),
        (json!({"one": "# a.b.svc.cluster.local"}), vec![], vec![]),
        (
            json!({"ca-bundle.crt": format!("# certificate name: a.b.svc.cluster.local\n{pem}\n\n")}),
            vec![],
            vec![],
        ),
        (json!({"config": windows}), vec!["svc.cluster.local"], vec!["a.b.svc.corp.internal"]),
        (json!({"url": "http://a.b.svc.cluster.local/#top"}), vec!["a.b.svc.cluster.local"], vec![]),
        (json!({"broken": "{ a.b.svc.cluster.local"}), vec!["a.b.svc.cluster.local"], vec![]),
        (
            json!({"nginx": "server {\n  proxy_pass https://a.b.svc.corp.internal; # a\n}"}),
            vec![],
            vec!["a.b.svc.corp.internal"],
        ),
    ];
    for (data, foreign, full) in rows {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let got = found(&[config_map(data.clone())], "corp.internal");
        assert_eq!(got, (owned(foreign), owned(full)), "{data}");
    }
}

#[test]
fn of_a_secret_the_names_in_its_certificates_are_read() {
    let authority = Authority::generate("x").unwrap();
    let mut request = LeafRequest::goldmane(&ClusterDomain::observed("corp.internal"));
    request.dns_names.push("goldmane.calico-system.svc.cluster.local".into());
    let leaf = authority.issue(&request).unwrap();
    let object = json!({
        "kind": "Secret", "metadata": {"name": "goldmane-key-pair", "namespace": "calico-system"},
        "certificates": {"tls.crt": format!("{}{}", leaf.certificate_pem(), authority.certificate_pem())},
    });
    let named = names(&[object], &ClusterDomain::observed("corp.internal"));
    let foreign = ForeignName {
        object: "Secret calico-system/goldmane-key-pair".into(),
        field: "certificates[tls.crt]".into(),
        name: "goldmane.calico-system.svc.cluster.local".into(),
    };
    assert_eq!(Vec::from_iter(named.foreign), [foreign]);
    assert_eq!(Vec::from_iter(named.full.into_keys()), ["goldmane.calico-system.svc.corp.internal"]);
}

#[test]
fn a_name_that_is_written_in_several_places_is_found_once_in_each() {
    let object = |name: &str| {
        json!({"kind": "Service", "metadata": {"name": name, "annotations": {
            "a": "x.y.svc.cluster.local x.y.svc.cluster.local", "b": "u.v.svc.corp.internal, U.v.svc.corp.internal",
        }}})
    };
    let named = names(&[object("two"), object("one")], &ClusterDomain::observed("corp.internal"));
    let objects: Vec<&str> = named.foreign.iter().map(|foreign| foreign.object.as_str()).collect();
    assert_eq!(objects, ["Service one", "Service two"]);
    let (_, named_by) = &named.full["u.v.svc.corp.internal"];
    assert_eq!(Vec::from_iter(named_by), ["Service one", "Service two"]);
}

/// The rule once more, slowly and on text alone.
fn obviously_foreign(name: &str, own: &str) -> bool {
    let is_in = |name: &str, domain: &str| name == domain || name.ends_with(&format!(".{domain}"));
    let in_own = is_in(name, own);
    if is_in(name, "cluster.local") && !(in_own && own.len() >= "cluster.local".len()) {
        return true;
    }
    let text = format!(".{}", if in_own { &name[..name.len() - own.len()] } else { name });
    let Some(at) = text.rfind(".svc.") else { return false };
    let is_service = text[..at].matches('.').count() >= 2;
    let domain = &text[at + ".svc.".len()..];
    if in_own {
        // Empty: the domain is the own one.
        return is_service && !domain.is_empty() && !text.ends_with(".pod.");
    }
    let is_file = name::FILES.iter().any(|file| is_in(domain, file));
    !is_in(domain, "svc") && !is_file && (is_service || domain.contains('.'))
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("svc".to_owned()),
        2 => Just("cluster".to_owned()),
        2 => Just("local".to_owned()),
        1 => Just("pod".to_owned()),
        1 => Just("corp".to_owned()),
        1 => Just("crt".to_owned()),
        1 => "[a-z0-9][a-z0-9-]{0,3}[a-z0-9]",
    ]
}

fn domain() -> impl Strategy<Value = String> {
    proptest::collection::vec(label(), 1..4).prop_map(|labels| labels.join("."))
}

proptest! {
    #[test]
    fn the_matcher_agrees_with_the_obvious_one(own in domain(), before in domain(), tail in domain(), use_own in any::<bool>()) {
        let name = format!("{before}.{}", if use_own { &own } else { &tail });
        let (foreign, _) = in_text(&own, &name);
        prop_assert_eq!(!foreign.is_empty(), obviously_foreign(&name, &own), "{} under {}", name, own);
    }

    #[test]
    fn a_name_is_found_whatever_stands_around_it(around in "[ ,;=\"'(){}<>/:@|]{1,3}", own in domain()) {
        let wrong = "goldmane.calico-system.svc.never.here";
        let (foreign, _) = in_text(&own, &format!("{around}{wrong}{around}"));
        prop_assert_eq!(foreign, [wrong]);
    }

    #[test]
    fn no_text_makes_the_search_fail(text in "\\PC*", own in "[a-zA-Z.]{0,12}") {
        let (foreign, full) = in_text(&own, &text);
        prop_assert!(foreign.iter().chain(&full).all(|name| name.contains('.')));
    }
}
