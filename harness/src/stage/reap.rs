//! Removes what a run owns, by its ledger: at the end of the run itself, and later what a killed run left.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::command;
use super::engine::Engine;
use super::strays::{self, OnEngine};
use crate::owner::{Ledger, Owned, Owner, ProcessName, RunId};
use crate::progress::Teller;
use crate::stage::NoEnvironment;
use crate::wait::{Probe, wait_for};

/// How long after its client was killed the engine may still bring a container.
const LATE: Duration = Duration::from_secs(3);
/// The longest that removing one thing may take.
const REMOVAL: Duration = Duration::from_secs(120);
/// The longest that the engine may take to say what it has.
const LOOKING: Duration = Duration::from_secs(10);

/// Removes everything in the ledger but what is kept on purpose, then the ledger if nothing is left in it; what could
/// not be removed.
pub(super) async fn reap(ledger: &Ledger, cut_off: bool, teller: &Teller) -> Vec<String> {
    // Keys first: whatever else fails, none of kind's kubeconfigs stays.
    let mut left = remove_kubeconfigs(ledger);
    if cut_off {
        remove_half_made(ledger).await;
    }
    for kind in Owned::ALL {
        match ledger.entries(kind) {
            Ok(names) => {
                for name in names {
                    teller.tell("removing what the run owns", &name);
                    if let Err(why) = remove(ledger, kind, &name).await {
                        left.push(format!("{kind:?} {name} is left: {why}. `cargo xtask clean` tries again"));
                    }
                }
            }
            Err(e) => left.push(format!("reading the ledger {}: {e}", ledger.folder().display())),
        }
    }
    let files = ledger.files();
    if let Err(e) = std::fs::remove_dir_all(&files)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        left.push(format!("{} is left: {e}", files.display()));
    }
    if ledger.is_settled().is_ok_and(|settled| settled)
        && let Err(e) = ledger.close()
    {
        left.push(format!("the ledger {} is left: {e}", ledger.folder().display()));
    }
    left
}

/// Removes what there is of planes, networks and images, and gives the engine the time to bring what it was still making
/// when its client went: it is struck out only after that.
async fn remove_half_made(ledger: &Ledger) {
    let kinds = [Owned::Plane, Owned::Network, Owned::Image];
    let entries =
        kinds.map(|kind| ledger.entries(kind).unwrap_or_default().into_iter().map(move |name| (kind, name)));
    let entries: Vec<(Owned, String)> = entries.into_iter().flatten().collect();
    if entries.is_empty() {
        return;
    }
    let first = async {
        for (kind, name) in &entries {
            // What does not go now is told when it does not go the second time.
            let _ = remove_from_engine(ledger, *kind, name).await;
        }
    };
    let _ = tokio::time::timeout(REMOVAL, first).await;
    tokio::time::sleep(LATE).await;
}

async fn remove(ledger: &Ledger, kind: Owned, name: &str) -> Result<(), String> {
    let removing = async {
        remove_from_engine(ledger, kind, name).await?;
        ledger.strike(kind, name).map_err(|e| e.to_string())
    };
    let late = |_| Err(format!("not gone within {} s", REMOVAL.as_secs()));
    tokio::time::timeout(REMOVAL, removing).await.unwrap_or_else(late)
}

async fn remove_from_engine(ledger: &Ledger, kind: Owned, name: &str) -> Result<(), String> {
    let text = |e: NoEnvironment| e.to_string();
    let engine = || async { Engine::connect().await.map_err(text) };
    match kind {
        Owned::Process => end(name).await,
        // What a run has not finished by itself may have been cut off in the making.
        Owned::Cluster => delete_half_made(ledger, name).await.map_err(text),
        Owned::Plane => engine().await?.remove_plane(name).await.map_err(text),
        Owned::Network => engine().await?.remove_network(name).await.map_err(text),
        Owned::Image => {
            let engine = engine().await?;
            engine.remove_image(name).await.map_err(text)?;
            engine.remove_nameless_images(ledger.run()).await.map_err(text)
        }
    }
}

/// Removes what kind wrote of a cluster that was cut off in the making.
fn remove_kubeconfigs(ledger: &Ledger) -> Vec<String> {
    let entries = std::fs::read_dir(ledger.folder()).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.contains("kubeconfig")))
        .filter_map(|entry| {
            let removed = std::fs::remove_file(entry.path());
            removed.err().map(|e| format!("{} is left: {e}", entry.path().display()))
        })
        .collect()
}

/// Deletes a cluster, and strikes it out of the ledger once it is gone.
///
/// kind would take the cluster out of the user's kubeconfig, which is none of our business: it gets another.
pub(super) async fn delete(ledger: &Ledger, cluster: &str) -> Result<(), NoEnvironment> {
    let kubeconfig = ledger.folder().join("no-kubeconfig");
    let kubeconfig = kubeconfig.to_string_lossy();
    let delete = ["delete", "cluster", "--name", cluster, "--kubeconfig", &kubeconfig];
    command::kind(ledger, &delete, None, &|_| {}).await?;
    let _ = std::fs::remove_file(Path::new(&*kubeconfig));
    ledger
        .strike(Owned::Cluster, cluster)
        .map_err(|e| NoEnvironment::because(format!("writing the ledger: {e}")))
}

/// Deletes a cluster whose creation was cut off, as often as a node of it turns up: the engine may still have been
/// creating one when its client was killed.
pub(super) async fn delete_half_made(ledger: &Ledger, cluster: &str) -> Result<(), NoEnvironment> {
    let engine = Engine::connect().await?;
    let last_node = Mutex::new(Instant::now());
    let what = "the end of a half-made cluster";
    wait_for(what, Instant::now() + 10 * LATE, LATE / 10, &|_, _| {}, || {
        let (engine, last_node) = (&engine, &last_node);
        async move {
            match engine.nodes(cluster).await {
                Ok(nodes) if nodes.is_empty() => {}
                Ok(_) => {
                    if let Err(e) = delete(ledger, cluster).await {
                        return Probe::NotYet(e.to_string());
                    }
                    *last_node.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                }
                Err(e) => return Probe::NotYet(e.to_string()),
            }
            let quiet = last_node.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if quiet >= LATE { Probe::Done(()) } else { Probe::NotYet("watching for nodes".to_owned()) }
        }
    })
    .await
    .map_err(|e| NoEnvironment::because(e.to_string()))?;
    delete(ledger, cluster).await
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

/// Removes what runs left whose process is gone; what they keep on purpose only if `kept`. Of what the engine has of
/// runs without a ledger it only tells: they may go on elsewhere.
pub async fn clean(ledgers: &Path, kept: bool, teller: &Teller) -> std::io::Result<Reaped> {
    let mut reaped = Reaped::default();
    for ledger in Ledger::all(ledgers)? {
        clean_one(&ledger, false, kept, teller, &mut reaped).await?;
    }
    match strays(ledgers).await {
        Ok(strays) => reaped.spared.extend(strays.into_iter().map(|(run, things)| {
            format!(
                "run {run} has no ledger here, and the engine has {} of it. Should no other user or machine be at it: \
                 `cargo xtask clean --run {run}`",
                words(&things)
            )
        })),
        // Without an engine there are none.
        Err(None) => {}
        Err(Some(why)) => reaped.spared.push(format!("what runs without a ledger have on the engine: {why}")),
    }
    Ok(reaped)
}

/// Removes what that run left, also where its ledger is lost: then everything on the engine that carries its id.
pub async fn clean_run(ledgers: &Path, run: &RunId, kept: bool, teller: &Teller) -> std::io::Result<Reaped> {
    let mut reaped = Reaped::default();
    let known = Ledger::all(ledgers)?.into_iter().find(|ledger| ledger.run() == run);
    let ledger = if let Some(known) = known {
        known
    } else {
        let no_engine = || "no container engine answers".to_owned();
        let mut strays =
            strays(ledgers).await.map_err(|why| std::io::Error::other(why.unwrap_or_else(no_engine)))?;
        let Some(things) = strays.remove(run) else {
            let nothing = format!("run {run} has no ledger here, and the engine has nothing of it");
            return Err(std::io::Error::other(nothing));
        };
        let ledger = Ledger::open_for(ledgers, run.clone())?;
        for (owned, name) in things {
            ledger.enter(owned, &name)?;
        }
        reap_into(&ledger, teller, &mut reaped).await?;
        return Ok(reaped);
    };
    clean_one(&ledger, true, kept, teller, &mut reaped).await?;
    Ok(reaped)
}

/// What the engine has of runs without a ledger; no reason where there is no engine.
async fn strays(ledgers: &Path) -> Result<OnEngine, Option<String>> {
    let looking = async {
        let engine = Engine::connect().await.map_err(|_| None)?;
        strays::on_engine(&engine).await.map_err(|e| Some(e.to_string()))
    };
    let late = |_| Err(Some(format!("the engine did not answer within {} s", LOOKING.as_secs())));
    let mut found = tokio::time::timeout(LOOKING, looking).await.unwrap_or_else(late)?;
    // After the engine was asked: whoever came to it since has a ledger already.
    for ledger in Ledger::all(ledgers).map_err(|e| Some(e.to_string()))? {
        found.remove(ledger.run());
    }
    Ok(found)
}

fn words<'a>(things: impl IntoIterator<Item = &'a (Owned, String)>) -> String {
    let words: Vec<String> = things.into_iter().map(|(kind, name)| format!("{kind:?} {name}")).collect();
    words.join(", ")
}

async fn clean_one(
    ledger: &Ledger,
    asked_for: bool,
    kept: bool,
    teller: &Teller,
    reaped: &mut Reaped,
) -> std::io::Result<()> {
    let run = ledger.run();
    match ledger.owner() {
        Owner::Lives => {
            reaped.spared.push(format!("run {run} goes on"));
            return Ok(());
        }
        Owner::Elsewhere if !asked_for => {
            reaped.spared.push(format!(
                "run {run} is of another machine or container, and may go on there. Should it not: \
                 `cargo xtask clean --run {run}`"
            ));
            return Ok(());
        }
        Owner::Elsewhere | Owner::Gone => {}
    }
    for kind in Owned::ALL {
        for name in ledger.kept(kind)? {
            if kept {
                ledger.keep_no_longer(kind, &name)?;
            } else {
                reaped.spared.push(format!("run {run} keeps {name} on purpose; --kept deletes it"));
            }
        }
    }
    reap_into(ledger, teller, reaped).await
}

/// Reaps a run, and tells what was removed and left.
async fn reap_into(ledger: &Ledger, teller: &Teller, reaped: &mut Reaped) -> std::io::Result<()> {
    let mut owned = Vec::new();
    for kind in Owned::ALL {
        owned.extend(ledger.entries(kind)?.into_iter().map(|name| (kind, name)));
    }
    let only_kept = owned.is_empty() && !ledger.is_settled()?;
    let left = reap(ledger, true, teller).await;
    if left.is_empty() && !only_kept {
        let what = if owned.is_empty() { "its ledger".to_owned() } else { words(&owned) };
        reaped.removed.push(format!("run {}: {what}", ledger.run()));
    }
    reaped.left.extend(left);
    Ok(())
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
