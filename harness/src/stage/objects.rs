//! Reading rendered objects, whether an API server or a stand-in operator gave them.

use serde_json::Value;

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
