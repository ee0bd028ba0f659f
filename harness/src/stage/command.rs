//! The `kind` program, run as a child that this run owns.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::owner::{Ledger, Owned, ProcessName};
use crate::stage::NoEnvironment;

/// Lines of a failed command that are shown.
const SHOWN: usize = 12;

/// Runs `kind` with these words; see [`run`].
pub(super) async fn kind(
    ledger: &Ledger,
    words: &[&str],
    stdin: Option<&[u8]>,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<String, NoEnvironment> {
    run(ledger, "kind", words, stdin, tell).await
}

/// Runs a program that a kind cluster needs and gives its standard output; `tell` hears what it says on standard
/// error.
///
/// The child is in a process group of its own, so that an interruption at the terminal reaches only this process,
/// which then cleans up in order. The whole group is killed when the future is dropped.
pub(super) async fn run(
    ledger: &Ledger,
    program: &str,
    words: &[&str],
    stdin: Option<&[u8]>,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<String, NoEnvironment> {
    let doing = format!("{program} {}", words.join(" "));
    let failed = |why: &dyn std::fmt::Display| NoEnvironment::because(format!("{doing}: {why}"));
    let mut command = Command::new(program);
    command
        .args(words)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| match (e.kind(), program) {
        (std::io::ErrorKind::NotFound, "kind") => NoEnvironment::with_fix(
            "the program kind is not here",
            "Install it (https://kind.sigs.k8s.io, or `go install sigs.k8s.io/kind@v0.33.0`)",
        ),
        _ => failed(&e),
    })?;
    let mut owned = child.id().and_then(|pid| OwnedProcess::enter(ledger, pid));
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
        pipe.write_all(bytes).await.map_err(|e| failed(&e))?;
    }
    let mut said = Vec::new();
    let mut stdout = String::new();
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(&"no pipes"));
    };
    let reading = async {
        let mut lines = BufReader::new(err).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let line = line.trim().to_owned();
            if !line.is_empty() {
                tell(&line);
                said.push(line);
            }
        }
    };
    let mut out = BufReader::new(out);
    let (read, ()) = tokio::join!(tokio::io::AsyncReadExt::read_to_string(&mut out, &mut stdout), reading);
    read.map_err(|e| failed(&e))?;
    let status = child.wait().await.map_err(|e| failed(&e))?;
    if let Some(owned) = &mut owned {
        owned.ended = true;
    }
    if status.success() {
        return Ok(stdout);
    }
    let last = said.len().saturating_sub(SHOWN);
    Err(failed(&format!("{status}: {}", said[last..].join(" | "))))
}

/// A child process in the ledger, struck out when it is waited for or killed.
struct OwnedProcess<'a> {
    ledger: &'a Ledger,
    pid: u32,
    name: String,
    /// Whether it was waited for.
    ended: bool,
}

impl<'a> OwnedProcess<'a> {
    fn enter(ledger: &'a Ledger, pid: u32) -> Option<Self> {
        let name = serde_json::to_string(&ProcessName::of(pid)?).ok()?;
        ledger.enter(Owned::Process, &name).ok()?;
        Some(Self { ledger, pid, name, ended: false })
    }
}

impl Drop for OwnedProcess<'_> {
    fn drop(&mut self) {
        // kind's own children too: one of them may be about to create a node.
        if !self.ended
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        // What cannot be struck out is found dead by the next clean.
        let _ = self.ledger.strike(Owned::Process, &self.name);
    }
}
