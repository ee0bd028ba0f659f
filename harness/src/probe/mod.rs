//! Probes: they look at one layer each and report what they saw. They do not judge.

pub mod call;
pub mod dns;
pub mod http;
pub mod tls;

use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use crate::environment::{Environment, LookError, Reached, WhiskerSide};
use crate::judge;
use crate::sight::{CallSeen, Connection, Dial, DnsAnswer, TlsEnd, TlsSeen};

/// Now, in the form of reports.
pub fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// Walks from the name in force to an answered call, with Whisker's trust and certificate, and stops at the first
/// layer that breaks.
pub async fn dial(env: &dyn Environment, side: &WhiskerSide) -> Result<Dial, LookError> {
    let step = env.pace().step;
    let host = judge::host(&side.goldmane_host);
    let port: u16 = side.goldmane_host.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).unwrap_or(443);
    let mut dial = Dial {
        vantage: env.vantage(),
        target: side.goldmane_host.clone(),
        names: Vec::new(),
        connection: None,
        tls: None,
        call: None,
    };
    let Some(address) = resolve(env, side, host, &mut dial).await else { return Ok(dial) };
    let stream = match timeout(step, env.connect_goldmane(Some((address, port)))).await {
        Ok(reached) => match reached? {
            Reached::Open(stream) => stream,
            Reached::Refused => {
                dial.connection = Some(Connection::Refused);
                return Ok(dial);
            }
            Reached::TimedOut => {
                dial.connection = Some(Connection::TimedOut);
                return Ok(dial);
            }
        },
        Err(_) => {
            dial.connection = Some(Connection::TimedOut);
            return Ok(dial);
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
    let Some(stream) = stream else { return Ok(dial) };
    // Whisker would not go on with such a certificate.
    if judge::handshake_is_broken(dial.tls.as_ref()) {
        return Ok(dial);
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
    Ok(dial)
}

/// Asks for each name of the search list in turn; the first address ends it, as does a server that is not there.
async fn resolve(env: &dyn Environment, side: &WhiskerSide, host: &str, dial: &mut Dial) -> Option<IpAddr> {
    for name in side.search.candidates(host) {
        let answer = match timeout(env.pace().step, env.ask_dns(&name)).await {
            Ok(answer) => answer,
            Err(_) => DnsAnswer::Unreachable(format!("no answer within {} ms", env.pace().step.as_millis())),
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
