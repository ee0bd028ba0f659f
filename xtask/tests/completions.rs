//! Completions, tried in the shell that they are for.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]
#![cfg(unix)]

use std::process::Command;

/// What bash offers after these words, the last one begun.
fn offered(words: &str) -> Vec<String> {
    let script = format!(
        r#"source <("{xtask}" completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
           _xtask xtask "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"; printf '%s\n' "${{COMPREPLY[@]}}""#,
        xtask = env!("CARGO_BIN_EXE_xtask")
    );
    let ran = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    assert_eq!(offered("xtask rep"), ["report"]);
    assert_eq!(offered("xtask e2e --rerun"), ["--rerun-failed"]);
    assert_eq!(offered("xtask e2e --stage no"), ["nodeless"]);
    assert_eq!(offered("xtask report m"), ["merge"]);
}

#[test]
fn there_is_a_script_for_every_shell_that_clap_knows() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["completions", shell]).output().unwrap();
        assert!(ran.status.success() && ran.stdout.len() > 1_000, "{shell}: {ran:?}");
    }
    let ran = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["completions", "cmd"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
}
