//! What is set up beside Calico as released: the objects of `kind-configs/with`, by their annotations.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use catwalk_fixtures::pki::{Authority, LeafRequest, PkiError};
use serde_json::{Value, json};

use super::NoEnvironment;
use super::config::{self, KEY_PAIR};

/// The annotation that names the TigeraStatus by which the operator tells that it has rendered an object's components.
const STATUS: &str = "catwalk.dev/tigera-status";
/// The annotation of an object for which calico-apiserver must run: the operator waits for its API.
const NEEDS_API_SERVER: &str = "catwalk.dev/needs-calico-apiserver";
/// Those of every installation.
const ALWAYS: [&str; 3] = [CALICO, "goldmane", "whisker"];
/// That of calico-node and what belongs to it.
pub(super) const CALICO: &str = "calico";

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// The TigeraStatus that tell that all is rendered.
pub(super) fn statuses(extras: &[Value]) -> Vec<String> {
    let of_extras = extras.iter().filter_map(|object| annotation(object, STATUS));
    ALWAYS.into_iter().chain(of_extras).map(str::to_owned).collect()
}

/// Adds an object to others, or merges it over the one that it is.
pub(super) fn add(objects: &mut Vec<Value>, extra: Value) {
    let is_same = |object: &Value| {
        [&["apiVersion"][..], &["kind"], &["metadata", "name"], &["metadata", "namespace"]].iter().all(
            |path| {
                path.iter().fold(object, |at, key| &at[*key]) == path.iter().fold(&extra, |at, key| &at[*key])
            },
        )
    };
    match objects.iter_mut().find(|object| is_same(object)) {
        Some(object) => config::merge(object, &extra),
        None => objects.push(extra),
    }
}

/// Whether calico-apiserver must run for them.
pub(super) fn need_api_server(extras: &[Value]) -> bool {
    extras.iter().any(|object| annotation(object, NEEDS_API_SERVER) == Some("true"))
}

/// The objects with certificates and keys in the Secrets that ask for them; made here, and never in a file.
pub(super) fn with_key_pairs(mut extras: Vec<Value>) -> Result<Vec<Value>, NoEnvironment> {
    for object in &mut extras {
        let data = match annotation(object, KEY_PAIR) {
            None => continue,
            Some("managed-cluster") => managed_cluster()
                .map_err(|e| NoEnvironment::because(format!("making guardian's certificates: {e}")))?,
            Some(other) => {
                return Err(NoEnvironment::because(format!(
                    "nobody knows how to make the key pair {other:?}"
                )));
            }
        };
        object["data"] = data;
    }
    Ok(extras)
}

/// What guardian reads (calico v3.30.0, `guardian/pkg/config`): the certificate that it shows, and the one that it
/// trusts, which must have exactly one DNS name.
fn managed_cluster() -> Result<Value, PkiError> {
    let authority = Authority::generate("catwalk-management-cluster")?;
    let own = authority.issue(&LeafRequest::client("managed-cluster"))?;
    let voltron = authority.issue(&LeafRequest::client("voltron"))?;
    let encode = |text: &str| STANDARD.encode(text);
    Ok(json!({
        "managed-cluster.crt": encode(own.certificate_pem()),
        "managed-cluster.key": encode(own.key_pem()),
        "management-cluster.crt": encode(voltron.certificate_pem()),
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stage::config::Configs;

    #[test]
    fn what_is_there_already_is_changed_and_not_doubled() {
        let whisker = |spec: Value| json!({"apiVersion": "operator.tigera.io/v1", "kind": "Whisker", "metadata": {"name": "default"}, "spec": spec});
        let other = json!({"apiVersion": "operator.tigera.io/v1", "kind": "Goldmane", "metadata": {"name": "default"}});
        let mut objects = vec![whisker(json!({"notifications": "Disabled"}))];
        add(&mut objects, whisker(json!({"whiskerDeployment": {}})));
        add(&mut objects, other.clone());
        assert_eq!(objects, [whisker(json!({"notifications": "Disabled", "whiskerDeployment": {}})), other]);
    }

    #[test]
    fn every_extra_says_by_which_status_it_is_rendered_and_every_secret_gets_its_keys() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs");
        let configs = Configs::read(&folder).unwrap();
        for (name, status, needs) in [
            ("gatewayapi", "gatewayapi", false),
            ("managementcluster", "management-cluster-connection", true),
        ] {
            let extras = configs.extras(&[name.to_owned()]).unwrap();
            assert_eq!(statuses(&extras), ["calico", "goldmane", "whisker", status]);
            assert_eq!(need_api_server(&extras), needs);
            for object in with_key_pairs(extras).unwrap() {
                assert_eq!(object["kind"] == "Secret", object["data"].is_object(), "{name}");
            }
        }
        assert!(with_key_pairs(vec![json!({"metadata": {"annotations": {KEY_PAIR: "x"}}})]).is_err());
    }
}
