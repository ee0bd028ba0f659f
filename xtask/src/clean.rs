//! `cargo xtask clean`

use std::sync::Arc;

use catwalk_harness::owner::{RunId, ledgers_folder};
use catwalk_harness::progress::Teller;
use catwalk_harness::report::EXIT_LEFT_BEHIND;
use catwalk_harness::stage::reap;

/// Options of `clean`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also deletes what runs left standing on purpose (`e2e --keep`)
    #[arg(long)]
    kept: bool,
    /// Only what that run left: also where its ledger is lost, then everything on the engine that carries its id
    #[arg(long, value_name = "ID", value_parser = run_id)]
    run: Option<RunId>,
}

fn run_id(text: &str) -> Result<RunId, String> {
    RunId::parse(text)
        .ok_or_else(|| "a run's id is eight hexadecimal digits, as in `catwalk-0f1e2d3c`".to_owned())
}

pub(crate) async fn run(args: Args) -> anyhow::Result<u8> {
    let teller = Teller::new("clean", Arc::new(|_| {}));
    let ledgers = ledgers_folder();
    let reaped = match &args.run {
        Some(run) => reap::clean_run(&ledgers, run, args.kept, &teller).await?,
        None => reap::clean(&ledgers, args.kept, &teller).await?,
    };
    for line in &reaped.removed {
        println!("removed {line}");
    }
    for line in &reaped.spared {
        println!("left alone: {line}");
    }
    for line in &reaped.left {
        println!("{line}");
    }
    if reaped.removed.is_empty() && reaped.left.is_empty() {
        println!("nothing to clean");
    }
    Ok(if reaped.left.is_empty() { 0 } else { EXIT_LEFT_BEHIND })
}
