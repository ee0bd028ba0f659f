//! Which image stands for which: a registry in place of the published one, images of one's own by name.

use std::collections::BTreeMap;

use super::NoEnvironment;

/// Images in place of others.
#[derive(Clone, Debug, Default)]
pub struct Substitutes {
    /// In place of every image's registry, `registry.example/mirror`.
    pub registry: Option<String>,
    /// References by name: the last part of a repository's path, `goldmane`.
    pub images: BTreeMap<String, String>,
}

impl Substitutes {
    /// What is run where `reference` is asked for.
    pub fn of(&self, reference: &str) -> String {
        if let Some(own) = self.images.get(name(reference)) {
            return own.clone();
        }
        match &self.registry {
            Some(registry) => format!("{}/{}", registry.trim_end_matches('/'), path(reference)),
            None => reference.to_owned(),
        }
    }

    /// Why an image was not pulled, with what it stands for and how to name another.
    pub(super) fn not_pulled(e: NoEnvironment, wanted: &str, reference: &str) -> NoEnvironment {
        let stands_for =
            if wanted == reference { String::new() } else { format!(" (it stands for {reference})") };
        let name = name(reference);
        NoEnvironment {
            what: format!("{}{stands_for}", e.what),
            fix: e.fix.map(|fix| format!("{fix}; or name another with --image {name}=REF or --registry")),
        }
    }
}

/// The last part of a reference's repository, without tag and digest.
pub(super) fn name(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split(['@', ':']).next().unwrap_or(last)
}

/// A reference without its registry (distribution/reference: the first part is a registry if it has a dot or a colon,
/// or is `localhost`).
fn path(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => reference,
    }
}

/// A reference as containerd writes it: with its registry, and its tag (distribution/reference, "familiar names").
pub(crate) fn normalized(reference: &str) -> String {
    let path = path(reference);
    let registry = reference.strip_suffix(path).unwrap_or_default();
    let full = match (registry, path.contains('/')) {
        ("" | "docker.io/", false) => format!("docker.io/library/{path}"),
        ("", true) => format!("docker.io/{path}"),
        _ => reference.to_owned(),
    };
    let last = full.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_a_registry() {
        let images = BTreeMap::from([("goldmane".to_owned(), "mine/goldmane:dev".to_owned())]);
        let substitutes = Substitutes { registry: Some("mirror.example/quay/".into()), images };
        for (reference, expected) in [
            ("docker.io/calico/goldmane:v3.30.1", "mine/goldmane:dev"),
            ("calico/goldmane@sha256:0", "mine/goldmane:dev"),
            ("quay.io/tigera/operator:v1.38.1", "mirror.example/quay/tigera/operator:v1.38.1"),
            ("calico/whisker:v3.30.1", "mirror.example/quay/calico/whisker:v3.30.1"),
            ("localhost:5000/calico/whisker:x", "mirror.example/quay/calico/whisker:x"),
        ] {
            assert_eq!(substitutes.of(reference), expected);
        }
        assert_eq!(Substitutes::default().of("calico/whisker:x"), "calico/whisker:x");
    }

    #[test]
    fn a_reference_is_written_as_containerd_does() {
        for (reference, expected) in [
            ("calico/goldmane:v3.30.1", "docker.io/calico/goldmane:v3.30.1"),
            ("docker.io/calico/goldmane:v3.30.1", "docker.io/calico/goldmane:v3.30.1"),
            ("quay.io/tigera/operator:v1.38.1", "quay.io/tigera/operator:v1.38.1"),
            ("localhost:5000/calico/whisker", "localhost:5000/calico/whisker:latest"),
            ("busybox", "docker.io/library/busybox:latest"),
            ("docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("a/b@sha256:0f", "docker.io/a/b@sha256:0f"),
        ] {
            assert_eq!(normalized(reference), expected);
        }
    }
}
