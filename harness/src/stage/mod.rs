//! Stages: where a Calico is stood up. Only here is anything known of Docker, kind or Kubernetes.

mod api;
mod calico;
mod command;
pub mod config;
mod containers;
mod engine;
mod extras;
pub mod kind;
pub mod lab;
mod manifests;
pub mod nodeless;
pub mod objects;
mod programs;
mod pulling;
pub mod reap;
mod strays;
mod substitutes;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use manifests::{candidate, fetch_manifests};
pub use substitutes::Substitutes;
pub(crate) use substitutes::normalized;

use crate::environment::{About, Environment};
use crate::progress::Teller;
use crate::timing::Stopwatch;

/// What no stage covers but by what it says otherwise.
const AXES: [&str; 6] = [
    "Kubernetes versions other than the one that ran",
    "the eBPF data plane",
    "the nftables data plane",
    "BGP",
    "dual stack",
    SEVERAL_NODES,
];
/// That Whisker and Goldmane are on different nodes.
const SEVERAL_NODES: &str = "several nodes";

/// An environment that could not be had: what is wrong, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}{}", fix.as_ref().map(|fix| format!(". {fix}")).unwrap_or_default())]
pub struct NoEnvironment {
    /// One sentence for what is wrong.
    pub what: String,
    /// One sentence for what to do.
    pub fix: Option<String>,
}

impl NoEnvironment {
    /// With nothing to advise.
    pub fn because(what: impl Into<String>) -> Self {
        Self { what: what.into(), fix: None }
    }

    /// With advice.
    pub fn with_fix(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: Some(fix.into()) }
    }
}

/// A way of standing a Calico up.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Its name in options and case ids.
    fn name(&self) -> &'static str;
    /// Whether stand-ins run in place of Calico's programs.
    fn modelled(&self) -> bool;
    /// How many environments this machine carries at once.
    fn carries(&self) -> usize;
    /// What no result of this stage says anything of.
    fn not_covered(&self) -> Vec<String>;
    /// Looks whether the stage can be had at all, before anything is created; everything that is in the way, each by
    /// itself.
    async fn prepare(&self, wanted: &[About], jobs: usize, teller: &Teller)
    -> Result<(), Vec<NoEnvironment>>;
    /// Stands one environment up. May be dropped at any await; what it had created is then left to [`Stage::reap`].
    async fn provision(
        &self,
        about: &About,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Arc<dyn Provisioned>, NoEnvironment>;
    /// Gathers what can be seen of an environment that could not be had, then takes it down, or leaves it standing.
    async fn abandon(&self, about: &About, evidence: Option<&Path>, keep: bool) -> Vec<String>;
    /// Removes whatever the run still owns; what could not be removed. Of a run that was cut off, the engine may still be
    /// making something.
    async fn reap(&self, cut_off: bool, teller: &Teller) -> Vec<String>;
}

/// An environment that a stage stood up and must take down.
#[async_trait]
pub trait Provisioned: Environment {
    /// Itself, as scenarios see it.
    fn environment(self: Arc<Self>) -> Arc<dyn Environment>;
    /// Versions and digests of what runs.
    async fn provenance(&self) -> std::collections::BTreeMap<String, String>;
    /// Writes logs and states into a folder; what could not be gathered.
    async fn collect(&self, folder: &Path) -> Vec<String>;
    /// Takes it down. Idempotent, bounded.
    async fn finish(&self) -> Result<(), String>;
    /// Leaves it standing on purpose; how to use it.
    async fn keep(&self) -> String;
}
