//! Reading rendered objects, whether an API server or a stand-in operator gave them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use catwalk_fixtures::pki;
use catwalk_fixtures::standin::operator::MODELLED_LABEL;
use serde_json::{Value, json};

/// The API group of the custom resources that own what the operator renders.
const OWNERS: &str = "operator.tigera.io/";

/// The annotation in which kubectl keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object of that kind, namespace and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, namespace: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        text("/kind") == Some(kind)
            && text("/metadata/namespace") == Some(namespace)
            && text("/metadata/name") == Some(name)
    })
}

/// The container of a workload's pod template that has such an environment variable, and the variable's value.
///
/// Containers are told by what they are given rather than by name: a later release puts both of Whisker's programs
/// into one.
pub fn container_with<'a>(workload: &'a Value, variable: &str) -> Option<(&'a str, &'a str)> {
    let containers = workload.pointer("/spec/template/spec/containers")?.as_array()?;
    containers.iter().find_map(|container| {
        let env = container.get("env")?.as_array()?;
        let found = env.iter().find(|e| e.get("name").and_then(Value::as_str) == Some(variable))?;
        Some((container.get("name")?.as_str()?, found.get("value")?.as_str()?))
    })
}

/// Every Service among them, as `name.namespace`.
pub fn services(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let is_service = text("/kind") == Some("Service");
        is_service.then_some(format!("{}.{}", text("/metadata/name")?, text("/metadata/namespace")?))
    };
    objects.iter().filter_map(name).collect()
}

/// Whether the operator, or the stand-in for it, made the object.
pub fn is_rendered(object: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_owned = owners.into_iter().flatten().any(|owner| {
        owner.get("apiVersion").and_then(Value::as_str).is_some_and(|version| version.starts_with(OWNERS))
    });
    is_owned || object["metadata"]["labels"][MODELLED_LABEL] == json!("true")
}

/// A Secret with its certificates in place of its data; another object as it is.
pub fn certificates_alone(mut object: Value) -> Value {
    if object["kind"] != json!("Secret") {
        return object;
    }
    let mut certificates = serde_json::Map::new();
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        let Some(text) = text.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
        // Anything that is not wholly certificates may hold a key.
        if !text.contains("PRIVATE KEY") && pki::certificates(&text).is_ok() {
            certificates.insert(key.clone(), json!(text));
        }
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        // It repeats the data of whatever kubectl applied.
        annotations.remove(LAST_APPLIED);
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("data");
        object.remove("stringData");
        object.insert("certificates".to_owned(), Value::Object(certificates));
    }
    object
}

#[cfg(test)]
mod tests {
    use catwalk_fixtures::pki::Authority;

    use super::*;

    #[test]
    fn of_a_secret_nothing_but_certificates_is_seen() {
        let authority = Authority::generate("x").unwrap();
        let (certificate, key) = (authority.certificate_pem(), authority.key_pem());
        let both = format!("{certificate}{}", *key);
        let applied = json!({"annotations": {LAST_APPLIED: *key, "a": "b"}});
        let secret = json!({"kind": "Secret", "metadata": applied, "stringData": {"tls.key": *key}, "data": {
            "tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(&*key),
            "both": STANDARD.encode(both), "token": STANDARD.encode("abc"), "binary": STANDARD.encode([0xff]),
        }});
        let seen = certificates_alone(secret);
        assert_eq!(
            seen,
            json!({
                "kind": "Secret", "metadata": {"annotations": {"a": "b"}}, "certificates": {"tls.crt": certificate},
            })
        );
    }

    #[test]
    fn what_a_user_made_is_not_rendered() {
        let owned = json!({"metadata": {"ownerReferences": [{"apiVersion": "operator.tigera.io/v1"}]}});
        let pod = json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1"}]}});
        assert!(is_rendered(&owned) && !is_rendered(&pod) && !is_rendered(&json!({"metadata": {}})));
        assert!(is_rendered(&json!({"metadata": {"labels": {MODELLED_LABEL: "true"}}})));
    }
}
