use super::*;

#[test]
fn what_is_entered_is_found_by_another_process_until_it_is_struck_out() {
    let ledgers = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(ledgers.path()).unwrap();
    ledger.enter(Owned::Image, "catwalk/standin:1%2").unwrap();
    ledger.enter(Owned::Cluster, "catwalk-1").unwrap();
    let found = Ledger::all(ledgers.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].owner(), Owner::Lives);
    assert_eq!(found[0].entries(Owned::Image).unwrap(), ["catwalk/standin:1%2"]);
    assert!(!found[0].is_settled().unwrap());
    found[0].strike(Owned::Image, "catwalk/standin:1%2").unwrap();
    found[0].strike(Owned::Cluster, "catwalk-1").unwrap();
    found[0].strike(Owned::Cluster, "catwalk-1").unwrap();
    assert!(ledger.is_settled().unwrap());
    ledger.close().unwrap();
    assert!(Ledger::all(ledgers.path()).unwrap().is_empty());
}

#[test]
fn a_file_of_the_run_is_not_taken_for_what_it_owns() {
    let ledgers = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(ledgers.path()).unwrap();
    for kind in Owned::ALL {
        // A folder of the run's own files may be called what any kind is called.
        fs::create_dir_all(ledger.folder().join(kind.folder())).unwrap();
        fs::write(ledger.folder().join(kind.folder()).join(".tmp-standin.tar1"), "").unwrap();
    }
    assert!(ledger.is_settled().unwrap());
}

#[test]
fn what_is_kept_is_no_entry_and_not_settled() {
    let ledgers = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(ledgers.path()).unwrap();
    ledger.enter(Owned::Cluster, "catwalk-1").unwrap();
    ledger.keep(Owned::Cluster, "catwalk-1").unwrap();
    assert!(ledger.entries(Owned::Cluster).unwrap().is_empty());
    assert_eq!(ledger.kept(Owned::Cluster).unwrap(), ["catwalk-1"]);
    assert!(!ledger.is_settled().unwrap());
    ledger.strike(Owned::Cluster, "catwalk-1").unwrap();
    assert!(ledger.is_settled().unwrap());
}

#[test]
fn a_process_of_the_same_number_is_not_the_owner() {
    let me = ProcessName::of(std::process::id()).unwrap();
    assert!(me.lives());
    if !me.started.is_empty() {
        assert!(!ProcessName { started: "another boot-1".into(), ..me }.lives());
    }
}

#[test]
fn a_run_of_another_machine_or_container_is_not_taken_for_dead() {
    let here = Opener::here().unwrap();
    let gone = |pid| ProcessName { pid, ..here.process.clone() };
    let other_boot = ProcessName { pid: 1, started: "another-boot-7".to_owned() };
    let rows = [
        (here.clone(), Owner::Lives),
        (Opener { process: gone(u32::MAX), ..here.clone() }, Owner::Gone),
        (Opener { namespace: "pid:[7]".to_owned(), ..here.clone() }, Owner::Elsewhere),
        (Opener { machine: "another".to_owned(), ..here.clone() }, Owner::Elsewhere),
        // After a boot the namespaces are others, and nothing of before lives.
        (
            Opener { process: other_boot.clone(), namespace: "pid:[7]".to_owned(), ..here.clone() },
            Owner::Gone,
        ),
        // An earlier Catwalk's ledger.
        (Opener { process: gone(u32::MAX), machine: String::new(), namespace: String::new() }, Owner::Gone),
    ];
    let here = Opener { machine: "here".to_owned(), ..here };
    for (opener, expected) in rows {
        let machine = if opener.machine == "another" { opener.machine } else { String::new() };
        let opener = Opener { machine, ..opener };
        assert_eq!(opener.seen_from(&here), expected, "{opener:?}");
    }
    let text = serde_json::to_string(&here.process).unwrap();
    assert!(serde_json::from_str::<Opener>(&text).is_ok());
}

#[test]
fn folders_that_are_no_ledgers_are_left_alone() {
    let ledgers = tempfile::tempdir().unwrap();
    for name in ["mine", "0123456", "0123456G"] {
        fs::create_dir(ledgers.path().join(name)).unwrap();
    }
    assert!(Ledger::all(ledgers.path()).unwrap().is_empty());
}
