//! Scenarios: given, when, and the verdict that a right Calico must give.

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::environment::{Capability, LookError};
use crate::look::{Finding, Place};
use crate::verdict::Verdict;

/// What a scenario's run is.
pub type Running = Pin<Box<dyn Future<Output = Result<Finding, LookError>> + Send>>;

/// One scenario. It knows what a right Calico must do, and neither its stage nor its release.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// `crate/name`, stable.
    pub id: &'static str,
    /// What is there.
    pub given: &'static str,
    /// What is done.
    pub when: &'static str,
    /// What an environment must be able to do for it.
    pub needs: &'static [Capability],
    /// What a right Calico must give.
    pub demands: Demand,
    /// Looks.
    pub run: fn(Place) -> Running,
}

impl Scenario {
    /// Whether the word names it: `delivery`, `stream-opens` and `delivery/stream-opens` all name the last.
    pub fn is_named(&self, word: &str) -> bool {
        self.id == word || self.id.split('/').any(|part| part == word)
    }
}

/// The verdict that a scenario demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// What was pushed is seen.
    Delivered,
    /// What the operator rendered holds.
    Clean,
}

impl Demand {
    /// Whether the verdict is the demanded one.
    pub fn is_met_by(&self, verdict: &Verdict) -> bool {
        match self {
            Self::Delivered => matches!(verdict, Verdict::Delivered { .. }),
            Self::Clean => matches!(verdict, Verdict::Clean { .. }),
        }
    }
}

/// Writes a [`Scenario`] with its run as an async closure over the [`Place`].
#[macro_export]
macro_rules! scenario {
    (
        id: $id:literal,
        given: $given:literal,
        when: $when:literal,
        needs: [$($need:ident),* $(,)?],
        demands: $demand:expr,
        run: |$place:ident| $body:expr $(,)?
    ) => {
        $crate::scenario::Scenario {
            id: $id,
            given: $given,
            when: $when,
            needs: &[$($crate::environment::Capability::$need),*],
            demands: $demand,
            run: |$place| Box::pin($body),
        }
    };
}
