//! How a run ends: the report is written and printed, and an interruption comes to it.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use catwalk_harness::conformance::Statement;
use catwalk_harness::report::{
    EXIT_INTERRUPTED, EXIT_NO_ENVIRONMENT, Report, summary, terminal, write_whole,
};
use tokio::sync::watch;

/// Writes what a run shows the release to support; where it cannot, the report will not be written either, which is said.
pub(super) fn state(statement: &Statement, folder: &Path) {
    if let Ok(json) = serde_json::to_vec_pretty(statement) {
        let _ = write_whole(&folder.join("conformance.json"), &json);
    }
}

/// Writes and prints the report; the exit code.
pub(crate) fn finish(report: &Report, folder: &Path) -> Result<u8> {
    let written = report.write(folder);
    let columns = if std::io::stdout().is_terminal() { columns() } else { 160 };
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe has read enough.
    let _ = write!(out, "{}", terminal::render(report, columns));
    if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
        let _ = write!(out, "{}", summary::annotations(report));
    }
    let mut code = report.exits().first().copied().unwrap_or(0);
    match written {
        Ok(()) => {
            let _ = writeln!(out, "report: {}", folder.join("report.json").display());
        }
        Err(e) => {
            eprintln!("error: the report cannot be written into {}: {e}", folder.display());
            if code == 0 {
                code = EXIT_NO_ENVIRONMENT;
            }
        }
    }
    Ok(code)
}

/// The terminal's width; the table needs some.
fn columns() -> u16 {
    terminal_size::terminal_size().map_or(100, |(width, _)| width.0.max(60))
}

/// Turns true on the first interruption; the second ends the process at once.
pub(super) fn on_interruption() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for again in [false, true] {
            interruption().await;
            if again {
                eprintln!("interrupted again: `cargo xtask clean` removes what is left");
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            }
            eprintln!("interrupted: cleaning up; once more ends at once");
            let _ = sender.send(true);
        }
    });
    receiver
}

async fn interruption() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        if let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Removes an earlier run's report, and the evidence that it names; nothing else that may lie there.
pub(crate) fn forget(folder: &Path) -> std::io::Result<()> {
    let json = |name: &str| -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
    };
    let remove = |name: &str| gone(std::fs::remove_file(folder.join(name)));
    // It may lie there alone, where its report was taken elsewhere.
    if json("conformance.json").is_some_and(|statement| statement.get("conformance").is_some()) {
        remove("conformance.json")?;
    }
    let Some(earlier) = json("report.json").filter(|report| report.get("catwalk").is_some()) else {
        return Ok(());
    };
    // One of another schema may not be read.
    let environments =
        serde_json::from_value::<Report>(earlier).map(|report| report.environments).unwrap_or_default();
    for environment in environments.iter().filter(|e| e.id == e.about.id() && !e.id.contains('/')) {
        gone(std::fs::remove_dir_all(folder.join("evidence").join(&environment.id)))?;
    }
    ["report.json", "junit.xml", "summary.md", "report.html"].into_iter().try_for_each(remove)
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Finds out whether files can be created there.
pub(super) fn is_writable(folder: &Path) -> std::io::Result<()> {
    tempfile::NamedTempFile::new_in(folder).map(drop)
}
