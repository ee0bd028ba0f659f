//! Where a run's images come from, and what was had: each pulled once.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use crate::owner::Ledger;
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::stage::engine::Engine;
use crate::stage::substitutes::Substitutes;

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
            let pulled = self.engine.pull(&self.ledger, &wanted, &self.platform).await;
            pulled.map_err(|e| Substitutes::not_pulled(e, &wanted, reference))?;
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
