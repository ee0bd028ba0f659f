//! Defects to plant into the lab's stand-ins, one layer each.

use catwalk_fixtures::pki::LeafRequest;
use catwalk_fixtures::standin::goldmane::GoldmaneFault;
use serde_json::Value;

/// A defect to put into the lab; the default is none.
#[derive(Clone)]
pub struct Plant {
    /// What the DNS server does.
    pub dns: DnsPlant,
    /// What connecting to Goldmane's Service comes to.
    pub service: ServicePlant,
    /// What Goldmane does.
    pub goldmane: GoldmaneFault,
    /// Changes the request for Goldmane's certificate.
    pub certificate: fn(&mut LeafRequest),
    /// Whether Whisker trusts another authority than the one that signed Goldmane's certificate.
    pub whisker_distrusts: bool,
    /// Whether Goldmane trusts another authority than the one that signed Whisker's certificate.
    pub goldmane_distrusts: bool,
    /// What Whisker does.
    pub whisker: WhiskerPlant,
    /// Objects beside those of the stand-in operator; rendered are those that a custom resource of it owns.
    pub objects: Vec<Value>,
}

impl Default for Plant {
    fn default() -> Self {
        Self {
            dns: DnsPlant::Answers,
            service: ServicePlant::Open,
            goldmane: GoldmaneFault::None,
            certificate: |_| {},
            whisker_distrusts: false,
            goldmane_distrusts: false,
            whisker: WhiskerPlant::Runs,
            objects: Vec::new(),
        }
    }
}

/// A DNS server's part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DnsPlant {
    /// By its profile.
    Answers,
    /// By its profile, but that it knows no such Service, `name.namespace`.
    Lacks(&'static str),
    /// SERVFAIL to everything.
    Fails,
    /// Nobody listens.
    Gone,
}

/// A Service's part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ServicePlant {
    /// Leads to Goldmane.
    Open,
    /// Leads to a port on which nobody listens.
    Refuses,
    /// Packets vanish, as under a policy.
    Drops,
}

/// Whisker's part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WhiskerPlant {
    /// Runs.
    Runs,
    /// Its key file is not there, so it ends at its start.
    LacksKey,
    /// Runs no more, and left no word.
    Gone,
    /// Its front knows no way to the backend and shows the index page instead.
    ShowsIndexPage,
    /// Takes the question and never answers.
    Hangs,
}
