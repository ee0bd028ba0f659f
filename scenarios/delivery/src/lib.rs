//! What is pushed to Goldmane is seen through Whisker.

use catwalk_harness::look::Question;
use catwalk_harness::scenario;
use catwalk_harness::scenario::{Demand, Scenario};

/// Every scenario of this crate.
pub const ALL: [Scenario; 4] = [FLOW_IS_DELIVERED, FILTER_HINTS_ANSWER, STREAM_OPENS, NODE_FLOWS_ARRIVE];

/// Whisker shows a flow that was pushed to Goldmane.
/// Source: projectcalico/calico#10396; operator v1.38.1 renders the cluster's own domain.
pub const FLOW_IS_DELIVERED: Scenario = scenario! {
    id: "delivery/flow-is-delivered",
    given: "Calico as released, in a cluster of this domain",
    when: "a flow is pushed to Goldmane and asked for at Whisker",
    needs: [PushFlow, AskWhisker],
    demands: Demand::Delivered,
    run: |place| async move { place.push_and_ask(Question::List).await },
};

/// Whisker offers a pushed flow's namespace as a filter.
/// Source: whisker-backend v3.30.0, `pkg/handlers/v1/flows.go`, `ListFilterHints`.
pub const FILTER_HINTS_ANSWER: Scenario = scenario! {
    id: "delivery/filter-hints-answer",
    given: "Calico as released, in a cluster of this domain",
    when: "a flow is pushed to Goldmane and Whisker is asked for filter hints",
    needs: [PushFlow, AskWhisker],
    demands: Demand::Delivered,
    run: |place| async move { place.push_and_ask(Question::Hints).await },
};

/// Whisker's event stream opens and brings a pushed flow.
/// Source: whisker-backend v3.30.0, `pkg/handlers/v1/flows.go`, `ListOrStream`.
pub const STREAM_OPENS: Scenario = scenario! {
    id: "delivery/stream-opens",
    given: "Calico as released, in a cluster of this domain",
    when: "a flow is pushed to Goldmane and Whisker's stream is watched",
    needs: [PushFlow, AskWhisker],
    demands: Demand::Delivered,
    run: |place| async move { place.push_and_ask(Question::Watch).await },
};

/// Whisker shows traffic that calico-node saw. A canary cannot stand in for it: after a change of domain calico-node
/// may be silent while Whisker and Goldmane are well.
/// Source: felix, `FELIX_FLOWLOGSGOLDMANESERVER`.
pub const NODE_FLOWS_ARRIVE: Scenario = scenario! {
    id: "delivery/node-flows-arrive",
    given: "Calico as released, with calico-node as the cluster's network",
    when: "one pod sends traffic to another and Whisker is asked for it",
    needs: [AskWhisker, NodeFlows],
    demands: Demand::Delivered,
    run: |place| async move { place.send_traffic_and_ask(Question::List).await },
};
