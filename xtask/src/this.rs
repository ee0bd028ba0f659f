//! What this program is: where its project lies, of which version it is, and how it was called.

use std::path::{Path, PathBuf};

/// The project's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Catwalk's version, with the commit where git knows it.
pub(crate) fn version() -> String {
    let workspace = workspace();
    let git = |words: &[&str]| {
        let output = std::process::Command::new("git").current_dir(&workspace).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = env!("CARGO_PKG_VERSION");
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => {
            let changed =
                git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
            format!("{version} ({commit}{})", if changed { ", changed" } else { "" })
        }
        None => version.to_owned(),
    }
}

/// The command that was given, as one would give it again.
pub(crate) fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| {
        let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b));
        if plain && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    std::iter::once("cargo xtask".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
