//! Removes what a run owns, by its ledger: at the end of the run itself, and later what a killed run left.

use std::path::Path;
use std::time::{Duration, Instant};

use super::command;
use super::engine::Engine;
use crate::owner::{Ledger, Owned, ProcessName};
use crate::progress::Teller;
use crate::wait::{Probe, wait_for};

/// Removes everything in the ledger, then the ledger; what could not be removed.
pub(super) async fn reap(ledger: &Ledger, teller: &Teller) -> Vec<String> {
    let mut left = Vec::new();
    for name in ledger.entries(Owned::Process) {
        if let Err(why) = end(&name).await {
            left.push(format!("process {name}: {why}"));
        } else {
            let _ = ledger.strike(Owned::Process, &name);
        }
    }
    if ledger.is_kept() {
        return left;
    }
    let clusters = ledger.entries(Owned::Cluster);
    if !clusters.is_empty() {
        teller.tell("deleting clusters", &clusters.join(", "));
    }
    for cluster in clusters {
        if let Err(e) = command::delete(ledger, &cluster).await {
            left.push(format!("cluster {cluster} is left: {e}. `cargo xtask clean` tries again"));
        }
    }
    let images = ledger.entries(Owned::Image);
    if !images.is_empty() {
        match Engine::connect().await {
            Ok(engine) => {
                for image in images {
                    match engine.remove_image(&image).await {
                        Ok(()) => {
                            let _ = ledger.strike(Owned::Image, &image);
                        }
                        Err(e) => left.push(format!("image {image} is left: {e}. `cargo xtask clean` tries again")),
                    }
                }
            }
            Err(e) => left.push(format!("images {} are left: {e}", images.join(", "))),
        }
    }
    if ledger.is_settled()
        && let Err(e) = ledger.close()
    {
        left.push(format!("the ledger {} is left: {e}", ledger.folder().display()));
    }
    left
}

/// What a clean did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// What was removed.
    pub removed: Vec<String>,
    /// What is kept on purpose, or belongs to a run that goes on.
    pub spared: Vec<String>,
    /// What could not be removed.
    pub left: Vec<String>,
}

/// Removes what runs left whose process is gone; what they keep on purpose only if `kept`.
pub async fn clean(ledgers: &Path, kept: bool, teller: &Teller) -> std::io::Result<Reaped> {
    let mut reaped = Reaped::default();
    for ledger in Ledger::all(ledgers)? {
        let run = ledger.run();
        if ledger.owner_lives() {
            reaped.spared.push(format!("run {run} goes on"));
            continue;
        }
        if ledger.is_kept() {
            if !kept {
                let clusters = ledger.entries(Owned::Cluster).join(", ");
                reaped.spared.push(format!("run {run} keeps {clusters} on purpose; --kept deletes them"));
                continue;
            }
            ledger.unkeep()?;
        }
        let owned: Vec<String> = [Owned::Process, Owned::Cluster, Owned::Image]
            .into_iter()
            .flat_map(|kind| ledger.entries(kind).into_iter().map(move |name| format!("{kind:?} {name}")))
            .collect();
        let left = reap(&ledger, teller).await;
        if left.is_empty() {
            reaped.removed.push(format!("run {run}: {}", if owned.is_empty() { "its ledger".to_owned() } else { owned.join(", ") }));
        }
        reaped.left.extend(left);
    }
    Ok(reaped)
}

/// Ends a process of a run, with its group, if it is still that process.
async fn end(name: &str) -> Result<(), String> {
    let process: ProcessName = serde_json::from_str(name).map_err(|e| e.to_string())?;
    if !process.lives() {
        return Ok(());
    }
    let pid = i32::try_from(process.pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).map_err(|e| e.to_string())?;
    }
    wait_for(
        "the end of a process",
        Instant::now() + Duration::from_secs(10),
        Duration::from_millis(50),
        &|_, _| {},
        || async { if process.lives() { Probe::NotYet("alive".to_owned()) } else { Probe::Done(()) } },
    )
    .await
    .map_err(|e| e.to_string())
}
