//! The diffs in CONTRIBUTING are of what is there.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::Path;

/// Of each diff: the file, and the lines that it adds in one place where it takes none away.
fn added(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for diff in text.split("```diff\n").skip(1) {
        let diff = diff.split("\n```").next().unwrap();
        let file = diff.lines().find_map(|line| line.strip_prefix("+++ b/")).unwrap();
        for hunk in diff.split("\n@@ ").skip(1) {
            let lines = || hunk.lines().skip(1);
            if !lines().any(|line| line.starts_with('-')) {
                let lines = lines().filter_map(|line| line.strip_prefix('+').map(str::to_owned));
                found.push((file.to_owned(), lines.collect()));
            }
        }
    }
    found
}

#[test]
fn what_each_diff_adds_is_in_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let added = added(&text);
    let files: Vec<&str> = added.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(
        files,
        [
            "scenarios/delivery/src/lib.rs",
            "kind-configs/k8s.example.org-dual.yaml",
            "fixtures/data/releases.json",
            "fixtures/data/known-issues.json"
        ]
    );
    for (file, lines) in &added {
        // Lists of versions grow.
        let lasting = |line: &&str| !line.contains("\"v3.");
        let there = std::fs::read_to_string(root.join(file)).unwrap();
        let there = there.lines().filter(lasting).collect::<Vec<_>>().join("\n");
        let lines = lines.iter().map(String::as_str).filter(lasting).collect::<Vec<_>>().join("\n");
        // What is last has no comma.
        let is_there = there.contains(&lines) || there.contains(lines.trim_end_matches(','));
        assert!(is_there, "{file} has not:\n{lines}");
    }
}
