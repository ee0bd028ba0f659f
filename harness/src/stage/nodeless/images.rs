//! Where a run's images come from, and what was had: each pulled once.

use std::collections::{BTreeMap, BTreeSet};

use catwalk_fixtures::Release;
use tokio::sync::Mutex;

use super::lock;
use crate::owner::Ledger;
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::stage::engine::{Engine, EngineInfo};
use crate::stage::substitutes::{Substitutes, name};

/// Where images come from, and what was had.
pub(super) struct ImageSource {
    engine: Engine,
    ledger: Ledger,
    info: EngineInfo,
    substitutes: Substitutes,
    teller: Teller,
    had: Mutex<BTreeMap<String, String>>,
    /// The names of the images that were asked for.
    asked: std::sync::Mutex<BTreeSet<String>>,
}

impl ImageSource {
    pub(super) fn new(
        engine: Engine,
        ledger: Ledger,
        info: EngineInfo,
        substitutes: Substitutes,
        teller: Teller,
    ) -> Self {
        let (had, asked) = (Mutex::default(), std::sync::Mutex::default());
        Self { engine, ledger, info, substitutes, teller, had, asked }
    }

    /// The reference that stands for `reference`, in the engine; pulled if it was not there.
    pub(super) async fn have(&self, reference: &str) -> Result<String, NoEnvironment> {
        let wanted = self.substitutes.of(reference);
        lock(&self.asked).insert(name(reference).to_owned());
        // One at a time: two pods of one image would pull it twice.
        let mut had = self.had.lock().await;
        if had.contains_key(&wanted) {
            return Ok(wanted);
        }
        self.teller.tell("getting images", &wanted);
        let digest = self.engine.have(&self.ledger, &self.info, &wanted).await;
        let digest = digest.map_err(|e| Substitutes::not_pulled(e, &wanted, reference))?;
        had.insert(wanted.clone(), digest);
        Ok(wanted)
    }

    /// Images that were given in place of others which nothing asked for.
    pub(super) fn unused(&self) -> Vec<(&str, &str)> {
        let asked = lock(&self.asked);
        let given = self.substitutes.images.iter().filter(|(of, _)| !asked.contains(*of));
        given.map(|(of, reference)| (of.as_str(), reference.as_str())).collect()
    }

    /// Refuses an image that was given in place of one that neither was asked for nor is called as any release's.
    pub(super) fn refuse_unknown(&self, releases: &[Release]) -> Result<(), NoEnvironment> {
        let known =
            |of: &str| releases.iter().flat_map(|release| &release.images).any(|image| name(image) == of);
        match self.unused().into_iter().find(|(of, _)| !known(of)) {
            None => Ok(()),
            Some((unknown, reference)) => {
                let names = Vec::from_iter(lock(&self.asked).iter().cloned()).join(", ");
                Err(NoEnvironment::because(format!(
                    "--image {unknown}={reference}: no image is called so; those of this stage are {names}"
                )))
            }
        }
    }

    /// The digest, or id, of an image that was had.
    pub(super) async fn digest(&self, image: &str) -> Option<String> {
        self.had.lock().await.get(image).cloned()
    }
}
