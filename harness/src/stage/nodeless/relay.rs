//! The way into a run's network: through the relay in the control plane's sandbox.

use std::net::{Ipv4Addr, SocketAddr};

use catwalk_fixtures::standin::sandbox::{OPEN, REFUSED, TIMED_OUT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::environment::{LookError, Reached};

/// The longest answer of a relay.
const LONGEST: usize = 200;

/// Where the relay listens on this machine, and what it asks for.
#[derive(Clone)]
pub(super) struct Relay {
    pub port: u16,
    pub token: String,
}

impl Relay {
    /// Connects to an address of the run's network.
    pub(super) async fn connect(&self, address: SocketAddr) -> Result<Reached, LookError> {
        let doing = || format!("connecting to {address} through the relay");
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.map_err(LookError::while_(doing()))?;
        stream.set_nodelay(true).map_err(LookError::while_(doing()))?;
        let request = format!("{} {address}\n", self.token);
        stream.write_all(request.as_bytes()).await.map_err(LookError::while_(doing()))?;
        // Byte by byte: what comes after the line belongs to the other side.
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') && line.len() < LONGEST {
            line.push(stream.read_u8().await.map_err(LookError::while_(doing()))?);
        }
        match String::from_utf8_lossy(&line).trim_end() {
            OPEN => Ok(Reached::Open(Box::new(stream))),
            REFUSED => Ok(Reached::Refused),
            TIMED_OUT => Ok(Reached::TimedOut),
            other => Err(LookError { doing: doing(), why: other.to_owned() }),
        }
    }
}
