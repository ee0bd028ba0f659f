//! The flags of `e2e`, and which of them mean nothing together.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, bail};
use catwalk_fixtures::DnsProfile;
use catwalk_harness::shard::Part;
use catwalk_harness::stage::nodeless::KUBERNETES;
use clap::ValueEnum;

/// Options of `e2e`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to stand Calico up: `kind` on real clusters, `nodeless` on control planes without nodes, `lab` with
    /// stand-ins in this process
    #[arg(long, value_enum, default_value_t = StageName::Kind)]
    pub(super) stage: StageName,
    /// Cluster domain, may be repeated [default: those of kind-configs for the stage]
    #[arg(long, value_name = "DOMAIN")]
    pub(super) domain: Vec<String>,
    /// Calico version, or `newest` or `all`, may be repeated [default: newest; all in the lab]
    #[arg(long, value_name = "VERSION")]
    pub(super) calico: Vec<String>,
    /// What the cluster's DNS serves: strict, dual or upstream-down, may be repeated
    #[arg(long, value_name = "PROFILE")]
    pub(super) dns: Vec<DnsProfile>,
    /// Scenario, or the crate of several, may be repeated [default: all]
    #[arg(long, value_name = "ID")]
    pub(super) scenario: Vec<String>,
    /// What to set up beside Calico as released, by the files of kind-configs/with, may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) with: Vec<String>,
    /// Folder with Calico's manifests, or with one folder per version, or an address beneath which they are [default:
    /// downloaded and cached]
    #[arg(long, value_name = "DIR|URL")]
    pub(super) manifests: Option<PathBuf>,
    /// Name of a candidate: the folder's manifests are of no release that the table knows, and no known issue applies
    #[arg(long, value_name = "NAME", requires = "manifests", conflicts_with_all = ["calico", "standin"], value_parser = name)]
    pub(super) name: Option<String>,
    /// Known issue that applies to the candidate all the same, by its id, may be repeated
    #[arg(long, value_name = "ID", requires = "name")]
    pub(super) known_issue: Vec<String>,
    /// Runs the project's stand-ins in place of Calico's programs (kind, nodeless)
    #[arg(long)]
    pub(super) standin: bool,
    /// What connects the pods (kind): `calico`, `kind` for kind's own, `none` for one that the node image brings
    /// [default: calico; kind with --standin]
    #[arg(long, value_enum)]
    pub(super) cni: Option<CniName>,
    /// Node image (kind) [default: kind's own]
    #[arg(long, value_name = "REF")]
    pub(super) node_image: Option<String>,
    /// Version of Kubernetes, of which the API server runs (nodeless)
    #[arg(long, value_name = "VERSION", default_value = KUBERNETES)]
    pub(super) kubernetes: String,
    /// Image in place of another, by the last part of its name: `goldmane=registry.example/mine:dev`, may be repeated
    /// (kind, nodeless)
    #[arg(long, value_name = "NAME=REF", value_parser = image)]
    pub(super) image: Vec<(String, String)>,
    /// Registry, with a path if need be, in place of that of every image (kind, nodeless)
    #[arg(long, value_name = "REGISTRY")]
    pub(super) registry: Option<String>,
    /// Search domain of the host that resolv.conf has in front of the cluster's, may be repeated (nodeless)
    #[arg(long, value_name = "DOMAIN")]
    pub(super) search: Vec<String>,
    /// Holds the report against a policy: exit 0 means that everything it requires passed for real. What to run is taken
    /// from the policy where no flag says it
    #[arg(long, value_name = "POLICY.toml")]
    pub(super) gate: Option<PathBuf>,
    /// Runs the cases of a report again that failed, passed unexpectedly or errored, and no other
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["domain", "calico", "dns", "scenario", "with", "search", "gate", "shard"])]
    pub(super) rerun_failed: Option<PathBuf>,
    /// Runs every environment so many times; a case that does not end alike in all of them is flaky, and that is exit 1
    #[arg(long, value_name = "N")]
    pub(super) repeat: Option<NonZeroUsize>,
    /// Begins no further environment once a case failed, passed unexpectedly or errored
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// Runs one part of the environments; `report merge` makes one report of all parts
    #[arg(long, value_name = "I/N", conflicts_with = "gate")]
    pub(super) shard: Option<Part>,
    /// Report of an earlier run, by whose times the parts are balanced
    #[arg(long, value_name = "REPORT")]
    pub(super) costs: Option<PathBuf>,
    /// Environments at once [default: by this machine's cores and memory]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
    /// Seconds that standing one environment up may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(super) timeout: u64,
    /// When to leave an environment standing
    #[arg(long, value_enum, default_value_t = KeepName::Never)]
    pub(super) keep: KeepName,
    /// Folder for report.json, junit.xml, summary.md, report.html and evidence
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub(super) report: PathBuf,
    /// Prints the cases and ends
    #[arg(long)]
    pub(super) list: bool,
    /// How to print them: a line each, or a matrix of so many parts for GitHub Actions' `strategy.matrix`
    #[arg(long, value_enum, default_value_t = ListOutput::Text, requires = "list")]
    pub(super) output: ListOutput,
    /// Parts in the matrix, at most one for each environment
    #[arg(long, value_name = "N", default_value = "4", requires = "output")]
    pub(super) shards: NonZeroUsize,
    /// Prints what would be created and ends
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StageName {
    Kind,
    Nodeless,
    Lab,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListOutput {
    Text,
    Github,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CniName {
    Calico,
    Kind,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeepName {
    Never,
    Failed,
    Always,
}

/// A name that can be part of a case's id and of a folder's name.
fn name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a name has letters, digits, '.', '_' and '-', for example v3.33.0-rc1".to_owned())
    }
}

/// `NAME=REF`
fn image(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, reference)) if !name.is_empty() && !reference.is_empty() && !name.contains('/') => {
            Ok((name.to_owned(), reference.to_owned()))
        }
        _ => Err("it takes NAME=REF, for example goldmane=registry.example/mine/goldmane:dev".to_owned()),
    }
}

/// The flags by which what stands there is another than by itself, as they are given.
pub(super) fn given(args: &Args) -> Vec<String> {
    let mut given = Vec::new();
    if let Some(cni) = args.cni.filter(|cni| *cni != CniName::Calico) {
        given.push(format!("--cni {}", if cni == CniName::Kind { "kind" } else { "none" }));
    }
    given.extend(args.node_image.iter().map(|image| format!("--node-image {image}")));
    if args.kubernetes != KUBERNETES {
        given.push(format!("--kubernetes {}", args.kubernetes));
    }
    let images: BTreeMap<&String, &String> = args.image.iter().map(|(of, image)| (of, image)).collect();
    given.extend(images.into_iter().map(|(of, image)| format!("--image {of}={image}")));
    given.extend(args.registry.iter().map(|registry| format!("--registry {registry}")));
    given
}

/// A flag that the stage would not look at is a mistake, and better said than ignored.
pub(super) fn refuse_idle_flags(args: &Args) -> Result<()> {
    let substitutes = !args.image.is_empty() || args.registry.is_some();
    if args.gate.is_some() && substitutes && args.name.is_none() {
        bail!(
            "with --image or --registry it is a candidate that the gate says yes or no to: give it a --name"
        );
    }
    if args.standin && !args.with.is_empty() {
        bail!("--with does nothing with --standin: no operator runs that would render more");
    }
    if args.standin && args.stage == StageName::Kind && substitutes {
        bail!("--image and --registry do nothing with --standin on kind: none of Calico's images is used");
    }
    if args.costs.is_some() && args.shard.is_none() && args.output == ListOutput::Text {
        bail!("--costs balances parts: it goes with --shard or --output github");
    }
    let (kind, nodeless) = (args.stage == StageName::Kind, args.stage == StageName::Nodeless);
    let flags = [
        ("--manifests", args.manifests.is_some(), kind || nodeless),
        ("--name", args.name.is_some(), kind || nodeless),
        ("--standin", args.standin, kind || nodeless),
        ("--with", !args.with.is_empty(), kind || nodeless),
        ("--cni", args.cni.is_some(), kind),
        ("--node-image", args.node_image.is_some(), kind),
        ("--kubernetes", args.kubernetes != KUBERNETES, nodeless),
        ("--image", !args.image.is_empty(), kind || nodeless),
        ("--registry", args.registry.is_some(), kind || nodeless),
        ("--search", !args.search.is_empty(), nodeless),
    ];
    let idle = flags.into_iter().find(|(_, given, looked_at)| *given && !looked_at);
    match (idle, args.stage) {
        (None, _) => Ok(()),
        (Some((flag, ..)), StageName::Lab) => {
            bail!("{flag} does nothing in the lab, where everything is a stand-in")
        }
        (Some((flag, ..)), StageName::Kind) => {
            bail!("{flag} does nothing on kind; it is for --stage nodeless")
        }
        (Some((flag, ..)), StageName::Nodeless) => {
            bail!("{flag} does nothing on nodeless; it is for --stage kind")
        }
    }
}
