//! `cargo xtask report`

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use catwalk_fixtures::{KnownIssue, Release};
use catwalk_harness::case::KnownIssues;
use catwalk_harness::conformance::{self, Statement};
use catwalk_harness::report::{EXIT_DIFFERS, EXIT_NO_ENVIRONMENT, Report, SCHEMA, diff, terminal};
use catwalk_harness::shard;
use serde::Deserialize;

use crate::e2e::{apply_to, finish, forget};
use crate::gate;
use crate::this;

/// What to do with reports.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Says whether reports show what a policy requires, as `e2e --gate` does of its own
    Gate(GateArgs),
    /// Says what differs from one release's report to another's: verdicts, rendered names, coverage, times
    Diff(DiffArgs),
    /// States as JSON what reports show a release to support, or says what in such a statement they do not show
    Conformance(ConformanceArgs),
    /// Makes one report of those of all parts of a run (`e2e --shard`); their evidence stays where it is
    Merge(MergeArgs),
}

/// Options of `report diff`. Exit code 1 means that verdicts, names or coverage differ.
#[derive(clap::Args)]
pub(crate) struct DiffArgs {
    /// Report of the last good release
    first: PathBuf,
    /// Report of the one to compare with it
    second: PathBuf,
}

/// Options of `report conformance`. Exit code 1 means that nothing can be stated, or that a claim is refused.
#[derive(clap::Args)]
pub(crate) struct ConformanceArgs {
    /// A statement to hold against the reports, in place of making one
    #[arg(long, value_name = "CONFORMANCE")]
    check: Option<PathBuf>,
    /// Known issue that applies to the candidate of the reports, by its id, may be repeated
    #[arg(long, value_name = "ID")]
    known_issue: Vec<String>,
    /// Reports of one release: report.json, of one stage each
    #[arg(required = true, value_name = "REPORT")]
    reports: Vec<PathBuf>,
}

/// Options of `report merge`.
#[derive(clap::Args)]
pub(crate) struct MergeArgs {
    /// Folder for the one report: report.json, junit.xml, summary.md and report.html
    #[arg(long, value_name = "DIR", default_value = "reports/merged")]
    into: PathBuf,
    /// The reports of all parts
    #[arg(required = true, value_name = "REPORT")]
    reports: Vec<PathBuf>,
}

/// Options of `report gate`.
#[derive(clap::Args)]
pub(crate) struct GateArgs {
    /// The policy
    #[arg(long, value_name = "POLICY.toml", default_value = "release-gate.toml")]
    policy: PathBuf,
    /// Known issue that applies to the candidate of the reports, by its id, may be repeated
    #[arg(long, value_name = "ID")]
    known_issue: Vec<String>,
    /// Reports of one release: report.json, of one stage each
    #[arg(required = true, value_name = "REPORT")]
    reports: Vec<PathBuf>,
}

pub(crate) fn run(command: Command) -> Result<u8> {
    match command {
        Command::Gate(args) => gate(&args),
        Command::Diff(args) => diff(&args),
        Command::Conformance(args) => conformance(&args),
        Command::Merge(args) => merge(&args),
    }
}

fn gate(args: &GateArgs) -> Result<u8> {
    let policy = gate::read(&args.policy)?;
    let reports = args.reports.iter().map(|path| read(path)).collect::<Result<Vec<Report>>>()?;
    let issues = issues_of(&reports, &args.known_issue)?;
    let word = gate::hold(&policy, &reports, &issues, &this::version())?;
    let mut text = String::new();
    terminal::gate(&mut text, &word);
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(if word.yes() { 0 } else { EXIT_DIFFERS })
}

/// The known issues, with those that apply to the reports' candidate.
fn issues_of(reports: &[Report], known_issue: &[String]) -> Result<KnownIssues> {
    let mut issues = KnownIssue::table()?;
    let releases = Release::table()?;
    let versions = reports.iter().flat_map(|report| &report.environments).map(|e| &e.about.calico);
    let candidate = versions.into_iter().find(|version| !releases.iter().any(|r| r.calico == **version));
    match candidate {
        Some(candidate) => apply_to(candidate, known_issue, &mut issues)?,
        None if known_issue.is_empty() => {}
        None => bail!("--known-issue is for candidates, and the reports are of a release of the table"),
    }
    Ok(KnownIssues::new(issues)?)
}

fn conformance(args: &ConformanceArgs) -> Result<u8> {
    let reports = args.reports.iter().map(|path| read(path)).collect::<Result<Vec<Report>>>()?;
    let issues = issues_of(&reports, &args.known_issue)?;
    let Some(path) = &args.check else {
        return Ok(match gate::conformance(&reports, &issues, &this::version())? {
            Ok(statement) => {
                let _ = writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&statement)?);
                0
            }
            Err(why) => {
                eprintln!("error: {why}");
                EXIT_DIFFERS
            }
        });
    };
    let text = std::fs::read(path).with_context(|| format!("reading the statement {}", path.display()))?;
    let statement: Statement =
        serde_json::from_slice(&text).with_context(|| format!("{} is no statement", path.display()))?;
    if statement.conformance != conformance::VERSION {
        bail!(
            "{} is of version {}, and this reads {}",
            path.display(),
            statement.conformance,
            conformance::VERSION
        );
    }
    let refused = gate::refused(&statement, &reports, &issues, &this::version())?;
    let mut out = std::io::stdout().lock();
    for words in &refused {
        let _ = writeln!(out, "refused: {words}");
    }
    if refused.is_empty() {
        let _ = writeln!(out, "all {} claims for {} are shown", statement.supports.len(), statement.calico);
    }
    Ok(if refused.is_empty() { 0 } else { EXIT_DIFFERS })
}

fn diff(args: &DiffArgs) -> Result<u8> {
    let (first, second) = (read(&args.first)?, read(&args.second)?);
    for (path, report) in [(&args.first, &first), (&args.second, &second)] {
        let versions: BTreeSet<&str> = report.environments.iter().map(|e| e.about.calico.as_str()).collect();
        if versions.len() > 1 {
            bail!(
                "{} is of several releases, {}: a comparison is of one with one",
                path.display(),
                Vec::from_iter(versions).join(", ")
            );
        }
    }
    let difference = diff::diff(&first, &second);
    let _ = write!(std::io::stdout().lock(), "{difference}");
    // Of a run that showed nothing, nothing can be said to be the same.
    if let Some((path, _)) =
        [(&args.first, &first), (&args.second, &second)].into_iter().find(|(_, r)| r.is_incomplete())
    {
        eprintln!(
            "error: {} is of a run that was interrupted, had a problem or showed nothing",
            path.display()
        );
        return Ok(EXIT_NO_ENVIRONMENT);
    }
    Ok(if difference.is_none() { 0 } else { EXIT_DIFFERS })
}

fn merge(args: &MergeArgs) -> Result<u8> {
    let reports = args.reports.iter().map(|path| read(path)).collect::<Result<Vec<Report>>>()?;
    if args.reports.iter().any(|path| is_in(path, &args.into)) {
        bail!("{} is where a part's report is: name another folder with --into", args.into.display());
    }
    // An earlier report must not be taken for this one, also where there is to be none.
    forget(&args.into).with_context(|| format!("removing the earlier report in {}", args.into.display()))?;
    finish(&shard::merge(reports)?, &args.into)
}

/// Whether a file that there is lies in a folder, whatever either is called.
pub(crate) fn is_in(file: &Path, folder: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    folder.canonicalize().is_ok_and(|folder| file.parent() == Some(&folder))
}

/// Reads a report of this version's schema.
pub(crate) fn read(path: &Path) -> Result<Report> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    let text = std::fs::read(path).with_context(|| format!("reading the report {}", path.display()))?;
    let versioned: Versioned =
        serde_json::from_slice(&text).with_context(|| format!("{} is no whole report", path.display()))?;
    if versioned.schema != SCHEMA {
        bail!(
            "{} has schema {}, and this reads {SCHEMA}: take the Catwalk that wrote it",
            path.display(),
            versioned.schema
        );
    }
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of schema {SCHEMA}", path.display()))
}
