//! The project's own programs, built static and put into images with no base: the stand-ins, and what makes traffic.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::engine::{Engine, EngineInfo};
use crate::owner::{Ledger, Owned};
use crate::stage::NoEnvironment;

/// One of the project's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Plays Goldmane and Whisker.
    Standin,
    /// Sends and receives traffic between pods.
    Traffic,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Standin => "catwalk-standin",
            Self::Traffic => "catwalk-traffic",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Standin => "catwalk-fixtures",
            Self::Traffic => "catwalk-traffic",
        }
    }

    /// Its image in this run.
    pub(super) fn image(self, ledger: &Ledger) -> String {
        format!("catwalk/{}:{}", self.name(), ledger.run())
    }

    /// Builds it and makes its image, owned by the run.
    pub(super) async fn make_image(
        self,
        engine: &Engine,
        info: &EngineInfo,
        ledger: &Ledger,
        workspace: &Path,
    ) -> Result<String, NoEnvironment> {
        let program = self.build(info, workspace).await?;
        let image = self.image(ledger);
        ledger
            .enter(Owned::Image, &image)
            .map_err(|e| NoEnvironment::because(format!("writing the ledger: {e}")))?;
        engine.image_of_program(&image, self.name(), &program, ledger.run()).await?;
        Ok(image)
    }

    /// Builds it with everything that it needs inside: its image has no libc.
    async fn build(self, info: &EngineInfo, workspace: &Path) -> Result<PathBuf, NoEnvironment> {
        let doing = format!("building {}", self.name());
        let failed = |why: &dyn std::fmt::Display| {
            NoEnvironment::with_fix(
                format!("{doing}: {why}"),
                "It is linked statically: a C compiler and a static libc are needed (Debian: libc6-dev, Fedora: glibc-static)",
            )
        };
        let arch = if info.platform == "linux/arm64" { "aarch64" } else { "x86_64" };
        let target = format!("{arch}-unknown-linux-gnu");
        let folder = workspace.join("target/static");
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(workspace)
            .args(["build", "--locked", "--quiet", "--config", "profile.dev.strip=true"])
            .args(["--package", self.package(), "--bin", self.name(), "--target", &target])
            .arg("--target-dir")
            .arg(&folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| failed(&e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = said.lines().rev().take(8).collect();
            return Err(failed(&last.into_iter().rev().collect::<Vec<_>>().join(" | ")));
        }
        Ok(folder.join(target).join("debug").join(self.name()))
    }
}
