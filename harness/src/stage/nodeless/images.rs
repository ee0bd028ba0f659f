//! Which image stands for which: a registry in place of the published one, images of one's own by name; pulled once.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use crate::owner::Ledger;
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::stage::engine::Engine;

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
}

/// The last part of a reference's repository, without tag and digest.
fn name(reference: &str) -> &str {
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

/// Where images come from, and what was had.
pub(super) struct ImageSource {
    engine: Engine,
    ledger: Ledger,
    platform: String,
    substitutes: Substitutes,
    teller: Teller,
    had: Mutex<BTreeMap<String, String>>,
}

impl ImageSource {
    pub(super) fn new(
        engine: Engine,
        ledger: Ledger,
        platform: String,
        substitutes: Substitutes,
        teller: Teller,
    ) -> Self {
        Self { engine, ledger, platform, substitutes, teller, had: Mutex::default() }
    }

    /// The reference that stands for `reference`, in the engine; pulled if it was not there.
    pub(super) async fn have(&self, reference: &str) -> Result<String, NoEnvironment> {
        let wanted = self.substitutes.of(reference);
        // One at a time: two pods of one image would pull it twice.
        let mut had = self.had.lock().await;
        if had.contains_key(&wanted) {
            return Ok(wanted);
        }
        let mut digest = self.engine.image(&wanted).await?;
        if digest.is_none() {
            self.teller.tell("pulling images", &wanted);
            self.engine.pull(&self.ledger, &wanted, &self.platform).await.map_err(|e| {
                let stands_for =
                    if wanted == reference { String::new() } else { format!(" (it stands for {reference})") };
                NoEnvironment {
                    what: format!("{}{stands_for}", e.what),
                    fix: e.fix.map(|fix| {
                        format!("{fix}; or name another with --image {}=REF or --registry", name(reference))
                    }),
                }
            })?;
            digest = self.engine.image(&wanted).await?;
        }
        had.insert(wanted.clone(), digest.unwrap_or_default());
        Ok(wanted)
    }

    /// The digest, or id, of an image that was had.
    pub(super) async fn digest(&self, image: &str) -> Option<String> {
        self.had.lock().await.get(image).cloned()
    }
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
}
