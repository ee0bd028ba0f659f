//! The command line: `cargo xtask e2e`, `cargo xtask clean`.

mod clean;
mod e2e;
mod gate;
mod report;
mod select;
mod show;
mod this;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Holds Calico's Whisker against Calico's Goldmane under every cluster domain.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stands Calico up under each cluster domain and says whether Whisker reaches Goldmane.
    E2e(Box<e2e::Args>),
    /// Reads reports again: holds them against a gate's policy.
    #[command(subcommand)]
    Report(report::Command),
    /// Removes what a killed run left: its clusters, images and processes, and nothing else.
    Clean(clean::Args),
    /// Prints a script with which a shell completes these commands, to be sourced; they are then called by `xtask`, an
    /// alias of `cargo xtask`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// The exit code for a user's mistake.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // As reports have it.
    let matches = Cli::command().version(this::version()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: starting the runtime: {e}");
            return ExitCode::from(catwalk_harness::report::EXIT_NO_ENVIRONMENT);
        }
    };
    let ended = match cli.command {
        Command::E2e(args) => runtime.block_on(e2e::run(*args)),
        Command::Report(command) => report::run(command),
        Command::Clean(args) => runtime.block_on(clean::run(args)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "xtask", &mut script);
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().write_all(&script);
            Ok(0)
        }
    };
    // What still waits, as a program that is asked for a login, is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(USAGE)
        }
    }
}
