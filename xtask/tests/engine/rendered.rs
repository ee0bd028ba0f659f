//! What is rendered for a domain, on a new control plane and on one that has served another.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

/// What was rendered for a domain: without addresses, certificates, and what the API server counts.
fn rendered(report: &Path, environment: &str) -> BTreeMap<String, Value> {
    let file = report.join("evidence").join(environment).join("objects.json");
    let objects: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    objects
        .into_iter()
        .map(|mut object| {
            without_what_differs(&mut object);
            (catwalk_harness::audit::title(&object), object)
        })
        .collect()
}

fn without_what_differs(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                let differs = ["clusterIP", "clusterIPs", "caBundle", "status", "generation"];
                let counts = ["hash.operator.tigera.io", "template.generation"];
                !differs.contains(&key.as_str()) && !counts.iter().any(|word| key.contains(word))
            });
            map.values_mut().for_each(without_what_differs);
        }
        Value::Array(items) => items.iter_mut().for_each(without_what_differs),
        // The project's image is the run's own.
        Value::String(text) if text.starts_with("catwalk/") => text.truncate("catwalk/".len()),
        Value::String(text) if text.contains("BEGIN CERTIFICATE") => *text = "a certificate".to_owned(),
        // The API server of another run has another address.
        Value::String(text) => {
            let parts = text.split_inclusive(|c: char| !c.is_ascii_digit() && c != '.');
            *text = parts.map(without_address).collect();
        }
        _ => {}
    }
}

/// The part of a text up to its separator, an address in it by a word.
fn without_address(part: &str) -> String {
    let word = part.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
    match word.parse::<std::net::Ipv4Addr>() {
        Ok(_) => format!("an address{}", &part[word.len()..]),
        Err(_) => part.to_owned(),
    }
}

/// With `CATWALK_MANIFESTS`, a folder with Calico's manifests, by the real operator; else by its stand-in.
#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn a_second_domain_is_rendered_as_on_a_new_control_plane() {
    let state = tempfile::tempdir().unwrap();
    let manifests = std::env::var("CATWALK_MANIFESTS").ok();
    let of = |domains: &[&str]| {
        let report = tempfile::tempdir().unwrap();
        let folder = report.path().to_str().unwrap();
        let mut words =
            vec!["e2e", "--stage", "nodeless", "--calico", "v3.30.1", "--jobs", "1", "--report", folder];
        domains.iter().for_each(|domain| words.extend(["--domain", domain]));
        match &manifests {
            Some(manifests) => words.extend(["--manifests", manifests]),
            None => words.push("--standin"),
        }
        let run = xtask(state.path(), &words).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        report
    };
    let [one, both] = [of(&["corp.internal"]), of(&["corp.internal", "k8s.example.org"])];
    let two = of(&["k8s.example.org"]);
    let mut reused = 0;
    for (domain, fresh) in [("corp.internal", &one), ("k8s.example.org", &two)] {
        let environment = format!("v3.30.1-{domain}-strict");
        let (fresh, now) = (rendered(fresh.path(), &environment), rendered(both.path(), &environment));
        assert!(fresh.len() >= 10, "{:?}", fresh.keys());
        assert_eq!(fresh.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>(), "{domain}");
        for (title, object) in &fresh {
            assert!(*object == now[title], "{domain}: {title}\n{object}\n{}", now[title]);
        }
        let report: Report =
            serde_json::from_slice(&std::fs::read(both.path().join("report.json")).unwrap()).unwrap();
        let found = report.environments.into_iter().find(|e| e.id == environment).unwrap();
        reused += usize::from(found.timings.iter().any(|span| span.part == "clear"));
    }
    // Whichever came second, it came onto the control plane of the first.
    assert_eq!(reused, 1);
}
