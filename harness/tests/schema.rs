//! The JSON schemas in docs/schemas are those of today's types.
//!
//! `CATWALK_WRITE_SCHEMAS=1 cargo test -p catwalk-harness --test schema` writes them.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::Path;

use catwalk_harness::conformance::{Statement, VERSION};
use catwalk_harness::gate::Policy;
use catwalk_harness::report::{Report, SCHEMA};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

fn check<T: JsonSchema>(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas").join(name);
    let mut today = serde_json::to_string_pretty(&schema_for!(T)).unwrap();
    today.push('\n');
    if std::env::var_os("CATWALK_WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, &today).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == today,
        "{name} is not today's: a field that changes its meaning or goes needs another SCHEMA"
    );
}

#[test]
fn of_a_report() {
    check::<Report>(&format!("report.{SCHEMA}.json"));
}

#[test]
fn of_a_gate_s_policy() {
    check::<Policy>("gate-policy.json");
}

#[test]
fn of_a_statement_of_conformance() {
    check::<Statement>(&format!("conformance.{VERSION}.json"));
}

/// Of a schema that nobody could break, nothing would be shown.
#[test]
fn a_schema_says_what_a_report_must_have() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schemas/report.{SCHEMA}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let required = schema["required"].as_array().unwrap();
    for field in ["schema", "catwalk", "cases", "environments", "modelled", "interrupted"] {
        assert!(required.iter().any(|name| name == field), "{field}");
    }
    assert!(schema["$defs"]["Verdict"].to_string().contains("CertificateNameMismatch"));
}
