//! The strings of an object that may name a host, each with its field.

use catwalk_fixtures::pki;
use serde_json::Value;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::stage::objects::LAST_APPLIED;

/// Called with a field and a text in it.
type See<'s> = &'s mut dyn FnMut(&str, &str);

/// Where in an object.
struct Field {
    path: String,
    /// Whether the texts there may have comments: a ConfigMap's data.
    has_comments: bool,
}

impl Field {
    /// Steps into a member, and back.
    fn within(&mut self, step: &str, go: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        go(self);
        self.path.truncate(length);
    }

    fn member(&mut self, key: &str, go: impl FnOnce(&mut Self)) {
        let is_plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let step = match (is_plain, self.path.is_empty()) {
            (true, true) => key.to_owned(),
            (true, false) => format!(".{key}"),
            (false, _) => format!("[{key}]"),
        };
        self.within(&step, go);
    }
}

/// Calls `see` with every text of the object that the operator answers for.
pub(super) fn strings(object: &Value, see: See<'_>) {
    let is_config_map = object.get("kind").and_then(Value::as_str) == Some("ConfigMap");
    let mut field = Field { path: String::new(), has_comments: false };
    for (key, value) in object.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("status", _) => {}
            ("metadata", Value::Object(metadata)) => field.member(key, |field| {
                for (key, value) in metadata.iter().filter(|(key, _)| !is_bookkeeping(key)) {
                    field.member(key, |field| inside(value, field, see));
                }
            }),
            ("certificates", Value::Object(certificates)) => field.member(key, |field| {
                for (key, pem) in certificates {
                    let names = pem.as_str().map(certified).unwrap_or_default();
                    field.member(key, |field| names.iter().for_each(|name| see(&field.path, name)));
                }
            }),
            _ => field.member(key, |field| {
                field.has_comments = is_config_map && key == "data";
                inside(value, field, see);
                field.has_comments = false;
            }),
        }
    }
}

/// What the API server and its clients write down for themselves.
fn is_bookkeeping(key: &str) -> bool {
    matches!(key, "managedFields" | "ownerReferences")
}

fn inside(value: &Value, field: &mut Field, see: See<'_>) {
    match value {
        Value::String(text) => read(text, field, see),
        Value::Array(elements) => {
            for (number, element) in elements.iter().enumerate() {
                match element.get("name").and_then(Value::as_str) {
                    Some(name) => field.within(&format!("[{name}]"), |field| named(element, field, see)),
                    None => field.within(&format!("[{number}]"), |field| inside(element, field, see)),
                }
            }
        }
        Value::Object(members) => {
            for (key, value) in members.iter().filter(|(key, _)| *key != LAST_APPLIED) {
                field.member(key, |field| inside(value, field, see));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// An element that is addressed by its name: its value is the element itself, its image the node's affair.
fn named(element: &Value, field: &mut Field, see: See<'_>) {
    for (key, value) in element.as_object().into_iter().flatten() {
        match key.as_str() {
            "value" => inside(value, field, see),
            "image" => {}
            _ => field.member(key, |field| inside(value, field, see)),
        }
    }
}

/// A text: JSON by its strings, lines without their comments, or as it is.
fn read(text: &str, field: &mut Field, see: See<'_>) {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(document) = serde_json::from_str::<Value>(text)
    {
        return each(&document, &mut |text| read(text, field, see));
    }
    if field.has_comments || text.contains('\n') {
        text.lines().for_each(|line| see(&field.path, without_comment(line)));
    } else {
        see(&field.path, text);
    }
}

/// Every string of a JSON document.
fn each(document: &Value, see: &mut dyn FnMut(&str)) {
    match document {
        Value::String(text) => see(text),
        Value::Array(elements) => elements.iter().for_each(|element| each(element, see)),
        Value::Object(members) => members.values().for_each(|member| each(member, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The line up to a `#` that begins it or follows a space, as in YAML, nginx' configuration and a Corefile.
fn without_comment(line: &str) -> &str {
    let begins = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(begins);
    &line[..comment.unwrap_or(line.len())]
}

/// The names in certificates: the subject's common name, DNS names and URIs.
fn certified(pem: &str) -> Vec<String> {
    let mut names = Vec::new();
    for der in pki::certificates(pem).unwrap_or_default() {
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { continue };
        let common = certificate.subject().iter_common_name();
        names.extend(common.filter_map(|name| name.as_str().ok()).map(str::to_owned));
        let Ok(Some(alternative)) = certificate.subject_alternative_name() else { continue };
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }));
    }
    names
}
