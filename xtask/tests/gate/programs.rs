//! Whose programs ran: a release's own, all of them known, and as its registry has them.

use super::*;

#[test]
fn which_programs_ran_must_be_known_and_they_must_be_the_release_s() {
    let files = Files::new();
    let policy = format!("pulled_images = true\n{POLICY}");
    let pulled = |edit: &dyn Fn(&mut Value)| {
        let mut report = evidence(GOOD);
        for (name, digest) in report["environments"][0]["provenance"].as_object_mut().unwrap() {
            if let Some(image) = name.strip_prefix("image ") {
                *digest = json!(format!("{}@sha256:0f", image.rsplit_once(':').unwrap().0));
            }
        }
        edit(&mut report);
        files.gate(&policy, &[&bytes(&report)])
    };
    let (code, said) = pulled(&|_| {});
    assert_eq!(code, 0, "{said}");
    let unknown = "it is not known which operator ran";
    let no_operator = |report: &mut Value| {
        let provenance = report["environments"][0]["provenance"].as_object_mut().unwrap();
        provenance.retain(|name, _| !name.contains("operator:"));
    };
    let (code, said) = pulled(&no_operator);
    assert!(code == 1 && said.contains(unknown), "{said}");
    // Of a candidate too, though no table says which it should be.
    let as_candidate = |report: &mut Value| {
        *report = serde_json::from_str(&report.to_string().replace("v3.30.1", "v9.9.9-rc1")).unwrap();
    };
    let (code, said) = pulled(&as_candidate);
    assert_eq!(code, 0, "{said}");
    let (code, said) = pulled(&|report| {
        as_candidate(report);
        no_operator(report);
    });
    assert!(code == 1 && said.contains(unknown), "{said}");
    // Where none ran, or the environment could not be had, other reasons say so.
    let (code, said) = pulled(&|report| {
        report["modelled"] = json!(true);
        report["environments"][0]["about"]["modelled"] = json!(true);
        report["environments"][0]["provenance"] = json!({});
    });
    assert!(code == 1 && said.contains("is modelled") && !said.contains(unknown), "{said}");
    let (code, said) = pulled(&|report| {
        report["environments"][0]["problem"] = json!("no cluster");
        report["environments"][0]["provenance"] = json!({});
    });
    assert!(code == 1 && said.contains("no cluster") && !said.contains(unknown), "{said}");
    let (code, said) = pulled(&|report| {
        let provenance = report["environments"][0]["provenance"].as_object_mut().unwrap();
        for digest in provenance.values_mut().filter(|digest| digest.as_str().unwrap().contains('@')) {
            *digest = json!(format!("{} (not confirmed by its registry)", digest.as_str().unwrap()));
        }
    });
    assert!(code == 1 && said.contains("its registry did not say that it is the same there"), "{said}");
}

/// A release's own name says nothing where somebody else's programs ran under it.
#[test]
fn another_image_in_place_of_a_release_s_is_refused_whatever_it_is_called() {
    let files = Files::new();
    let of = "image docker.io/calico/goldmane:v3.30.1";
    let rows = [
        ("docker.io/calico/goldmane:v3.30.0", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("registry.example/mine:dev", "and v3.30.1 has none that is called so"),
        ("registry.example/calico/goldmane:v3.30.1", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("docker.io/calico/goldmane@sha256:0f", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("catwalk/goldmane:v3.30.1", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("catwalk/catwalk-goldmane:v3.30.1", "and v3.30.1 has none that is called so"),
        ("quay.io/calico/goldmane:v3.30.1", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("registry.k8s.io/goldmane:v3.30.1", "and v3.30.1 has calico/goldmane:v3.30.1"),
        ("docker.io/other/calico/goldmane:v3.30.1", "and v3.30.1 has calico/goldmane:v3.30.1"),
    ];
    for (image, expected) in rows {
        let mut report = evidence(GOOD);
        let provenance = report["environments"][0]["provenance"].as_object_mut().unwrap();
        let digest = provenance.remove(of).unwrap();
        provenance.insert(format!("image {image}"), digest);
        for (code, said) in [files.gate(POLICY, &[&bytes(&report)]), files.conformance(None, &[&report])] {
            assert_eq!(code, 1, "{image}: {said}");
            assert!(said.contains(&format!("image {image} ran, {expected}")), "{image}: {said}");
        }
    }
    for program in ["operator", "goldmane", "whisker", "whisker-backend"] {
        let mut report = evidence(GOOD);
        let provenance = report["environments"][0]["provenance"].as_object_mut().unwrap();
        provenance.retain(|name, _| !name.contains(&format!("/{program}:")));
        for (code, said) in [files.gate(POLICY, &[&bytes(&report)]), files.conformance(None, &[&report])] {
            assert_eq!(code, 1, "{program}: {said}");
            assert!(said.contains(&format!("it is not known which {program} ran")), "{said}");
        }
    }
}

#[test]
fn pods_that_something_else_connected_show_nothing_of_a_release() {
    let files = Files::new();
    let mut report = evidence(GOOD);
    report["given"] = json!(["--cni none"]);
    let (code, said) = files.gate(POLICY, &[&bytes(&report)]);
    assert!(code == 1 && said.contains("with --cni none: calico-node did not connect the pods"), "{said}");
    // Other flags change nothing of what is claimed, and stand beside it.
    report["given"] = json!(["--kubernetes v1.31.0"]);
    let (code, said) = files.gate(POLICY, &[&bytes(&report)]);
    assert_eq!(code, 0, "{said}");
    let stated = files.state(&[&report]);
    assert_eq!(stated["supports"][0]["with"], json!(["--kubernetes v1.31.0"]));
}
