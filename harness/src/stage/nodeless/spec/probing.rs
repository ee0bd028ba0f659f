//! Probes of a container, in the rhythm that a kubelet gives them.

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Planner;

/// A probe and its rhythm, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stage::nodeless) struct Probing {
    pub check: Check,
    pub period: u64,
    pub timeout: u64,
    pub failures: u32,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stage::nodeless) enum Check {
    Exec(Vec<String>),
    Tcp(u16),
    Http { port: u16, path: String, tls: bool },
}

impl Planner<'_> {
    pub(super) fn probing(&mut self, container: &Container, probe: Option<&Probe>) -> Option<Probing> {
        let probe = probe?;
        let port = |port: &IntOrString| match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name))
                .and_then(|port| u16::try_from(port.container_port).ok()),
        };
        let check = if let Some(exec) = &probe.exec {
            Some(Check::Exec(exec.command.clone().unwrap_or_default()))
        } else if let Some(tcp) = &probe.tcp_socket {
            port(&tcp.port).map(Check::Tcp)
        } else if let Some(http) = &probe.http_get {
            port(&http.port).map(|port| Check::Http {
                port,
                path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
                tls: http.scheme.as_deref() == Some("HTTPS"),
            })
        } else {
            None
        };
        let Some(check) = check else {
            self.note(format!(
                "container {}: a probe that is neither exec nor tcpSocket nor httpGet",
                container.name
            ));
            return None;
        };
        let number = |value: Option<i32>, default: u64| {
            value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default).max(1)
        };
        Some(Probing {
            check,
            period: number(probe.period_seconds, 10),
            timeout: number(probe.timeout_seconds, 1),
            failures: u32::try_from(number(probe.failure_threshold, 3)).unwrap_or(3),
        })
    }
}
