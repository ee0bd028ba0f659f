//! `cargo xtask clean`

use std::sync::Arc;

use catwalk_harness::owner::ledgers_folder;
use catwalk_harness::progress::Teller;
use catwalk_harness::report::EXIT_LEFT_BEHIND;
use catwalk_harness::stage::reap;

/// Options of `clean`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also deletes what runs left standing on purpose (`e2e --keep`)
    #[arg(long)]
    kept: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<u8> {
    let teller = Teller::new("clean", Arc::new(|_| {}));
    let reaped = reap::clean(&ledgers_folder(), args.kept, &teller).await?;
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
