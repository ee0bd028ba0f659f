//! Makes traffic between two pods: `catwalk-traffic serve PORT`, `catwalk-traffic send ADDRESS:PORT`.
//!
//! Runs in a cluster, in an image with no base; ends with its pod.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Between two connections.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait for one.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ended = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => port.parse().map_err(std::io::Error::other).and_then(serve),
        ["send", target] => target.parse().map_err(std::io::Error::other).map(send),
        _ => Err(std::io::Error::other("usage: catwalk-traffic serve PORT | send ADDRESS:PORT")),
    };
    if let Err(e) = ended {
        eprintln!("{e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve(port: u16) -> std::io::Result<()> {
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut bytes = [0; 64];
        // One that hangs up early has made its traffic too.
        let _ = stream.and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            let n = stream.read(&mut bytes)?;
            stream.write_all(&bytes[..n])
        });
    }
    Ok(())
}

fn send(target: SocketAddr) {
    loop {
        let sent = TcpStream::connect_timeout(&target, PATIENCE).and_then(|mut stream| {
            stream.write_all(b"catwalk")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read(&mut [0; 64])
        });
        if let Err(e) = sent {
            eprintln!("{target}: {e}");
        }
        std::thread::sleep(PAUSE);
    }
}
