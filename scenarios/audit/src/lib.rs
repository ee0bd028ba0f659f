//! What the operator rendered names the cluster's own domain, by names that lead somewhere.

use catwalk_harness::scenario;
use catwalk_harness::scenario::{Demand, Scenario};

/// Every scenario of this crate.
pub const ALL: [Scenario; 2] = [NO_FOREIGN_DOMAIN, FULL_NAMES_ARE_SERVED];

/// No rendered object names a cluster domain other than the cluster's own.
/// Source: projectcalico/calico#10396, at its source: operator v1.38.0 rendered `GOLDMANE_HOST` with cluster.local.
pub const NO_FOREIGN_DOMAIN: Scenario = scenario! {
    id: "audit/no-foreign-domain",
    given: "Calico as released, in a cluster of this domain",
    when: "everything that the operator rendered is read",
    needs: [ListRendered],
    demands: Demand::Clean,
    run: |place| async move { place.audit_domains().await },
};

/// Every full name in a rendered object leads to its Service, if there is one: it has an address in the cluster's DNS,
/// and Goldmane's certificate is for it. Goldmane names guardian on every cluster, also where no guardian runs.
/// Source: operator v1.38.1, `pkg/dns`, `GetServiceDNSNames`; `pkg/render/goldmane`, `PUSH_URL`.
pub const FULL_NAMES_ARE_SERVED: Scenario = scenario! {
    id: "audit/full-names-are-served",
    given: "Calico as released, in a cluster of this domain",
    when: "every full name of a Service that the operator rendered is followed",
    needs: [ListRendered],
    demands: Demand::Clean,
    run: |place| async move { place.audit_full_names().await },
};
