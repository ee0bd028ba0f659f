//! How to stand a Calico up and look at it: stages, probes, verdicts, ownership, the run and its report.

pub mod audit;
pub mod case;
pub mod conformance;
pub mod environment;
pub mod evidence;
pub mod gate;
pub mod judge;
pub mod look;
pub mod owner;
pub mod probe;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shard;
pub mod sight;
pub mod stage;
mod task;
pub mod timing;
pub mod verdict;
pub mod wait;
