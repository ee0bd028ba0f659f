//! The report: one model, and its renderings.

pub mod diff;
pub mod flaky;
pub mod html;
pub mod junit;
pub mod summary;
pub mod terminal;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use catwalk_fixtures::release::version_key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::case::{Affecting, Outcome};
use crate::environment::{About, Claims};
use crate::gate::Word;
use crate::look::Finding;
use crate::scenario::Demand;
use crate::shard::Shard;
use crate::timing::Span;

/// The model's version; it changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u32,
    /// Catwalk's version, with the commit where it is known.
    pub catwalk: String,
    /// The run's id.
    pub run: String,
    /// The command that repeats it.
    pub command: String,
    /// Flags by which what stood there was another than by itself: other images, network, versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<String>,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// The stage's name.
    pub stage: String,
    /// Whether stand-ins ran in place of Calico's programs: then nothing here says anything of Calico.
    pub modelled: bool,
    /// What no result here says anything of.
    pub not_covered: Vec<String>,
    /// The environments.
    pub environments: Vec<EnvironmentReport>,
    /// The cases.
    pub cases: Vec<CaseReport>,
    /// What could not be cleaned up.
    pub left_behind: Vec<String>,
    /// Environments left standing on purpose, with how to use them.
    #[serde(default)]
    pub kept: Vec<String>,
    /// What the run as a whole ran into.
    pub problems: Vec<String>,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Which part of a run it is of, where it is not a whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// What the gate says of it, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Word>,
}

/// One environment of a run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentReport {
    /// `v3.30.1-corp.internal-strict`
    pub id: String,
    /// What it is.
    pub about: About,
    /// Versions and digests of what ran.
    pub provenance: BTreeMap<String, String>,
    /// Why it could not be had, if so.
    pub problem: Option<String>,
    /// Milliseconds from its start to its end.
    pub took_ms: u64,
    /// Of these, those in which nobody else was waited for.
    pub added_ms: u64,
    /// Its parts.
    pub timings: Vec<Span>,
    /// Evidence that could not be gathered.
    pub not_gathered: Vec<String>,
}

/// How the digest of an image ends, in provenance, that no registry gave.
pub const BUILT_HERE: &str = "(built locally, not pulled)";
/// Whether an image's digest in an environment's provenance leaves open whether it is its registry's.
pub fn not_as_pulled(digest: &str) -> bool {
    digest.ends_with(BUILT_HERE) || digest.ends_with(NOT_CONFIRMED)
}

/// A text without the login of the address in it: `https://user:token@host/path` as `https://host/path`.
pub fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

/// What a digest ends with that the engine has, and of which the registry did not say that it has it too.
pub const NOT_CONFIRMED: &str = "(not confirmed by its registry)";

/// One case of a run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CaseReport {
    /// `delivery/flow-is-delivered@v3.30.1-corp.internal-strict`
    pub id: String,
    /// The scenario.
    pub scenario: String,
    /// The environment.
    pub environment: String,
    /// What a right Calico gives.
    pub demands: Demand,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it is not a pass.
    pub reason: Option<String>,
    /// The known issues that affect it. Schema 1 had one at most, as `known_issue`.
    #[serde(default, alias = "known_issue", deserialize_with = "one_or_many")]
    pub known_issues: Vec<Affecting>,
    /// What was found; none where nothing could be looked at.
    pub finding: Option<Finding>,
    /// What the cluster said of itself then; recorded where nothing was delivered.
    pub claims: Option<Claims>,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// Reads none, one or a list of known issues.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Affecting>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Issues {
        One(Box<Affecting>),
        Many(Vec<Affecting>),
    }
    Ok(match Option::deserialize(from)? {
        None => Vec::new(),
        Some(Issues::One(issue)) => vec![*issue],
        Some(Issues::Many(issues)) => issues,
    })
}

/// Exit codes, most important first.
pub const EXIT_INTERRUPTED: u8 = 130;
/// A verdict differs, or all is well but for the gate.
pub const EXIT_DIFFERS: u8 = 1;
/// An environment could not be had.
pub const EXIT_NO_ENVIRONMENT: u8 = 3;
/// Cleanup failed.
pub const EXIT_LEFT_BEHIND: u8 = 4;

impl Report {
    /// Every exit code that applies, in the order 130, 1, 3, 4; the first is the process's. None means 0.
    pub fn exits(&self) -> Vec<u8> {
        let any = |outcomes: &[Outcome]| self.cases.iter().any(|case| outcomes.contains(&case.outcome));
        let shown = any(&[Outcome::Passed, Outcome::KnownIssue]);
        let differs = any(&[Outcome::Failed, Outcome::UnexpectedPass]) || !self.flaky().is_empty();
        let rows = [
            (self.interrupted, EXIT_INTERRUPTED),
            (differs, EXIT_DIFFERS),
            // A run that showed nothing is no success either.
            (
                any(&[Outcome::Errored]) || !self.problems.is_empty() || !(shown || differs),
                EXIT_NO_ENVIRONMENT,
            ),
            (!self.left_behind.is_empty(), EXIT_LEFT_BEHIND),
        ];
        let mut exits: Vec<u8> =
            rows.into_iter().filter_map(|(applies, code)| applies.then_some(code)).collect();
        // A gate that says no says it beside what the others say, never in their place.
        if exits.is_empty() && self.gate.as_ref().is_some_and(|word| !word.yes()) {
            exits.push(EXIT_DIFFERS);
        }
        exits
    }

    /// Whether it is of a run that was interrupted, had a problem, or came to no verdict somewhere.
    pub fn is_incomplete(&self) -> bool {
        let verdicts = self.cases.iter().filter(|case| case.finding.is_some()).count();
        self.interrupted
            || !self.problems.is_empty()
            || verdicts == 0
            || self.cases.iter().any(|case| case.outcome == Outcome::Errored)
    }

    /// Puts environments into the order of releases, domains and profiles, and cases into that of their ids.
    pub fn sort(&mut self) {
        let order = |e: &EnvironmentReport| {
            (version_key(&e.about.calico), e.about.domain.to_string(), e.about.dns, e.id.clone())
        };
        self.environments.sort_by_key(order);
        self.cases.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Writes `report.json`, `junit.xml`, `summary.md` and `report.html` into the folder, each whole or not at all, and
    /// beside the evidence of an environment the part of the report that rests on it.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        write_whole(&folder.join("report.json"), &serde_json::to_vec_pretty(self)?)?;
        write_whole(&folder.join("junit.xml"), junit::render(self)?.as_bytes())?;
        write_whole(&folder.join("summary.md"), summary::render(self).as_bytes())?;
        write_whole(&folder.join("report.html"), html::render(self)?.as_bytes())?;
        for environment in &self.environments {
            let evidence = folder.join("evidence").join(&environment.id);
            if evidence.is_dir() {
                let part = self.of(&environment.id);
                write_whole(&evidence.join("report.json"), &serde_json::to_vec_pretty(&part)?)?;
            }
        }
        Ok(())
    }

    /// The report of one environment alone.
    fn of(&self, id: &str) -> Self {
        let mut part = self.clone();
        part.environments.retain(|environment| environment.id == id);
        part.cases.retain(|case| case.environment == id);
        part
    }
}

/// Writes under a temporary name beside the file, then renames.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // Reports are for others to read; a temporary file is not.
    #[cfg(unix)]
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
