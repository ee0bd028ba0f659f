//! Probes: they look at one layer each and report what they saw. They do not judge.

pub mod call;
pub mod dns;
pub mod http;
pub mod tls;

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use crate::environment::{Environment, Reached, WhiskerSide};
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
    let Some(address) = resolve(env, side, host, &mut dial).await else { return dial };
    let stream = match timeout(step, env.connect_goldmane(Some((address, port)))).await {
        Ok(Ok(Reached::Open(stream))) => stream,
        Ok(Ok(Reached::Refused)) => {
            dial.connection = Some(Connection::Refused);
            return dial;
        }
        // A port-forward that does not come up says nothing of the way that Whisker goes.
        Err(_) if dial.vantage == Vantage::PortForward => {
            dial.not_seen = Some(format!("no port-forward to Goldmane within {} ms", step.as_millis()));
            return dial;
        }
        Ok(Ok(Reached::TimedOut)) | Err(_) => {
            dial.connection = Some(Connection::TimedOut);
            return dial;
        }
        Ok(Err(e)) => {
            dial.not_seen = Some(e.to_string());
            return dial;
        }
    };
    dial.connection = Some(Connection::Open(Some((address, port).into())));
    let shake = tls::handshake(stream, host, &side.identity);
    let (end, chain, stream) = match timeout(step, shake).await {
        Ok(shaken) => (shaken.end, shaken.chain, shaken.stream),
        Err(_) => (TlsEnd::Failed(format!("no answer within {} ms", step.as_millis())), Vec::new(), None),
    };
    let roots = tls::split_pem(&side.trust);
    dial.tls = Some(TlsSeen { chain, roots, name: host.to_owned(), now: now(), end });
    let Some(stream) = stream else { return dial };
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

/// Asks for each name of the search list in turn; the first address ends it, as does a server that is not there.
async fn resolve(env: &dyn Environment, side: &WhiskerSide, host: &str, dial: &mut Dial) -> Option<IpAddr> {
    let step = env.pace().step;
    let late = || DnsAnswer::Unreachable(format!("no answer within {} ms", step.as_millis()));
    let mut stream = match timeout(step, env.connect_dns()).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(why)) => Err(DnsAnswer::Unreachable(why)),
        Err(_) => Err(late()),
    };
    for name in side.search.candidates(host) {
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
