//! `cargo xtask e2e`

mod again;
mod args;
mod candidate;
mod ending;
mod plan;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use catwalk_fixtures::{KnownIssue, Release};
use catwalk_harness::case::KnownIssues;
use catwalk_harness::owner::{Ledger, RunId, ledgers_folder};
use catwalk_harness::probe;
use catwalk_harness::report::{Report, SCHEMA};
use catwalk_harness::run::{self, Keep, Options, Record};
use catwalk_harness::shard::{self, Shard};
use catwalk_harness::stage::config::{Cni, Configs};
use catwalk_harness::stage::kind::{Kind, KindOptions};
use catwalk_harness::stage::lab::Lab;
use catwalk_harness::stage::nodeless::{Nodeless, NodelessOptions};
use catwalk_harness::stage::{Stage, Substitutes, fetch_manifests};

use crate::gate;
use crate::select::{self, Selection};
use crate::show;
use crate::this;

pub(crate) use args::Args;
use args::{CniName, KeepName, ListOutput, StageName};
pub(crate) use candidate::apply_to;
pub(crate) use ending::{finish, forget};

pub(crate) async fn run(mut args: Args) -> Result<u8> {
    // It goes when this ends.
    let downloaded = tempfile::tempdir().context("making a folder for manifests")?;
    let address = args.manifests.as_ref().and_then(|path| path.to_str()).filter(|path| path.contains("://"));
    if let Some(address) = address {
        fetch_manifests(address, downloaded.path()).await.map_err(anyhow::Error::new)?;
        args.manifests = Some(downloaded.path().to_owned());
    }
    let workspace = this::workspace();
    let configs = Configs::read(&workspace.join("kind-configs")).map_err(anyhow::Error::new)?;
    let mut releases = Release::table()?;
    let mut issues = KnownIssue::table()?;
    let mut calico = args.calico.clone();
    if let (Some(name), Some(folder)) = (&args.name, &args.manifests) {
        candidate::add(name, folder, &mut releases)?;
        apply_to(name, &args.known_issue, &mut issues)?;
        calico = vec![name.clone()];
    }
    let issues = Arc::new(KnownIssues::new(issues)?);
    let (stage_name, modelled) = match args.stage {
        StageName::Lab => ("lab", true),
        StageName::Nodeless => ("nodeless", args.standin),
        StageName::Kind => ("kind", args.standin),
    };
    args::refuse_idle_flags(&args)?;
    let policy = args.gate.as_deref().map(gate::read).transpose()?;
    let selection = Selection {
        domains: args.domain.clone(),
        calico,
        dns: args.dns.clone(),
        host_search: args.search.clone(),
        scenarios: args.scenario.clone(),
        with: select::extras(&args.with, &configs)?,
    };
    let select = |selection: &Selection| select::groups(selection, stage_name, modelled, &configs, &releases);
    let groups = match (&policy, &args.rerun_failed) {
        (_, Some(earlier)) => again::groups(&again::read(earlier, &args)?, stage_name, modelled, &releases)?,
        (Some(policy), None) => gate::groups(policy, &selection, stage_name, &configs, &issues, select)?,
        (None, None) => select(&selection)?,
    };
    let groups = match args.repeat {
        Some(times) => run::repeated(&groups, times.get()),
        None => groups,
    };
    let cni = match (args.cni, args.standin) {
        (Some(CniName::Calico), true) => {
            bail!("stand-ins bring no network: --standin goes with --cni kind or none")
        }
        (Some(CniName::Calico), false) | (None, false) => Cni::Calico,
        (Some(CniName::Kind), _) | (None, true) => Cni::Kind,
        (Some(CniName::None), _) => Cni::None,
    };
    let costs = args.costs.as_deref().map(costs).transpose()?.unwrap_or_default();
    if args.list && args.output == ListOutput::Github {
        return plan::print_matrix(groups, args.shards, &costs);
    }
    let shard = args.shard.map(|part| Shard::new(part, &groups));
    let groups = match args.shard {
        Some(part) => shard::split(groups, part.of, &costs).swap_remove(part.index - 1),
        None => groups,
    };
    if groups.is_empty() {
        bail!("there are fewer environments than parts: this one has none");
    }
    if args.list {
        return plan::print_cases(&groups);
    }
    if args.dry_run {
        return plan::print_plan(&args, &groups, &configs, &releases, cni);
    }
    // Evidence of an earlier run must not lie beside this one's report.
    std::fs::create_dir_all(&args.report)
        .and_then(|()| forget(&args.report))
        .and_then(|()| ending::is_writable(&args.report))
        .with_context(|| {
            format!(
                "the report cannot be written into {}; name another folder with --report",
                args.report.display()
            )
        })?;

    let timeout = Duration::from_secs(args.timeout);
    let ledger = match args.stage {
        StageName::Lab => None,
        StageName::Kind | StageName::Nodeless => {
            Some(Ledger::open(&ledgers_folder()).context("opening the run's ledger")?)
        }
    };
    let substitutes =
        Substitutes { registry: args.registry.clone(), images: args.image.iter().cloned().collect() };
    let stage: Arc<dyn Stage> = match &ledger {
        None => Arc::new(Lab::new(releases)),
        Some(ledger) if args.stage == StageName::Nodeless => Arc::new(Nodeless::new(NodelessOptions {
            configs,
            releases,
            manifests: args.manifests.clone(),
            standin: args.standin,
            kubernetes: args.kubernetes.clone(),
            substitutes,
            ledger: ledger.clone(),
            workspace: workspace.clone(),
            timeout,
        })),
        Some(ledger) => Arc::new(Kind::new(KindOptions {
            configs,
            releases,
            manifests: args.manifests.clone(),
            standin: args.standin,
            cni,
            node_image: args.node_image.clone(),
            substitutes,
            ledger: ledger.clone(),
            workspace: workspace.clone(),
            timeout,
        })),
    };
    let run_id = ledger.as_ref().map_or_else(RunId::random, |l| l.run().clone());
    let options = Options {
        jobs: args.jobs.map_or_else(|| stage.carries(), usize::from),
        timeout,
        keep: match args.keep {
            KeepName::Never => Keep::Never,
            KeepName::Failed => Keep::Failed,
            KeepName::Always => Keep::Always,
        },
        fail_fast: args.fail_fast,
        evidence: (args.stage != StageName::Lab).then(|| args.report.join("evidence")),
        run: run_id.to_string(),
    };
    let record: Record = Arc::new(Mutex::new(Report {
        schema: SCHEMA,
        catwalk: this::version(),
        run: run_id.to_string(),
        command: this::command_line(),
        given: args::given(&args),
        started: probe::now(),
        took_ms: 0,
        stage: stage_name.to_owned(),
        modelled,
        not_covered: Vec::new(),
        environments: Vec::new(),
        cases: Vec::new(),
        left_behind: Vec::new(),
        kept: Vec::new(),
        problems: Vec::new(),
        interrupted: false,
        shard,
        gate: None,
    }));
    let cases = groups.iter().map(|group| group.scenarios.len()).sum();
    let (listener, done) = show::listener(cases);
    let stop = ending::on_interruption();
    run::run(stage, groups, issues.clone(), options, record.clone(), listener, stop).await;
    done();
    let mut report = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The folder may have been changed since: what runs is of the version that the report has.
    let (own, catwalk) = (std::slice::from_ref(&report), &report.catwalk);
    let statement = gate::conformance(own, &issues, catwalk)?;
    let word = policy.map(|policy| gate::hold(&policy, own, &issues, catwalk)).transpose()?;
    report.gate = word;
    let code = finish(&report, &args.report)?;
    // Of a run that shows nothing for real there is nothing to state.
    if let (Ok(statement), true) = (statement, args.report.join("report.json").exists()) {
        ending::state(&statement, &args.report);
    }
    Ok(code)
}

/// What environments cost in an earlier run, in milliseconds.
fn costs(report: &Path) -> Result<BTreeMap<String, u64>> {
    let report = crate::report::read(report)?;
    Ok(report.environments.into_iter().map(|environment| (environment.id, environment.took_ms)).collect())
}
