//! CoreDNS's configuration for a DNS profile.
//!
//! The answer for names outside of the cluster's zones is CoreDNS's own, by its `template` plugin, and never what an
//! upstream resolver happens to say: that differs from machine to machine.

use catwalk_fixtures::{ClusterDomain, DnsProfile};

/// kubeadm's Corefile (Kubernetes v1.34, `cmd/kubeadm/app/phases/addons/dns/manifests.go`), with the profile's zones
/// and with a template in place of its forward.
pub(super) fn corefile(domain: &ClusterDomain, profile: DnsProfile) -> String {
    let zones: Vec<String> = profile.zones(domain).iter().map(ToString::to_string).collect();
    let served: Vec<String> = zones
        .iter()
        .map(String::as_str)
        .chain(["in-addr.arpa", "ip6.arpa"])
        .map(|z| format!("{z}:53"))
        .collect();
    let rcode = match profile {
        DnsProfile::Strict | DnsProfile::Dual => "NXDOMAIN",
        DnsProfile::UpstreamDown => "SERVFAIL",
    };
    // A server block of its own for the cluster's zones: the most specific zone answers, so a cluster domain below
    // cluster.local is served although cluster.local itself does not exist.
    format!(
        "{served} {{
    errors
    kubernetes {zones} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    cache 30
    loadbalance
}}
.:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    template ANY ANY . {{
       rcode {rcode}
       authority \"{{{{ .Zone }}}} 60 IN SOA catwalk. catwalk. 1 60 60 60 60\"
    }}
    prometheus :9153
    reload
}}
",
        served = served.join(" "),
        zones = zones.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_decides_the_zones_and_the_answer_for_foreign_names() {
        let corp = ClusterDomain::observed("corp.internal");
        let strict = corefile(&corp, DnsProfile::Strict);
        assert!(
            strict.contains("kubernetes corp.internal in-addr.arpa") && strict.contains("rcode NXDOMAIN")
        );
        assert!(!strict.contains("cluster.local") && !strict.contains("forward"));
        let dual = corefile(&corp, DnsProfile::Dual);
        assert!(
            dual.starts_with("corp.internal:53 cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {"),
            "{dual}"
        );
        assert!(corefile(&corp, DnsProfile::UpstreamDown).contains("rcode SERVFAIL"));
        let default = corefile(&ClusterDomain::observed("cluster.local"), DnsProfile::Dual);
        assert_eq!(default.matches("cluster.local:53").count(), 1, "{default}");
    }
}
