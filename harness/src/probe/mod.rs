//! Probes: they look at one layer each and report what they saw. They do not judge.

pub mod call;
pub mod dns;
pub mod http;
pub mod tls;

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::environment::{Environment, Reached, Stream, WhiskerSide};
use crate::judge;
use crate::sight::{CallSeen, Connection, Dial, DnsAnswer, TlsEnd, TlsSeen, Vantage};

/// Now, in the form of reports.
pub fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// Walks from the name in force to an answered call, with Whisker's trust and certificate, and stops at the first
/// layer that breaks, or that cannot be looked at.
pub async fn dial(env: &dyn Environment, side: &WhiskerSide) -> Dial {
    let step = env.pace().step;
    let host = judge::host(&side.goldmane_host);
    let port: u16 = side.goldmane_host.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).unwrap_or(443);
    let mut dial = Dial { target: side.goldmane_host.clone(), not_seen: None, ..no_dial(env, String::new()) };
    let names = side.search.candidates(host);
    let Some(address) = resolve(env, names, &mut dial).await else { return dial };
    let Some(stream) = reach(env, side, host, (address, port), &mut dial).await else { return dial };
    // Whisker would not go on with such a certificate.
    if judge::handshake_is_broken(dial.tls.as_ref()) {
        return dial;
    }
    dial.call = Some(match timeout(step, call::list_nothing(stream)).await {
        Ok(seen) => seen,
        Err(_) => CallSeen {
            code: "DeadlineExceeded".to_owned(),
            message: format!("no answer within {} ms", step.as_millis()),
            alert: None,
            broken: None,
        },
    });
    dial
}

/// Walks from a host name, taken as an absolute one, to its address.
pub async fn look_up(env: &dyn Environment, host: &str) -> Dial {
    let mut dial = Dial { target: host.to_owned(), not_seen: None, ..no_dial(env, String::new()) };
    resolve(env, vec![format!("{host}.")], &mut dial).await;
    dial
}

/// Walks from a host name, taken as an absolute one, to Goldmane's certificate.
pub async fn shake(env: &dyn Environment, side: &WhiskerSide, host: &str, port: u16) -> Dial {
    let mut dial = Dial { target: format!("{host}:{port}"), not_seen: None, ..no_dial(env, String::new()) };
    if let Some(address) = resolve(env, vec![format!("{host}.")], &mut dial).await {
        reach(env, side, host, (address, port), &mut dial).await;
    }
    dial
}

/// Connects to Goldmane and shakes hands, as Whisker would; the connection, where that is complete.
async fn reach(
    env: &dyn Environment,
    side: &WhiskerSide,
    host: &str,
    address: (IpAddr, u16),
    dial: &mut Dial,
) -> Option<TlsStream<Box<dyn Stream>>> {
    let step = env.pace().step;
    let stream = match timeout(step, env.connect_goldmane(Some(address))).await {
        Ok(Ok(Reached::Open(stream))) => stream,
        Ok(Ok(Reached::Refused)) => {
            dial.connection = Some(Connection::Refused);
            return None;
        }
        // A port-forward that does not come up says nothing of the way that Whisker goes.
        Err(_) if dial.vantage == Vantage::PortForward => {
            dial.not_seen = Some(format!("no port-forward to Goldmane within {} ms", step.as_millis()));
            return None;
        }
        Ok(Ok(Reached::TimedOut)) | Err(_) => {
            dial.connection = Some(Connection::TimedOut);
            return None;
        }
        Ok(Err(e)) => {
            dial.not_seen = Some(e.to_string());
            return None;
        }
    };
    dial.connection = Some(Connection::Open(Some(address.into())));
    let shake = tls::handshake(stream, host, &side.identity);
    let (end, chain, stream) = match timeout(step, shake).await {
        Ok(shaken) => (shaken.end, shaken.chain, shaken.stream),
        Err(_) => (TlsEnd::Failed(format!("no answer within {} ms", step.as_millis())), Vec::new(), None),
    };
    let roots = tls::split_pem(&side.trust);
    dial.tls = Some(TlsSeen { chain, roots, name: host.to_owned(), now: now(), end });
    stream
}

/// A dial that could not be begun.
pub fn no_dial(env: &dyn Environment, why: String) -> Dial {
    Dial {
        vantage: env.vantage(),
        target: String::new(),
        names: Vec::new(),
        connection: None,
        tls: None,
        call: None,
        not_seen: Some(why),
    }
}

/// Asks for each absolute name in turn; the first address ends it, as does a server that is not there.
async fn resolve(env: &dyn Environment, names: Vec<String>, dial: &mut Dial) -> Option<IpAddr> {
    let step = env.pace().step;
    let late = || DnsAnswer::Unreachable(format!("no answer within {} ms", step.as_millis()));
    let mut stream = match timeout(step, env.connect_dns()).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(why)) => Err(DnsAnswer::Unreachable(why)),
        Err(_) => Err(late()),
    };
    for name in names {
        let answer = match &mut stream {
            Ok(stream) => timeout(step, dns::ask(stream, &name)).await.unwrap_or_else(|_| late()),
            Err(unreachable) => unreachable.clone(),
        };
        let found = match &answer {
            DnsAnswer::Addresses(addresses) => addresses.first().copied(),
            _ => None,
        };
        let over = found.is_some() || matches!(answer, DnsAnswer::Unreachable(_));
        dial.names.push((name, answer));
        if over {
            return found;
        }
    }
    None
}
