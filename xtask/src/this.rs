//! What this program is: where its project lies, of which version it is, and how it was called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use catwalk_harness::report::without_login;
use sha2::{Digest, Sha256};

/// The project's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// What a program of this version is made of and reads, in the project's folder.
const SOURCES: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "fixtures", "harness", "scenarios", "traffic", "xtask", "kind-configs"];

/// Catwalk's version: with the commit where git knows it; of sources that are no commit's, with their digest.
pub(crate) fn version() -> String {
    let workspace = workspace();
    let git = |words: &[&str]| {
        let output = std::process::Command::new("git").current_dir(&workspace).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Of a copy in somebody else's repository that one's commit says nothing.
    let own = git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty());
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| own);
    let changed =
        || git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat()).is_none_or(|s| !s.is_empty());
    let of = match commit {
        Some(commit) if changed() => format!("{commit}, changed {}", digest(&workspace)),
        Some(commit) => commit,
        None => format!("sources {}", digest(&workspace)),
    };
    format!("{} ({of})", env!("CARGO_PKG_VERSION"))
}

/// A digest of the sources, by their paths and contents.
fn digest(workspace: &Path) -> String {
    let mut files = BTreeMap::new();
    for source in SOURCES {
        read_into(&mut files, &workspace.join(source));
    }
    let mut digest = Sha256::new();
    for (path, content) in files {
        let path = path.strip_prefix(workspace).unwrap_or(&path).to_string_lossy().into_owned();
        for part in [path.as_bytes(), &content] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn read_into(files: &mut BTreeMap<PathBuf, Vec<u8>>, path: &Path) {
    if let Ok(content) = std::fs::read(path) {
        files.insert(path.to_owned(), content);
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok) {
        read_into(files, &entry.path());
    }
}

/// The command that was given, as one would give it again: but for the logins in addresses, which are nobody else's.
pub(crate) fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| without_login(&word)).map(|word| {
        let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b));
        if plain && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    std::iter::once("cargo xtask".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
