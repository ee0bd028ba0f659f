//! Evidence: what is written down of an environment before it is taken down. No key and no token is ever in it.

use std::path::Path;

use serde_json::Value;

use crate::report::write_whole;
use crate::stage::Provisioned;
use crate::stage::objects::LAST_APPLIED;

/// Bytes of the longest value of a ConfigMap that is written down.
const LONGEST_VALUE: usize = 16 * 1024;

/// Writes Whisker's log, the rendered objects, the cluster's claims and what the stage adds; what could not be had.
pub async fn collect(env: &dyn Provisioned, folder: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(e) = std::fs::create_dir_all(folder) {
        return vec![format!("creating {}: {e}", folder.display())];
    }
    let mut write = |name: &str, bytes: Result<Vec<u8>, String>| match bytes {
        Ok(bytes) => {
            if let Err(e) = write_whole(&folder.join(name), &bytes) {
                missing.push(format!("writing {name}: {e}"));
            }
        }
        Err(e) => missing.push(format!("{name}: {e}")),
    };
    write("whisker.log", env.whisker_log().await.map(String::into_bytes).map_err(|e| e.to_string()));
    let rendered = env.rendered().await.map_err(|e| e.to_string());
    write(
        "objects.json",
        rendered.and_then(|objects| {
            let objects: Vec<Value> = objects.into_iter().filter_map(without_secrets).collect();
            serde_json::to_vec_pretty(&objects).map_err(|e| e.to_string())
        }),
    );
    write("claims.json", serde_json::to_vec_pretty(&env.claims().await).map_err(|e| e.to_string()));
    missing.extend(env.collect(folder).await);
    missing
}

/// The object without what a report must not hold; none for a Secret.
fn without_secrets(mut object: Value) -> Option<Value> {
    if object.get("kind").and_then(Value::as_str) == Some("Secret") {
        return None;
    }
    // A bundle of every public authority says nothing of this cluster.
    if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
        for value in data.values_mut() {
            let bytes = value.as_str().map_or(0, str::len);
            if bytes > LONGEST_VALUE {
                *value = Value::String(format!("left out: {bytes} bytes"));
            }
        }
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for noise in ["managedFields", "uid", "resourceVersion", "ownerReferences", "creationTimestamp"] {
            metadata.remove(noise);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_never_gets_into_evidence() {
        assert_eq!(without_secrets(json!({"kind": "Secret", "data": {"tls.key": "x"}})), None);
        let long =
            without_secrets(json!({"kind": "ConfigMap", "data": {"ca.crt": "x".repeat(20_000), "a": "b"}}));
        assert_eq!(
            long,
            Some(json!({"kind": "ConfigMap", "data": {"ca.crt": "left out: 20000 bytes", "a": "b"}}))
        );
        let object = json!({
            "kind": "Service",
            "metadata": {"name": "goldmane", "uid": "1", "managedFields": []},
        });
        assert_eq!(
            without_secrets(object),
            Some(json!({"kind": "Service", "metadata": {"name": "goldmane"}}))
        );
    }
}
