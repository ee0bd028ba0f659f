//! `cargo xtask e2e`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catwalk_fixtures::release::version_key;
use catwalk_fixtures::{DnsProfile, KnownIssue, Release};
use catwalk_harness::case::{self, KnownIssues};
use catwalk_harness::owner::{Ledger, ledgers_folder};
use catwalk_harness::probe;
use catwalk_harness::report::{EXIT_INTERRUPTED, EXIT_NO_ENVIRONMENT, Report, SCHEMA, terminal};
use catwalk_harness::run::{self, Group, Keep, Options, Record};
use catwalk_harness::stage::config::{Cni, Configs};
use catwalk_harness::stage::kind::{Kind, KindOptions};
use catwalk_harness::stage::lab::Lab;
use catwalk_harness::stage::nodeless::{KUBERNETES, Nodeless, NodelessOptions, Substitutes};
use catwalk_harness::stage::{Stage, candidate};
use clap::ValueEnum;
use tokio::sync::watch;

use crate::select::{self, Selection};
use crate::show;

/// Options of `e2e`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to stand Calico up: `kind` on real clusters, `nodeless` on control planes without nodes, `lab` with
    /// stand-ins in this process
    #[arg(long, value_enum, default_value_t = StageName::Kind)]
    stage: StageName,
    /// Cluster domain, may be repeated [default: those of kind-configs for the stage]
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// Calico version, or `newest` or `all`, may be repeated [default: newest; all in the lab]
    #[arg(long, value_name = "VERSION")]
    calico: Vec<String>,
    /// What the cluster's DNS serves: strict, dual or upstream-down, may be repeated
    #[arg(long, value_name = "PROFILE")]
    dns: Vec<DnsProfile>,
    /// Scenario, or the crate of several, may be repeated [default: all]
    #[arg(long, value_name = "ID")]
    scenario: Vec<String>,
    /// What to set up beside Calico as released, by the files of kind-configs/with, may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    with: Vec<String>,
    /// Folder with Calico's manifests, or with one folder per version [default: downloaded and cached]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Name of a candidate: the folder's manifests are of no release that the table knows, and no known issue applies
    #[arg(long, value_name = "NAME", requires = "manifests", conflicts_with_all = ["calico", "standin"], value_parser = name)]
    name: Option<String>,
    /// Known issue that applies to the candidate all the same, by its id, may be repeated
    #[arg(long, value_name = "ID", requires = "name")]
    known_issue: Vec<String>,
    /// Runs the project's stand-ins in place of Calico's programs (kind, nodeless)
    #[arg(long)]
    standin: bool,
    /// What connects the pods (kind): `calico`, `kind` for kind's own, `none` for one that the node image brings
    /// [default: calico; kind with --standin]
    #[arg(long, value_enum)]
    cni: Option<CniName>,
    /// Node image (kind) [default: kind's own]
    #[arg(long, value_name = "REF")]
    node_image: Option<String>,
    /// Version of Kubernetes, of which the API server runs (nodeless)
    #[arg(long, value_name = "VERSION", default_value = KUBERNETES)]
    kubernetes: String,
    /// Image in place of another, by the last part of its name: `goldmane=registry.example/mine:dev`, may be repeated
    /// (nodeless)
    #[arg(long, value_name = "NAME=REF", value_parser = image)]
    image: Vec<(String, String)>,
    /// Registry, with a path if need be, in place of that of every image (nodeless)
    #[arg(long, value_name = "REGISTRY")]
    registry: Option<String>,
    /// Search domain of the host that resolv.conf has in front of the cluster's, may be repeated (nodeless)
    #[arg(long, value_name = "DOMAIN")]
    search: Vec<String>,
    /// Environments at once [default: by this machine's cores and memory]
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Seconds that standing one environment up may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// When to leave an environment standing
    #[arg(long, value_enum, default_value_t = KeepName::Never)]
    keep: KeepName,
    /// Folder for report.json, junit.xml and evidence
    #[arg(long, value_name = "DIR", default_value = "reports")]
    report: PathBuf,
    /// Prints the cases and ends
    #[arg(long)]
    list: bool,
    /// Prints what would be created and ends
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StageName {
    Kind,
    Nodeless,
    Lab,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CniName {
    Calico,
    Kind,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeepName {
    Never,
    Failed,
    Always,
}

pub(crate) async fn run(args: Args) -> Result<u8> {
    let workspace = workspace();
    let configs = Configs::read(&workspace.join("kind-configs")).map_err(anyhow::Error::new)?;
    let mut releases = Release::table()?;
    let mut issues = KnownIssue::table()?;
    let mut calico = args.calico.clone();
    if let (Some(name), Some(folder)) = (&args.name, &args.manifests) {
        add_candidate(name, folder, &mut releases)?;
        apply_to(name, &args.known_issue, &mut issues)?;
        calico = vec![name.clone()];
    }
    let issues = Arc::new(KnownIssues::new(issues)?);
    let (stage_name, modelled) = match args.stage {
        StageName::Lab => ("lab", true),
        StageName::Nodeless => ("nodeless", args.standin),
        StageName::Kind => ("kind", args.standin),
    };
    refuse_idle_flags(&args)?;
    let selection = Selection {
        domains: args.domain.clone(),
        calico,
        dns: args.dns.clone(),
        host_search: args.search.clone(),
        scenarios: args.scenario.clone(),
        with: select::extras(&args.with, &configs)?,
    };
    let groups = select::groups(&selection, stage_name, modelled, &configs, &releases)?;
    let cni = match (args.cni, args.standin) {
        (Some(CniName::Calico), true) => {
            bail!("stand-ins bring no network: --standin goes with --cni kind or none")
        }
        (Some(CniName::Calico), false) | (None, false) => Cni::Calico,
        (Some(CniName::Kind), _) | (None, true) => Cni::Kind,
        (Some(CniName::None), _) => Cni::None,
    };
    if args.list {
        return print_cases(&groups);
    }
    if args.dry_run {
        return print_plan(&args, &groups, &configs, &releases, cni);
    }
    // Evidence of an earlier run must not lie beside this one's report.
    std::fs::create_dir_all(&args.report)
        .and_then(|()| forget(&args.report))
        .and_then(|()| tempfile_in(&args.report))
        .with_context(|| {
            format!(
                "the report cannot be written into {}; name another folder with --report",
                args.report.display()
            )
        })?;

    let timeout = Duration::from_secs(args.timeout);
    let ledger = match args.stage {
        StageName::Lab => None,
        StageName::Kind | StageName::Nodeless => {
            Some(Ledger::open(&ledgers_folder()).context("opening the run's ledger")?)
        }
    };
    let stage: Arc<dyn Stage> = match &ledger {
        None => Arc::new(Lab::new(releases)),
        Some(ledger) if args.stage == StageName::Nodeless => Arc::new(Nodeless::new(NodelessOptions {
            configs,
            releases,
            manifests: args.manifests.clone(),
            standin: args.standin,
            kubernetes: args.kubernetes.clone(),
            substitutes: Substitutes {
                registry: args.registry.clone(),
                images: args.image.iter().cloned().collect(),
            },
            ledger: ledger.clone(),
            workspace: workspace.clone(),
            timeout,
        })),
        Some(ledger) => Arc::new(Kind::new(KindOptions {
            configs,
            releases,
            manifests: args.manifests.clone(),
            standin: args.standin,
            cni,
            node_image: args.node_image.clone(),
            ledger: ledger.clone(),
            workspace: workspace.clone(),
            timeout,
        })),
    };
    let run_id = ledger.as_ref().map_or_else(catwalk_harness::owner::RunId::random, |l| l.run().clone());
    let options = Options {
        jobs: args.jobs.map_or_else(|| stage.carries(), usize::from),
        timeout,
        keep: match args.keep {
            KeepName::Never => Keep::Never,
            KeepName::Failed => Keep::Failed,
            KeepName::Always => Keep::Always,
        },
        evidence: (args.stage != StageName::Lab).then(|| args.report.join("evidence")),
        run: run_id.to_string(),
    };
    let record: Record = Arc::new(Mutex::new(Report {
        schema: SCHEMA,
        catwalk: version(&workspace),
        run: run_id.to_string(),
        command: command_line(),
        started: probe::now(),
        took_ms: 0,
        stage: stage_name.to_owned(),
        modelled,
        not_covered: Vec::new(),
        environments: Vec::new(),
        cases: Vec::new(),
        left_behind: Vec::new(),
        kept: Vec::new(),
        problems: Vec::new(),
        interrupted: false,
    }));
    let cases = groups.iter().map(|group| group.scenarios.len()).sum();
    let (listener, done) = show::listener(cases);
    let stop = on_interruption();
    // A task of its own: after a panic in it the report is written all the same.
    let ran = tokio::spawn(run::run(stage, groups, issues, options, record.clone(), listener, stop)).await;
    done();
    let mut report = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Err(panic) = ran {
        report
            .problems
            .push(format!("the run ended in a panic: {panic}. `cargo xtask clean` removes what it left"));
    }
    finish(&report, &args.report)
}

/// Writes and prints the report; the exit code.
fn finish(report: &Report, folder: &Path) -> Result<u8> {
    let written = report.write(folder);
    let columns = if std::io::stdout().is_terminal() { columns() } else { 160 };
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe has read enough.
    let _ = write!(out, "{}", terminal::render(report, columns));
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
fn on_interruption() -> watch::Receiver<bool> {
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

fn add_candidate(name: &str, folder: &Path, releases: &mut Vec<Release>) -> Result<()> {
    if releases.iter().any(|release| release.calico == *name) {
        bail!("{name} is a release of the table: a candidate needs another name, or --calico {name}");
    }
    let newest = releases.iter().max_by_key(|release| version_key(&release.calico));
    let newest = newest.context("the table of releases is empty")?.clone();
    releases.push(candidate(name, folder, &newest).map_err(anyhow::Error::new)?);
    Ok(())
}

/// Lets the known issues of these ids apply to a candidate.
fn apply_to(candidate: &str, ids: &[String], issues: &mut [KnownIssue]) -> Result<()> {
    for id in ids {
        let known: Vec<String> = issues.iter().map(|issue| issue.id.clone()).collect();
        let issue = issues.iter_mut().find(|issue| issue.id == *id);
        let issue =
            issue.with_context(|| format!("no known issue {id:?}; there are {}", known.join(", ")))?;
        issue.versions.push(candidate.to_owned());
    }
    Ok(())
}

/// A name that can be part of a case's id and of a folder's name.
fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a name has letters, digits, '.', '_' and '-', for example v3.33.0-rc1".to_owned())
    }
}

/// `NAME=REF`
fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, reference)) if !name.is_empty() && !reference.is_empty() && !name.contains('/') => {
            Ok((name.to_owned(), reference.to_owned()))
        }
        _ => Err("it takes NAME=REF, for example goldmane=registry.example/mine/goldmane:dev".to_owned()),
    }
}

/// A flag that the stage would not look at is a mistake, and better said than ignored.
fn refuse_idle_flags(args: &Args) -> Result<()> {
    if args.standin && !args.with.is_empty() {
        bail!("--with does nothing with --standin: no operator runs that would render more");
    }
    let (kind, nodeless) = (args.stage == StageName::Kind, args.stage == StageName::Nodeless);
    let flags = [
        ("--manifests", args.manifests.is_some(), kind || nodeless),
        ("--name", args.name.is_some(), kind || nodeless),
        ("--standin", args.standin, kind || nodeless),
        ("--with", !args.with.is_empty(), kind || nodeless),
        ("--cni", args.cni.is_some(), kind),
        ("--node-image", args.node_image.is_some(), kind),
        ("--kubernetes", args.kubernetes != KUBERNETES, nodeless),
        ("--image", !args.image.is_empty(), nodeless),
        ("--registry", args.registry.is_some(), nodeless),
        ("--search", !args.search.is_empty(), nodeless),
    ];
    let idle = flags.into_iter().find(|(_, given, looked_at)| *given && !looked_at);
    match (idle, args.stage) {
        (None, _) => Ok(()),
        (Some((flag, ..)), StageName::Lab) => {
            bail!("{flag} does nothing in the lab, where everything is a stand-in")
        }
        (Some((flag, ..)), StageName::Kind) => {
            bail!("{flag} does nothing on kind; it is for --stage nodeless")
        }
        (Some((flag, ..)), StageName::Nodeless) => {
            bail!("{flag} does nothing on nodeless; it is for --stage kind")
        }
    }
}

fn print_cases(groups: &[Group]) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    for group in groups {
        for scenario in &group.scenarios {
            if writeln!(out, "{}", case::id(scenario, &group.about)).is_err() {
                return Ok(0);
            }
        }
    }
    Ok(0)
}

fn print_plan(
    args: &Args,
    groups: &[Group],
    configs: &Configs,
    releases: &[Release],
    cni: Cni,
) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    for group in groups {
        let about = &group.about;
        let mut text = format!("{}: {} scenarios\n", about.id(), group.scenarios.len());
        if args.stage == StageName::Kind {
            let cluster = configs.cluster(&about.domain, about.dns, cni, args.node_image.as_deref());
            text.push_str(&format!("  kind cluster: {cluster}\n"));
            if let Some(release) =
                releases.iter().find(|r| r.calico == about.calico).filter(|_| !args.standin)
            {
                let from =
                    args.manifests.as_ref().map_or("downloaded".to_owned(), |dir| dir.display().to_string());
                text.push_str(&format!(
                    "  Calico {}, operator {}, manifests {from}\n",
                    release.calico, release.operator
                ));
                text.push_str(&format!(
                    "  Installation: {}\n",
                    configs.installation(&about.domain, about.dns)
                ));
                for object in configs.extras(&about.with)? {
                    text.push_str(&format!("  beside it: {object}\n"));
                }
            }
        }
        if write!(out, "{text}").is_err() {
            return Ok(0);
        }
    }
    Ok(0)
}

/// The project's folder.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Removes an earlier run's report, and the evidence that it names; nothing else that may lie there.
fn forget(folder: &Path) -> std::io::Result<()> {
    let Ok(text) = std::fs::read(folder.join("report.json")) else { return Ok(()) };
    let Ok(earlier) = serde_json::from_slice::<Report>(&text) else { return Ok(()) };
    for environment in earlier.environments.iter().filter(|e| e.id == e.about.id() && !e.id.contains('/')) {
        gone(std::fs::remove_dir_all(folder.join("evidence").join(&environment.id)))?;
    }
    gone(std::fs::remove_file(folder.join("report.json")))?;
    gone(std::fs::remove_file(folder.join("junit.xml")))
}

fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Finds out whether files can be created there.
fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    tempfile::NamedTempFile::new_in(folder).map(drop)
}

/// Catwalk's version, with the commit where git knows it.
fn version(workspace: &Path) -> String {
    let git = |words: &[&str]| {
        let output = std::process::Command::new("git").current_dir(workspace).args(words).output().ok()?;
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
fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| {
        let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b));
        if plain && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    std::iter::once("cargo xtask".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
