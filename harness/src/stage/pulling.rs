//! Images from registries: pulled where they are missing, and where they lay in the engine held against the registry.

use std::time::Duration;

use docker_credential::DockerCredential;
use testcontainers::bollard::auth::DockerCredentials;

use super::command;
use super::engine::{Engine, EngineInfo};
use super::substitutes::normalized;
use crate::owner::Ledger;
use crate::report::NOT_CONFIRMED;
use crate::stage::NoEnvironment;

/// The longest that a registry may take to say what it has.
const ASKING: Duration = Duration::from_secs(20);
/// Docker Hub's name in the user's logins.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

impl Engine {
    /// Has an image, pulled if it is missing; its digest or id, as [`Engine::image`] gives it.
    ///
    /// One that lay in the engine stays as it is, since it may be what its user built. Its registry is asked whether it has
    /// the same: that the engine knows a digest tells little, since a tag moves, every tag of an image has the digests of
    /// all (moby/moby#45122), and Podman and containerd's image store give every image one.
    pub(super) async fn have(
        &self,
        ledger: &Ledger,
        info: &EngineInfo,
        reference: &str,
    ) -> Result<String, NoEnvironment> {
        let Some((_, digests)) = self.digests(reference).await? else {
            self.pull(ledger, reference, &info.platform).await?;
            return Ok(self.image(reference).await?.unwrap_or_default());
        };
        let held = self.image(reference).await?.unwrap_or_default();
        if digests.is_empty() || reference.contains('@') {
            return Ok(held);
        }
        match self.in_registry(reference).await {
            Some(there) => {
                let same = digests.into_iter().find(|digest| digest.ends_with(&format!("@{there}")));
                Ok(same.unwrap_or_else(|| format!("{held} {NOT_CONFIRMED}")))
            }
            None => Ok(format!("{held} {NOT_CONFIRMED}")),
        }
    }

    /// Pulls an image for the platform, with the user's logins: by the `docker` program, which kind needs too.
    async fn pull(&self, ledger: &Ledger, reference: &str, platform: &str) -> Result<(), NoEnvironment> {
        let words = ["pull", "--quiet", "--platform", platform, reference];
        let pulled = command::run(ledger, "docker", &words, None, &|_| {}).await;
        pulled.map(|_| ()).map_err(|e| pull_failed(reference, &e.what))
    }

    /// The digest that the registry has under that name, if it says so. One that does not answer is not asked again.
    pub(super) async fn in_registry(&self, reference: &str) -> Option<String> {
        let registry = registry(reference);
        if self.silent.lock().await.contains(&registry) {
            return None;
        }
        let asking = async {
            let login = login(registry.clone()).await;
            self.docker().inspect_registry_image(reference, login).await
        };
        match tokio::time::timeout(ASKING, asking).await {
            Ok(Ok(there)) => there.descriptor.digest.filter(|digest| !digest.is_empty()),
            Ok(Err(_)) => None,
            Err(_) => {
                self.silent.lock().await.insert(registry);
                None
            }
        }
    }
}

/// The registry of a reference, as the user's logins call it.
fn registry(reference: &str) -> String {
    let full = normalized(reference);
    match full.split_once('/') {
        Some(("docker.io", _)) | None => DOCKER_HUB.to_owned(),
        Some((registry, _)) => registry.to_owned(),
    }
}

/// The user's login for a registry, if there is one.
async fn login(registry: String) -> Option<DockerCredentials> {
    // It may ask a program, and waits for it.
    let asked = tokio::task::spawn_blocking(move || docker_credential::get_credential(&registry));
    match asked.await.ok()?.ok()? {
        DockerCredential::IdentityToken(token) => {
            Some(DockerCredentials { identitytoken: Some(token), ..DockerCredentials::default() })
        }
        DockerCredential::UsernamePassword(username, password) => Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            ..DockerCredentials::default()
        }),
    }
}

/// Why a pull failed, with what to do about it where the registry's answer says.
fn pull_failed(reference: &str, error: &str) -> NoEnvironment {
    let lower = error.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let fix = if has(&["toomanyrequests", "too many requests", "429", "rate limit"]) {
        "The registry limits anonymous pulls (429): wait, or log in with `docker login`"
    } else if has(&["unauthorized", "authentication required", "401", "denied", "no basic auth"]) {
        "The registry wants a login (401): `docker login`, and check the image's name"
    } else if has(&["not found", "manifest unknown", "404"]) {
        "The registry does not have it: check the version, or build it and load it into the engine under this name"
    } else {
        "Bring it by hand: `docker pull` where there is a network, then `docker save` and `docker load`"
    };
    NoEnvironment::with_fix(format!("image {reference} cannot be pulled: {error}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_called_as_in_the_user_s_logins() {
        for (reference, expected) in [
            ("calico/goldmane:v3.30.1", DOCKER_HUB),
            ("docker.io/calico/goldmane:v3.30.1", DOCKER_HUB),
            ("quay.io/tigera/operator:v1.38.1", "quay.io"),
            ("localhost:5000/goldmane@sha256:0f", "localhost:5000"),
        ] {
            assert_eq!(registry(reference), expected);
        }
    }

    #[test]
    fn a_registry_s_refusal_comes_with_what_to_do() {
        for (error, fix) in [
            ("toomanyrequests: You have reached your pull rate limit", "(429)"),
            ("unexpected status code 401 Unauthorized", "(401)"),
            ("pull access denied for x, repository does not exist or may require 'docker login'", "(401)"),
            ("manifest for x:1 not found: manifest unknown", "does not have it"),
            ("dial tcp: lookup registry: no such host", "by hand"),
        ] {
            assert!(pull_failed("x:1", error).to_string().contains(fix), "{error}");
        }
    }
}
