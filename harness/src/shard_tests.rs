//! Parts of a run: split, and merged again.

use catwalk_fixtures::{ClusterDomain, DnsProfile};

use super::*;
use crate::environment::About;
use crate::report::{CaseReport, EnvironmentReport};

fn about(domain: &str) -> About {
    About {
        calico: "v3.30.1".into(),
        domain: ClusterDomain::observed(domain),
        dns: DnsProfile::Strict,
        stage: "kind".into(),
        modelled: false,
        host_search: vec![],
        repetition: None,
        with: vec![],
    }
}

fn groups(n: usize) -> Vec<Group> {
    (0..n).map(|i| Group { about: about(&format!("d{i}.test")), scenarios: vec![] }).collect()
}

fn ids(parts: &[Vec<Group>]) -> Vec<Vec<String>> {
    parts.iter().map(|part| part.iter().map(|group| group.about.id()).collect()).collect()
}

#[test]
fn a_split_has_everything_once_and_is_the_same_in_any_order() {
    for n in [1, 4, 7, 23] {
        for of in [1, 3, 4] {
            let parts = split(groups(n), of, &BTreeMap::new());
            assert_eq!(parts.len(), of);
            let mut reversed = groups(n);
            reversed.reverse();
            assert_eq!(ids(&parts), ids(&split(reversed, of, &BTreeMap::new())));
            let mut all = ids(&parts).concat();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), n);
            let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }
}

#[test]
fn costs_balance_a_split() {
    let cost = |i: u64| (about(&format!("d{i}.test")).id(), if i == 0 { 90_000 } else { 10_000 });
    let parts = split(groups(10), 2, &(0..10).map(cost).collect());
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 9], "{:?}", ids(&parts));
    // What is not known costs the mean: here 50 s.
    let costs = BTreeMap::from([cost(0), cost(1)]);
    let parts = split(groups(4), 2, &costs);
    let of_dearest = ids(&parts).into_iter().find(|part| part.contains(&cost(0).0)).unwrap();
    assert_eq!(of_dearest.len(), 2, "{of_dearest:?}");
}

#[test]
fn a_part_is_read_from_words() {
    assert_eq!("2/4".parse(), Ok(Part { index: 2, of: 4 }));
    for bad in ["", "2", "0/4", "5/4", "/4", "2/", "-1/4", "a/b", "1/0"] {
        assert!(bad.parse::<Part>().is_err(), "{bad}");
    }
}

/// Reports of so many parts, an environment and a case each.
fn reports(of: usize) -> Vec<Report> {
    let whole = crate::report::tests::of(case::Outcome::Passed);
    let id = |index: usize| format!("delivery/flow-is-delivered@{}", about(&format!("d{index}.test")).id());
    let (cases, hash) = fingerprint(&(1..=of).map(id).collect());
    let part = |index: usize| {
        let about = about(&format!("d{index}.test"));
        Report {
            run: format!("run{index}"),
            command: format!("cargo xtask e2e --shard {index}/{of} --dns strict"),
            took_ms: 1000 * index as u64,
            shard: Some(Shard { part: Part { index, of }, cases, whole: hash.clone() }),
            cases: vec![CaseReport { id: id(index), environment: about.id(), ..whole.cases[0].clone() }],
            environments: vec![EnvironmentReport { id: about.id(), about, ..whole.environments[0].clone() }],
            ..whole.clone()
        }
    };
    (1..=of).map(part).collect()
}

#[test]
fn parts_make_one_report_in_any_order() {
    let mut parts = reports(4);
    for part in &mut parts {
        let note = |what: &str| vec![format!("{what} of {}", part.run)];
        part.left_behind = note("left");
        part.kept = note("kept");
        part.problems = note("problem");
        part.not_covered = [note("axis"), vec!["BGP".to_owned()]].concat();
        part.gate = Some(crate::gate::Word {
            calico: String::new(),
            reasons: vec![],
            passed: 1,
            excused: 0,
            accepted: vec![],
        });
    }
    parts[2].interrupted = true;
    parts.reverse();
    let merged = merge(parts).unwrap();
    assert_eq!((merged.run.as_str(), merged.took_ms, merged.cases.len()), ("run1+run2+run3+run4", 4000, 4));
    assert_eq!(merged.command, "cargo xtask e2e --dns strict");
    assert!(merged.cases.is_sorted_by(|a, b| a.id < b.id) && merged.shard.is_none());
    assert!(merged.interrupted && merged.gate.is_none(), "what a gate said was of parts");
    let of_all = |what: &str| -> Vec<String> { (1..=4).map(|n| format!("{what} of run{n}")).collect() };
    assert_eq!(
        (merged.left_behind, merged.kept, merged.problems),
        (of_all("left"), of_all("kept"), of_all("problem"))
    );
    assert_eq!(merged.not_covered, [vec!["BGP".to_owned()], of_all("axis")].concat());
}

#[test]
fn what_is_not_all_of_one_run_is_refused() {
    type Edit = fn(&mut Vec<Report>);
    let rows: &[(&str, Edit)] = &[
        ("there are none", Vec::clear),
        ("part 2/3 is missing", |all| drop(all.remove(1))),
        ("part 2/3 is there 2 times", |all| all.push(all[1].clone())),
        ("that of run run2 is of a whole run", |all| all[1].shard = None),
        ("part 3/3 (run run3) is of another version of Catwalk than part 1/3", |all| {
            all[2].catwalk = "0.0.9".into()
        }),
        ("part 2/3 (run run2) is of another command", |all| all[1].command.push_str(" --kubernetes v1.33.0")),
        ("is of another whole", |all| all[1].shard.as_mut().unwrap().cases = 7),
        ("an environment is in two of them", |all| {
            let copy = all[1].environments[0].clone();
            all[2].environments.push(copy);
        }),
        ("the environment of delivery/flow-is-delivered@v3.30.1-d3.test-strict is in none of them", |all| {
            all[2].environments.clear();
        }),
        ("is of another schema", |all| all[2].schema = 1),
        ("is of another stage", |all| all[2].stage = "nodeless".into()),
        ("is of another stage", |all| all[2].modelled = !all[2].modelled),
        ("is of another whole", |all| all[2].shard.as_mut().unwrap().whole = "0f".into()),
        ("is of another whole", |all| all[2] = reports(2).remove(1)),
        ("a case is in two of them", |all| all[2].cases = all[1].cases.clone()),
        ("together they have 2 cases, and these are not the 3 of the whole", |all| all[2].cases.clear()),
        ("together they have 4 cases", |all| {
            let mut more = all[2].cases[0].clone();
            more.id = "delivery/made-up@x".into();
            all[2].cases.push(more);
        }),
    ];
    for (expected, edit) in rows {
        let mut all = reports(3);
        edit(&mut all);
        let refused = merge(all).err().map(|e| e.to_string());
        assert!(refused.as_ref().is_some_and(|words| words.contains(expected)), "{expected}: {refused:?}");
    }
}
