//! What the operator of a domain is asked for.

use catwalk_fixtures::OPERATOR_SIGNER;
use catwalk_fixtures::pki::Authority;
use catwalk_fixtures::standin::operator;
use serde_json::{Value, json};

use super::Nodeless;
use super::plane::Plane;
use crate::environment::About;
use crate::stage::manifests::Manifests;
use crate::stage::{NoEnvironment, config, extras};

impl Nodeless {
    /// What the operator is asked for, or what its stand-in renders; first what can be had at once, then what needs
    /// calico-system.
    ///
    /// The operator makes new keys for Goldmane and for Whisker at each attempt, and fails at each until its other half
    /// has made their namespace: asked for everything at once, it spends most of its time on that.
    pub(super) fn objects(
        &self,
        about: &About,
        plane: &Plane,
        manifests: Option<&Manifests>,
    ) -> Result<[Vec<Value>; 2], NoEnvironment> {
        if self.options.standin {
            let authority = Authority::generate(OPERATOR_SIGNER)
                .map_err(|e| NoEnvironment::because(format!("making an authority: {e}")))?;
            let rendered =
                operator::render(self.release(&about.calico)?, &about.domain, &authority, &plane.images.own)
                    .map_err(|e| NoEnvironment::because(format!("rendering the stand-in's objects: {e}")))?;
            return Ok([rendered, Vec::new()]);
        }
        let resources = manifests.map(|m| m.custom_resources.as_slice()).unwrap_or_default();
        let patch = self.options.configs.installation(&about.domain, about.dns);
        let extras = self.options.configs.extras(&about.with)?;
        let resources = custom_resources(resources, &patch, extras::need_api_server(&extras));
        let (first, mut then): (Vec<Value>, Vec<Value>) =
            resources.into_iter().partition(|resource| resource["kind"] == json!("Installation"));
        then.extend(extras::with_key_pairs(extras)?);
        Ok([first, then])
    }
}

/// The custom resources of a release; calico-apiserver's only where it runs: without it the operator waits for its
/// API.
fn custom_resources(resources: &[Value], patch: &Value, api_server: bool) -> Vec<Value> {
    let runs = |resource: &&Value| api_server || resource["kind"] != json!("APIServer");
    let mut resources: Vec<Value> = resources.iter().filter(runs).cloned().collect();
    for resource in resources.iter_mut().filter(|resource| resource["kind"] == json!("Installation")) {
        config::merge(resource, patch);
    }
    resources
}
