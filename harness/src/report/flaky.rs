//! Cases that did not end alike in every repetition (`e2e --repeat`).

use std::collections::BTreeMap;
use std::fmt;

use super::{CaseReport, Report};
use crate::case::Outcome;
use crate::verdict::Kind;

/// A case whose repetitions did not end alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaky {
    /// Its id without the repetition.
    pub case: String,
    /// How repetitions ended, each with which of them did.
    pub ends: BTreeMap<(Outcome, Kind), Vec<usize>>,
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> = self
            .ends
            .iter()
            .map(|((outcome, kind), which)| {
                let which: Vec<String> = which.iter().map(usize::to_string).collect();
                let verdict = if kind.is_empty() { String::new() } else { format!(" ({kind})") };
                format!("{}{verdict} in repetition {}", outcome.as_str(), which.join(", "))
            })
            .collect();
        write!(f, "{} is flaky: {}", self.case, ends.join("; "))
    }
}

impl Report {
    /// The flaky cases, by id. One that errored somewhere came to no verdict there, which makes it no flakier.
    pub fn flaky(&self) -> Vec<Flaky> {
        let repeated: BTreeMap<&str, (String, usize)> = self
            .environments
            .iter()
            .filter_map(|e| Some((e.id.as_str(), (e.about.id_of_all(), e.about.repetition?.index))))
            .collect();
        let mut of: BTreeMap<String, Flaky> = BTreeMap::new();
        for case in self.cases.iter().filter(|case| case.outcome != Outcome::Errored) {
            let Some((environment, index)) = repeated.get(case.environment.as_str()) else { continue };
            let id = format!("{}@{environment}", case.scenario);
            let flaky = of.entry(id.clone()).or_insert_with(|| Flaky { case: id, ends: BTreeMap::new() });
            flaky.ends.entry((case.outcome, kind(case))).or_default().push(*index);
        }
        of.into_values().filter(|flaky| flaky.ends.len() > 1).collect()
    }
}

fn kind(case: &CaseReport) -> Kind {
    case.finding.as_ref().map_or("", |finding| finding.judgement.verdict.kind())
}
