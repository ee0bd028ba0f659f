//! Looks whether this machine can carry the clusters, before the first is created.

use std::path::Path;

use crate::owner::Ledger;
use crate::stage::NoEnvironment;
use crate::stage::command::kind;
use crate::stage::engine::EngineInfo;

const GIB: u64 = 1 << 30;
/// Memory that one cluster with Calico takes.
pub(super) const MEMORY_PER_CLUSTER: u64 = 5 * GIB / 2;
/// Disk that one cluster with Calico's images takes.
const DISK_PER_CLUSTER: u64 = 5 * GIB;
/// inotify instances that one cluster's programs take; they count for one user across all clusters.
const INOTIFY_PER_CLUSTER: u64 = 30;
const OLDEST_ENGINE: u64 = 20;
const OLDEST_KIND: (u64, u64) = (0, 24);

/// What a machine has; read once, so that judging it needs no machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// `20.10.24`
    pub engine: String,
    /// `kind v0.33.0 go1.26 linux/amd64`
    pub kind: String,
    /// Of what follows, what could be read of this machine; nothing where the engine is elsewhere.
    pub cgroup: Option<bool>,
    /// `fs.inotify.max_user_instances`
    pub inotify_instances: Option<u64>,
    /// Free bytes where the engine keeps images.
    pub disk: Option<u64>,
    /// Available bytes of memory.
    pub memory: Option<u64>,
}

impl Machine {
    /// Reads it.
    pub(super) async fn read(ledger: &Ledger, engine: &EngineInfo) -> Result<Self, NoEnvironment> {
        let here = |value: Option<u64>| if engine.local { value } else { None };
        Ok(Self {
            engine: engine.version.clone(),
            kind: kind(ledger, &["version"], None, &|_| {}).await?.trim().to_owned(),
            cgroup: engine.local.then(|| {
                let root = Path::new("/sys/fs/cgroup");
                root.join("cgroup.controllers").exists() || root.join("memory").exists()
            }),
            inotify_instances: here(number_in("/proc/sys/fs/inotify/max_user_instances")),
            disk: here(rustix::fs::statvfs(engine.root.as_str()).ok().map(|fs| fs.f_bavail * fs.f_frsize)),
            memory: here(available_memory()),
        })
    }

    /// What is in the way of so many clusters at once; each with what to do.
    pub(super) fn complaints(&self, clusters: usize) -> Vec<NoEnvironment> {
        let clusters = clusters as u64;
        let fewer = "or take fewer clusters at once with --jobs";
        let mut complaints = Vec::new();
        let mut complain = |what: String, fix: String| complaints.push(NoEnvironment::with_fix(what, fix));
        if numbers(&self.engine).first().is_some_and(|major| *major < OLDEST_ENGINE) {
            complain(
                format!("the engine's version is {}, and kind needs {OLDEST_ENGINE} or newer", self.engine),
                "Update Docker".to_owned(),
            );
        }
        let version = numbers(self.kind.split_whitespace().nth(1).unwrap_or_default());
        if let [major, minor, ..] = version[..]
            && (major, minor) < OLDEST_KIND
        {
            complain(
                format!("{} is too old", self.kind),
                format!("Install kind v{}.{} or newer", OLDEST_KIND.0, OLDEST_KIND.1),
            );
        }
        if self.cgroup == Some(false) {
            complain(
                "this machine mounts no control groups at /sys/fs/cgroup".to_owned(),
                "A Kubernetes node cannot run without: mount cgroup v2 there".to_owned(),
            );
        }
        if let Some(have) = self.inotify_instances
            && have < INOTIFY_PER_CLUSTER * clusters
        {
            let want = (INOTIFY_PER_CLUSTER * clusters).max(512);
            complain(
                format!("fs.inotify.max_user_instances is {have}, too few for {clusters} clusters at once"),
                format!("`sysctl fs.inotify.max_user_instances={want}`, {fewer}"),
            );
        }
        let gib = |bytes: u64| bytes as f64 / GIB as f64;
        if let Some(have) = self.disk
            && have < DISK_PER_CLUSTER * clusters
        {
            complain(
                format!("{:.1} GiB of disk are free where the engine keeps images", gib(have)),
                format!(
                    "{} clusters at once need {:.0} GiB: make room, {fewer}",
                    clusters,
                    gib(DISK_PER_CLUSTER * clusters)
                ),
            );
        }
        if let Some(have) = self.memory
            && have < MEMORY_PER_CLUSTER * clusters
        {
            complain(
                format!("{:.1} GiB of memory are available", gib(have)),
                format!(
                    "{} clusters at once need {:.1} GiB: free some, {fewer}",
                    clusters,
                    gib(MEMORY_PER_CLUSTER * clusters)
                ),
            );
        }
        complaints
    }
}

fn number_in(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes available for new programs; none where the system does not say.
pub(super) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn numbers(version: &str) -> Vec<u64> {
    catwalk_fixtures::release::version_key(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            engine: "28.2.2".into(),
            kind: "kind v0.33.0 go1.26.8 linux/amd64".into(),
            cgroup: Some(true),
            inotify_instances: Some(512),
            disk: Some(100 * GIB),
            memory: Some(24 * GIB),
        }
    }

    #[test]
    fn each_lack_is_one_complaint_with_what_to_do() {
        assert_eq!(good().complaints(4).len(), 0);
        let rows: [(Machine, &str); 6] = [
            (Machine { engine: "19.3".into(), ..good() }, "Update Docker"),
            (Machine { kind: "kind v0.20.0 go1.20".into(), ..good() }, "Install kind v0.24"),
            (Machine { cgroup: Some(false), ..good() }, "mount cgroup v2"),
            (Machine { inotify_instances: Some(64), ..good() }, "sysctl fs.inotify.max_user_instances=512"),
            (Machine { disk: Some(GIB), ..good() }, "need 20 GiB"),
            (Machine { memory: Some(GIB), ..good() }, "need 10.0 GiB"),
        ];
        for (machine, fix) in rows {
            let complaints = machine.complaints(4);
            assert_eq!(complaints.len(), 1, "{machine:?}");
            assert!(complaints[0].to_string().contains(fix), "{}", complaints[0]);
        }
        let elsewhere = Machine { cgroup: None, inotify_instances: None, disk: None, memory: None, ..good() };
        assert_eq!(elsewhere.complaints(100).len(), 0);
    }
}
