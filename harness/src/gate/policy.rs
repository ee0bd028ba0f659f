//! A gate's policy, read from TOML.

use catwalk_fixtures::domain::DomainRefused;
use catwalk_fixtures::{ClusterDomain, DnsProfile};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use time::Date;
use time::macros::format_description;

use crate::case::KnownIssues;
use crate::scenario::Scenario;

/// What must be shown for real, and which known issues are put up with meanwhile.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether every image must have come from a registry: one that was built on the machine may have a release's name
    /// and not be it.
    #[serde(default)]
    pub pulled_images: bool,
    /// What must pass. At least one.
    pub require: Vec<Requirement>,
    /// The known issues that are accepted.
    #[serde(default)]
    pub accept: Vec<Acceptance>,
}

/// Scenarios that must pass under each of some domains and DNS profiles.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Scenarios by id, or by their crate, as for `e2e --scenario`.
    pub scenarios: Vec<String>,
    /// Cluster domains.
    pub domains: Vec<ClusterDomain>,
    /// What the cluster's DNS serves.
    pub dns: Vec<DnsProfile>,
    /// Stages of which any one will do.
    pub stages: Vec<String>,
    /// What is set up beside Calico as released.
    #[serde(default)]
    pub with: Vec<String>,
}

/// A known issue that the gate lets through.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// Its id.
    pub known_issue: String,
    /// The last day, UTC: `2027-03-31`.
    #[serde(deserialize_with = "day")]
    #[schemars(with = "String")]
    pub until: Date,
    /// Why.
    pub why: String,
}

/// A policy that is none.
#[derive(Debug, thiserror::Error)]
pub enum BadPolicy {
    /// Not of the policy's form.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A domain that no cluster can have.
    #[error("{0}")]
    Domain(#[from] DomainRefused),
    /// It would let everything through.
    #[error("{0}")]
    Empty(String),
}

impl Policy {
    /// Reads one.
    pub fn from_toml(text: &str) -> Result<Self, BadPolicy> {
        let mut policy: Self = toml::from_str(text)?;
        if policy.require.is_empty() {
            return Err(BadPolicy::Empty(
                "it requires nothing, so it would let everything through".to_owned(),
            ));
        }
        for (index, require) in policy.require.iter_mut().enumerate() {
            let lists = [
                ("scenarios", require.scenarios.is_empty()),
                ("domains", require.domains.is_empty()),
                ("dns", require.dns.is_empty()),
                ("stages", require.stages.is_empty()),
            ];
            if let Some((name, _)) = lists.into_iter().find(|(_, empty)| *empty) {
                let words = format!("requirement {} has no {name}, so it requires nothing", index + 1);
                return Err(BadPolicy::Empty(words));
            }
            if let Some(stage) =
                require.stages.iter().find(|stage| !["kind", "nodeless"].contains(&stage.as_str()))
            {
                let words = format!(
                    "requirement {}: on {stage} nothing real is shown; there are kind and nodeless",
                    index + 1
                );
                return Err(BadPolicy::Empty(words));
            }
            for domain in &require.domains {
                ClusterDomain::configured(domain.as_str())?;
            }
            require.with.sort();
        }
        if let Some(acceptance) = policy.accept.iter().find(|acceptance| acceptance.why.trim().is_empty()) {
            let words = format!("it accepts {} and does not say why", acceptance.known_issue);
            return Err(BadPolicy::Empty(words));
        }
        Ok(policy)
    }

    /// What it asks for that there is not.
    pub fn mistakes(&self, scenarios: &[Scenario], issues: &KnownIssues) -> Vec<String> {
        let words = self.require.iter().flat_map(|require| &require.scenarios);
        let unknown = words.filter(|word| !scenarios.iter().any(|scenario| scenario.is_named(word)));
        let accepted = self.accept.iter().map(|acceptance| acceptance.known_issue.as_str());
        let no_issue = accepted.filter(|id| !issues.ids().any(|known| known == *id));
        unknown
            .map(|word| format!("the policy requires {word}, and there is no such scenario"))
            .chain(no_issue.map(|id| format!("the policy accepts {id}, and no known issue has that id")))
            .collect()
    }
}

impl Requirement {
    /// Every domain with every DNS profile.
    pub(super) fn places(&self) -> impl Iterator<Item = (&ClusterDomain, DnsProfile)> {
        self.domains.iter().flat_map(|domain| self.dns.iter().map(move |dns| (domain, *dns)))
    }

    pub(super) fn not_shown(
        &self,
        scenario: &Scenario,
        domain: &ClusterDomain,
        dns: DnsProfile,
        how: &str,
    ) -> String {
        let with =
            if self.with.is_empty() { String::new() } else { format!(" with {}", self.with.join(", ")) };
        let stages = self.stages.join(" or ");
        format!("{} under {domain} ({dns}){with} was not shown for real on {stages}: {how}", scenario.id)
    }
}

fn day<'de, D: Deserializer<'de>>(from: D) -> Result<Date, D::Error> {
    let text = String::deserialize(from)?;
    let form = format_description!("[year]-[month]-[day]");
    Date::parse(&text, form)
        .map_err(|e| serde::de::Error::custom(format!("{text:?} is no day like \"2027-03-31\": {e}")))
}
