//! From flags to cases: which environments, and which scenarios in each.

use anyhow::{Context, Result, bail};
use catwalk_fixtures::release::version_key;
use catwalk_fixtures::{ClusterDomain, DnsProfile, Release};
use catwalk_harness::environment::About;
use catwalk_harness::run::Group;
use catwalk_harness::scenario::Scenario;
use catwalk_harness::stage::config::Configs;

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Cluster domains; none means those that the configurations name for the stage.
    pub(crate) domains: Vec<String>,
    /// Calico versions, or `newest` or `all`; none means the stage's own default.
    pub(crate) calico: Vec<String>,
    /// DNS profiles; none means those of the configurations, or strict for a domain that the user names.
    pub(crate) dns: Vec<DnsProfile>,
    /// Search domains of the host in front of the cluster's.
    pub(crate) host_search: Vec<String>,
    /// Scenarios, by id or the beginning of one; none means all.
    pub(crate) scenarios: Vec<String>,
    /// What is set up beside Calico as released, sorted.
    pub(crate) with: Vec<String>,
}

/// Every environment that the selection means, with its scenarios.
pub(crate) fn groups(
    selection: &Selection,
    stage: &str,
    modelled: bool,
    configs: &Configs,
    releases: &[Release],
) -> Result<Vec<Group>> {
    let scenarios = scenarios(&selection.scenarios)?;
    if let (true, Some(name)) = (stage != "kind", configs.of_clusters(&selection.with)?.first()) {
        bail!("--with {name} is of nodes, which {stage} has not: it goes with --stage kind");
    }
    let mut groups = Vec::new();
    for calico in versions(&selection.calico, stage, releases)? {
        for (domain, dns) in domains(selection, stage, configs)? {
            let about = About {
                calico: calico.clone(),
                domain,
                dns,
                stage: stage.to_owned(),
                modelled,
                host_search: selection.host_search.clone(),
                repetition: None,
                with: selection.with.clone(),
            };
            groups.push(Group { about, scenarios: scenarios.clone() });
        }
    }
    if groups.is_empty() {
        bail!(
            "nothing is selected: no configuration in kind-configs is a default of stage {stage}; name a --domain"
        );
    }
    Ok(groups)
}

/// Adds a group, or its scenarios where the environment is there already.
pub(crate) fn add(groups: &mut Vec<Group>, group: Group) {
    match groups.iter_mut().find(|known| known.about.id() == group.about.id()) {
        None => groups.push(group),
        Some(known) => {
            let is_wanted = |id| [&*known, &group].iter().any(|g| g.scenarios.iter().any(|s| s.id == id));
            known.scenarios = every_scenario().into_iter().filter(|s| is_wanted(s.id)).collect();
        }
    }
}

/// What is set up beside Calico as released, if it can be, sorted and each once.
pub(crate) fn extras(wanted: &[String], configs: &Configs) -> Result<Vec<String>> {
    let mut extras = wanted.to_vec();
    extras.sort();
    extras.dedup();
    configs.extras(&extras)?;
    Ok(extras)
}

/// Every scenario that there is, in the order in which they run.
pub(crate) fn every_scenario() -> Vec<Scenario> {
    // The audit lets the operator end its rendering, so that what is delivered then is delivered by the end's.
    [&catwalk_audit::ALL[..], &catwalk_delivery::ALL[..]].concat()
}

fn scenarios(wanted: &[String]) -> Result<Vec<Scenario>> {
    let all = every_scenario();
    for word in wanted {
        if !all.iter().any(|s| s.is_named(word)) {
            let ids: Vec<&str> = all.iter().map(|s| s.id).collect();
            bail!("no scenario {word:?}; there are {}", ids.join(", "));
        }
    }
    let chosen = |s: &Scenario| wanted.is_empty() || wanted.iter().any(|word| s.is_named(word));
    Ok(all.into_iter().filter(chosen).collect())
}

fn versions(wanted: &[String], stage: &str, releases: &[Release]) -> Result<Vec<String>> {
    let newest = || {
        let newest = releases.iter().max_by_key(|release| version_key(&release.calico));
        newest.map(|release| release.calico.clone()).context("the table of releases is empty")
    };
    let all = || releases.iter().map(|release| release.calico.clone());
    if wanted.is_empty() {
        return Ok(if stage == "lab" { all().collect() } else { vec![newest()?] });
    }
    let mut versions = Vec::new();
    for word in wanted {
        let named = match word.as_str() {
            "newest" => vec![newest()?],
            "all" => all().collect(),
            version => {
                let known =
                    all().find(|known| known.trim_start_matches('v') == version.trim_start_matches('v'));
                let Some(known) = known else {
                    bail!("no Calico {version}; there are {}", all().collect::<Vec<_>>().join(", "));
                };
                vec![known]
            }
        };
        versions.extend(named);
    }
    let mut seen = Vec::new();
    versions.retain(|version| {
        !seen.contains(version) && {
            seen.push(version.clone());
            true
        }
    });
    Ok(versions)
}

fn domains(
    selection: &Selection,
    stage: &str,
    configs: &Configs,
) -> Result<Vec<(ClusterDomain, DnsProfile)>> {
    let mut pairs: Vec<(ClusterDomain, DnsProfile)> = Vec::new();
    let mut add = |domain: ClusterDomain, dns: DnsProfile| {
        if !pairs.iter().any(|(d, p)| *d == domain && *p == dns) {
            pairs.push((domain, dns));
        }
    };
    if selection.domains.is_empty() {
        for config in configs.named().iter().filter(|c| c.default_on.iter().any(|s| s == stage)) {
            let domain = ClusterDomain::configured(&config.cluster_domain)?;
            if selection.dns.is_empty() {
                add(domain, config.dns);
            } else {
                selection.dns.iter().for_each(|dns| add(domain.clone(), *dns));
            }
        }
        return Ok(pairs);
    }
    let dns = if selection.dns.is_empty() { vec![DnsProfile::Strict] } else { selection.dns.clone() };
    for text in &selection.domains {
        let domain = ClusterDomain::configured(text)?;
        dns.iter().for_each(|dns| add(domain.clone(), *dns));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn select(selection: Selection, stage: &str) -> Result<Vec<Group>> {
        let configs = Configs::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs"))?;
        groups(&selection, stage, stage == "lab", &configs, &Release::table()?)
    }

    fn ids(groups: &[Group]) -> Vec<String> {
        groups.iter().map(|group| group.about.id()).collect()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The table's newest version.
    fn newest() -> String {
        let versions = Release::table().unwrap().into_iter().map(|release| release.calico);
        versions.max_by_key(|version| version_key(version)).unwrap()
    }

    #[test]
    fn kind_takes_the_newest_release_under_two_domains() {
        let groups = select(Selection::default(), "kind").unwrap();
        let of = |domain: &str| format!("{}-{domain}-strict", newest());
        assert_eq!(ids(&groups), [of("cluster.local"), of("corp.internal")]);
        assert_eq!(groups[0].scenarios.len(), every_scenario().len());
    }

    #[test]
    fn the_lab_takes_every_release_domain_and_two_profiles() {
        let ids = ids(&select(Selection::default(), "lab").unwrap());
        for release in Release::table().unwrap() {
            for domain in ["cluster.local", "corp.internal", "k8s.example.org"] {
                for dns in ["strict", "dual"] {
                    let id = format!("{}-{domain}-{dns}", release.calico);
                    assert!(ids.contains(&id), "{id}");
                }
            }
        }
    }

    #[test]
    fn flags_narrow_and_repeat_without_doubling() {
        let selection = Selection {
            domains: words(&["a.b", "a.b", "c.d"]),
            calico: words(&["3.30.1", "v3.30.1", "newest"]),
            dns: vec![DnsProfile::Dual],
            scenarios: words(&["stream-opens"]),
            ..Selection::default()
        };
        let groups = select(selection, "kind").unwrap();
        let of_newest = |domain: &str| format!("{}-{domain}-dual", newest());
        let expected = [
            "v3.30.1-a.b-dual".to_owned(),
            "v3.30.1-c.d-dual".to_owned(),
            of_newest("a.b"),
            of_newest("c.d"),
        ];
        assert_eq!(ids(&groups), expected);
        assert_eq!(groups[0].scenarios[0].id, "delivery/stream-opens");
    }

    #[test]
    fn what_is_set_up_beside_calico_is_in_the_environment_s_name() {
        let configs = Configs::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs")).unwrap();
        let with = extras(&words(&["managementcluster", "gatewayapi", "gatewayapi"]), &configs).unwrap();
        let selection = Selection { with, domains: words(&["a.b"]), ..Selection::default() };
        let groups = select(selection, "kind").unwrap();
        assert_eq!(ids(&groups), [format!("{}-a.b-strict+gatewayapi+managementcluster", newest())]);
        let of_nodes = Selection { with: words(&["worker"]), ..Selection::default() };
        let of_kind = ids(&select(of_nodes.clone(), "kind").unwrap());
        assert!(of_kind[0].ends_with("-cluster.local-strict+worker"), "{of_kind:?}");
        let error = select(of_nodes, "nodeless").err().unwrap().to_string();
        assert!(error.contains("--with worker is of nodes"), "{error}");
        let error = extras(&words(&["nonsense"]), &configs).unwrap_err().to_string();
        assert!(error.contains("There are gatewayapi, managementcluster, worker"), "{error}");
    }

    #[test]
    fn a_mistake_is_answered_with_what_there_is() {
        let rows = [
            (Selection { domains: words(&["Corp.internal"]), ..Selection::default() }, "capital letter"),
            (Selection { calico: words(&["v3.29.0"]), ..Selection::default() }, "there are v3.30.0"),
            (
                Selection { scenarios: words(&["nonsense"]), ..Selection::default() },
                "delivery/flow-is-delivered",
            ),
        ];
        for (selection, expected) in rows {
            let error = select(selection, "kind").err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(select(Selection::default(), "nowhere").is_err(), "nothing selected is an error");
    }
}
