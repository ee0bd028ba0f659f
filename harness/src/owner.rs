//! Ownership: what a run creates outside of its process is written into its ledger before it is created, and can be
//! reaped by it afterwards, also by another process.
//!
//! A ledger is a folder, one per run, below the user's state folder (XDG Base Directory, `XDG_STATE_HOME`). It holds
//! who runs, empty files, one for each thing owned, and the run's own files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::{Deserialize, Serialize};

/// A run's id: eight hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:08x}", rand::rng().random::<u32>()))
    }

    /// The id in a folder's name; none if it is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of thing that a run owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owned {
    /// A kind cluster, by name.
    Cluster,
    /// An image in the engine, by reference.
    Image,
    /// A child process, by process id and start.
    Process,
    /// A control plane without nodes: every container and volume that is labelled with its name.
    Plane,
    /// A network in the engine, by name.
    Network,
}

impl Owned {
    /// Every kind, in the order in which they can be removed.
    pub const ALL: [Self; 5] = [Self::Process, Self::Cluster, Self::Plane, Self::Network, Self::Image];

    fn folder(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Image => "images",
            Self::Process => "processes",
            Self::Plane => "planes",
            Self::Network => "networks",
        }
    }
}

/// A process, so named that a later one with the same number is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    /// Process id.
    pub pid: u32,
    /// Its start in clock ticks since boot, with the boot's id; empty where the system does not say.
    pub started: String,
}

impl ProcessName {
    /// That process, if it lives.
    pub fn of(pid: u32) -> Option<Self> {
        if !Path::new("/proc/self/stat").exists() {
            let known = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
            rustix::process::test_kill_process(known).ok()?;
            return Some(Self { pid, started: String::new() });
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Field 22, counted after the command's name, which may hold spaces and parentheses (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            return None;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Some(Self { pid, started: format!("{}-{}", boot.trim(), fields.get(19)?) })
    }

    /// Whether it still lives.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }
}

/// Who opened a ledger, and where: process ids are of one machine, and there of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Opener {
    #[serde(flatten)]
    process: ProcessName,
    /// The machine's id (machine-id(5)); empty where there is none.
    #[serde(default)]
    machine: String,
    /// The process ids' namespace (pid_namespaces(7)); empty where there is none.
    #[serde(default)]
    namespace: String,
}

impl Opener {
    fn here() -> Option<Self> {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let process = ProcessName::of(std::process::id())?;
        Some(Self { process, machine, namespace: namespace.to_string_lossy().into_owned() })
    }

    /// What it is, as seen from one that runs.
    fn seen_from(&self, here: &Self) -> Owner {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        let boot = |of: &Self| of.process.started.rsplit_once('-').map(|(boot, _)| boot.to_owned());
        // After another boot every process of before is gone, whatever its namespace was called.
        let same_boot = boot(self) == boot(here);
        if differ(&self.machine, &here.machine) || (same_boot && differ(&self.namespace, &here.namespace)) {
            Owner::Elsewhere
        } else if self.process.lives() {
            Owner::Lives
        } else {
            Owner::Gone
        }
    }
}

/// Whether the process of a run is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It goes on.
    Lives,
    /// It has ended.
    Gone,
    /// It was on another machine, or in another container, and is not seen from here.
    Elsewhere,
}

/// A run's ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    run: RunId,
    folder: PathBuf,
}

/// What is removed at the end of the run, in a folder of its own: other files of the ledger's folder own nothing.
const OWNED: &str = "owned";
/// What stays.
const KEPT: &str = "kept";

/// The folder of all ledgers: `$XDG_STATE_HOME/catwalk/runs`, else `~/.local/state/catwalk/runs`.
pub fn ledgers_folder() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()));
    state.unwrap_or_else(|| home().join(".local/state")).join("catwalk/runs")
}

impl Ledger {
    /// Opens the ledger of a new run.
    pub fn open(ledgers: &Path) -> io::Result<Self> {
        Self::open_for(ledgers, RunId::random())
    }

    /// Opens a new ledger of a run, owned by this process; its folder is for this user alone.
    pub fn open_for(ledgers: &Path, run: RunId) -> io::Result<Self> {
        let folder = ledgers.join(run.as_str());
        fs::create_dir_all(ledgers)?;
        // Under a name that is no run's until its owner is written down: a ledger without one would look abandoned.
        let making = ledgers.join(format!("making-{run}"));
        fs::create_dir(&making)?;
        #[cfg(unix)]
        fs::set_permissions(&making, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let owner = Opener::here().ok_or_else(|| io::Error::other("no such process"))?;
        fs::write(making.join("owner.json"), serde_json::to_vec(&owner)?)?;
        fs::rename(&making, &folder)?;
        Ok(Self { run, folder })
    }

    /// The ledgers that are there.
    pub fn all(ledgers: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(ledgers) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut all: Vec<Self> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let run = RunId::parse(entry.file_name().to_str()?)?;
                Some(Self { run, folder: entry.path() })
            })
            .collect();
        all.sort_by(|a, b| a.run.cmp(&b.run));
        Ok(all)
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// A folder for files that live as long as the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder below it for large files that are of no use to anybody after the run.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Whether the process that opened it is still there.
    pub fn owner(&self) -> Owner {
        let opener = fs::read(self.folder.join("owner.json")).ok();
        let opener = opener.and_then(|text| serde_json::from_slice::<Opener>(&text).ok());
        match (opener, Opener::here()) {
            (Some(opener), Some(here)) => opener.seen_from(&here),
            _ => Owner::Gone,
        }
    }

    /// Writes down a thing before it is created.
    pub fn enter(&self, kind: Owned, name: &str) -> io::Result<()> {
        let folder = self.of(OWNED, kind);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(escape(name)), "")
    }

    /// Notes that a thing stays on purpose when the run ends.
    pub fn keep(&self, kind: Owned, name: &str) -> io::Result<()> {
        self.move_entry(kind, name, OWNED, KEPT)
    }

    /// Notes that a thing that was kept is to go after all.
    pub fn keep_no_longer(&self, kind: Owned, name: &str) -> io::Result<()> {
        self.move_entry(kind, name, KEPT, OWNED)
    }

    fn move_entry(&self, kind: Owned, name: &str, from: &str, to: &str) -> io::Result<()> {
        let folder = self.of(to, kind);
        fs::create_dir_all(&folder)?;
        fs::rename(self.of(from, kind).join(escape(name)), folder.join(escape(name)))
    }

    /// Strikes a thing out once it is gone.
    pub fn strike(&self, kind: Owned, name: &str) -> io::Result<()> {
        for state in [OWNED, KEPT] {
            match fs::remove_file(self.of(state, kind).join(escape(name))) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is written down, neither struck out nor kept.
    pub fn entries(&self, kind: Owned) -> io::Result<Vec<String>> {
        Self::names(&self.of(OWNED, kind))
    }

    /// What stays on purpose.
    pub fn kept(&self, kind: Owned) -> io::Result<Vec<String>> {
        Self::names(&self.of(KEPT, kind))
    }

    fn of(&self, state: &str, kind: Owned) -> PathBuf {
        self.folder.join(state).join(kind.folder())
    }

    fn names(folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().to_str().map(unescape));
        }
        names.sort();
        Ok(names)
    }

    /// Whether nothing is owned any more, nor kept.
    pub fn is_settled(&self) -> io::Result<bool> {
        for kind in Owned::ALL {
            if !self.entries(kind)?.is_empty() || !self.kept(kind)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the ledger with its files.
    pub fn close(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// A name as a file's name: `/` and `%` are written as `%2F` and `%25`.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn unescape(file: &str) -> String {
    file.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
#[path = "owner_tests.rs"]
mod tests;
