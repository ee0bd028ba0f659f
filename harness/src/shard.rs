//! A run in parts, on several machines: which part runs what, and the parts' reports made one again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::case;
use crate::environment::About;
use crate::report::Report;
use crate::run::Group;

/// One part of a run, as `--shard 2/4` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Which, from 1 on.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

/// A part, with what tells whether another is of the same whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// The part.
    #[serde(flatten)]
    pub part: Part,
    /// How many cases the whole has.
    pub cases: usize,
    /// SHA-256 of their ids, sorted, a line each.
    pub whole: String,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("it takes I/N with I from 1 to N, for example 2/4".to_owned()),
        }
    }
}

impl Shard {
    /// That part of what these groups are together.
    pub fn new(part: Part, groups: &[Group]) -> Self {
        let ids = groups.iter().flat_map(|g| g.scenarios.iter().map(|s| case::id(s, &g.about))).collect();
        let (cases, whole) = fingerprint(&ids);
        Self { part, cases, whole }
    }
}

fn fingerprint(ids: &BTreeSet<String>) -> (usize, String) {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update(id);
        hash.update("\n");
    }
    (ids.len(), format!("{:x}", hash.finalize()))
}

/// Splits environments into parts of about the same cost, alike on every machine that knows the same costs.
///
/// `costs` are milliseconds by environment, of an earlier run; one that is not in it costs as much as the mean. The
/// dearest is given first, each to the part that has least; those of equal cost go by the hash of their id.
pub fn split(groups: Vec<Group>, of: usize, costs: &BTreeMap<String, u64>) -> Vec<Vec<Group>> {
    // A repetition costs what the first of them did.
    let cost = |about: &About| costs.get(&about.id()).or_else(|| costs.get(&about.id_of_all())).copied();
    let known: Vec<u64> = groups.iter().filter_map(|group| cost(&group.about)).collect();
    let mean = known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or(0).max(1);
    let mut dearest: Vec<(u64, Vec<u8>, Group)> = groups
        .into_iter()
        .map(|group| {
            let hash = Sha256::digest(group.about.id()).to_vec();
            (cost(&group.about).unwrap_or(mean).max(1), hash, group)
        })
        .collect();
    dearest.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut parts: Vec<(u64, Vec<Group>)> = (0..of.max(1)).map(|_| (0, Vec::new())).collect();
    for (cost, _, group) in dearest {
        if let Some((sum, part)) = parts.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += cost;
            part.push(group);
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Why reports are not the parts of one run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the reports are not the parts of one run: {}", .0.join("; "))]
pub struct NotOneRun(Vec<String>);

/// Makes one report of those of all parts. Its run is named by all of theirs, and what it took is what the longest took.
pub fn merge(reports: Vec<Report>) -> Result<Report, NotOneRun> {
    let refused = |why: String| NotOneRun(vec![why]);
    let mut parts = Vec::new();
    for report in reports {
        let Some(shard) = report.shard.clone() else {
            return Err(refused(format!("that of run {} is of a whole run (no --shard)", report.run)));
        };
        parts.push((shard, report));
    }
    parts.sort_by_key(|(shard, _)| shard.part);
    let Some((first_shard, first)) = parts.first().cloned() else {
        return Err(refused("there are none".to_owned()));
    };
    let mut wrong = Vec::new();
    for (shard, report) in &parts {
        let same = [
            (
                "another whole",
                (shard.part.of, shard.cases, &shard.whole)
                    == (first_shard.part.of, first_shard.cases, &first_shard.whole),
            ),
            ("another command", without_part(&report.command) == without_part(&first.command)),
            ("another version of Catwalk", report.catwalk == first.catwalk),
            ("another schema", report.schema == first.schema),
            ("another stage", report.stage == first.stage && report.modelled == first.modelled),
        ];
        for (what, _) in same.iter().filter(|(_, same)| !same) {
            wrong.push(format!(
                "part {} (run {}) is of {what} than part {}",
                shard.part, report.run, first_shard.part
            ));
        }
    }
    let of = first_shard.part.of;
    for index in 1..=of {
        match parts.iter().filter(|(shard, _)| shard.part.index == index).count() {
            0 => wrong.push(format!("part {index}/{of} is missing")),
            1 => {}
            n => wrong.push(format!("part {index}/{of} is there {n} times")),
        }
    }
    if !wrong.is_empty() {
        return Err(NotOneRun(wrong));
    }
    let mut merged = Report {
        shard: None,
        gate: None,
        command: without_part(&first.command),
        environments: Vec::new(),
        cases: Vec::new(),
        left_behind: Vec::new(),
        kept: Vec::new(),
        problems: Vec::new(),
        ..first
    };
    merged.run = parts.iter().map(|(_, report)| report.run.as_str()).collect::<Vec<_>>().join("+");
    let mut not_covered = BTreeSet::new();
    for (_, report) in parts {
        merged.started = merged.started.min(report.started);
        merged.took_ms = merged.took_ms.max(report.took_ms);
        merged.interrupted |= report.interrupted;
        merged.environments.extend(report.environments);
        merged.cases.extend(report.cases);
        not_covered.extend(report.not_covered);
        merged.left_behind.extend(report.left_behind);
        merged.kept.extend(report.kept);
        merged.problems.extend(report.problems);
    }
    merged.not_covered = not_covered.into_iter().collect();
    let ids: BTreeSet<String> = merged.cases.iter().map(|case| case.id.clone()).collect();
    let environments: BTreeSet<&str> = merged.environments.iter().map(|e| e.id.as_str()).collect();
    if environments.len() != merged.environments.len() {
        return Err(refused("an environment is in two of them".to_owned()));
    }
    if let Some(case) = merged.cases.iter().find(|case| !environments.contains(case.environment.as_str())) {
        return Err(refused(format!("the environment of {} is in none of them", case.id)));
    }
    if ids.len() != merged.cases.len() {
        return Err(refused("a case is in two of them".to_owned()));
    }
    if fingerprint(&ids) != (first_shard.cases, first_shard.whole.clone()) {
        let (have, whole) = (ids.len(), first_shard.cases);
        return Err(refused(format!(
            "together they have {have} cases, and these are not the {whole} of the whole"
        )));
    }
    merged.sort();
    Ok(merged)
}

/// The command of the whole: without what says where and on how many machines it ran.
fn without_part(command: &str) -> String {
    const OF_A_PART: [&str; 3] = ["--shard", "--report", "--jobs"];
    let mut words = Vec::new();
    let mut skip = false;
    for word in command.split(' ') {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = OF_A_PART.contains(&word);
        let is_joined =
            OF_A_PART.iter().any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')));
        if !skip && !is_joined {
            words.push(word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
