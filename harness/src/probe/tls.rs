//! A TLS handshake that takes any certificate and records it: judging is another's business.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use catwalk_fixtures::pki::{self, Identity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::environment::Stream;
use crate::sight::TlsEnd;

/// A handshake's end, with what it showed.
pub struct Shaken {
    /// How it ended.
    pub end: TlsEnd,
    /// The peer's certificates, PEM, leaf first.
    pub chain: Vec<String>,
    /// The connection, where it is complete.
    pub stream: Option<TlsStream<Box<dyn Stream>>>,
}

/// Shakes hands as a gRPC client does (TLS 1.2 or 1.3, ALPN `h2`), showing `identity` and the name as SNI.
pub async fn handshake(stream: Box<dyn Stream>, name: &str, identity: &Identity) -> Shaken {
    let recorder = Arc::new(Recorder { provider: pki::provider(), seen: Mutex::new(Vec::new()) });
    let end = match shake(stream, name, identity, recorder.clone()).await {
        Ok(stream) => Ok(stream),
        Err(e) => Err(end_of(&e)),
    };
    let chain =
        recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|der| to_pem(der)).collect();
    match end {
        Ok(stream) => Shaken { end: TlsEnd::Complete, chain, stream: Some(stream) },
        Err(end) => Shaken { end, chain, stream: None },
    }
}

async fn shake(
    stream: Box<dyn Stream>,
    name: &str,
    identity: &Identity,
    recorder: Arc<Recorder>,
) -> io::Result<TlsStream<Box<dyn Stream>>> {
    let mut config = ClientConfig::builder_with_provider(recorder.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Whether the peer speaks TLS: shakes hands as a browser does (ALPN `http/1.1`), with no certificate of one's own.
/// The connection, where it does; none where it answers something else.
pub async fn offer(stream: Box<dyn Stream>, name: &str) -> io::Result<Option<TlsStream<Box<dyn Stream>>>> {
    let recorder = Arc::new(Recorder { provider: pki::provider(), seen: Mutex::new(Vec::new()) });
    let mut config = ClientConfig::builder_with_provider(recorder.provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(recorder)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if end_of(&e) == TlsEnd::NotTls => Ok(None),
        Err(e) => Err(e),
    }
}

fn end_of(error: &io::Error) -> TlsEnd {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => TlsEnd::Alert(format!("{alert:?}")),
        Some(rustls::Error::InvalidMessage(_)) => TlsEnd::NotTls,
        _ => TlsEnd::Failed(error.to_string()),
    }
}

/// The TLS error inside of an I/O error.
pub fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn to_pem(der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lines)
}

/// The certificates of a bundle, each PEM block by itself; text between them is left out.
pub fn split_pem(bundle: &str) -> Vec<String> {
    pki::certificates(bundle).map(|all| all.iter().map(|der| to_pem(der)).collect()).unwrap_or_default()
}

/// Takes any certificate, remembers it, and still holds the handshake's signature against it.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain =
            std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The first I/O error of a connection, remembered from beneath HTTP/2, which keeps only its text.
#[derive(Clone, Debug, Default)]
pub struct Broken(Arc<Mutex<Option<How>>>);

/// How a connection broke.
#[derive(Clone, Debug)]
struct How {
    alert: Option<String>,
    words: String,
}

impl Broken {
    /// The alert, if the peer sent one, and the error's words.
    pub fn get(&self) -> (Option<String>, Option<String>) {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(How { alert, words }) => (alert, Some(words)),
            None => (None, None),
        }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            let alert = match tls_error(error) {
                Some(rustls::Error::AlertReceived(alert)) => Some(format!("{alert:?}")),
                _ => None,
            };
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // An alert says more than the broken pipe that comes with it.
            if first.as_ref().is_none_or(|known| known.alert.is_none() && alert.is_some()) {
                *first = Some(How { alert, words: error.to_string() });
            }
        }
        polled
    }
}

/// A connection that remembers how it broke, and gives back first what was read ahead.
pub struct Watched<S> {
    stream: S,
    ahead: io::Cursor<Vec<u8>>,
    broken: Broken,
}

impl<S> Watched<S> {
    /// `ahead` was read from the stream before.
    pub fn new(stream: S, ahead: Vec<u8>, broken: Broken) -> Self {
        Self { stream, ahead: io::Cursor::new(ahead), broken }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.ahead.get_ref().len() as u64 - self.ahead.position();
        if left > 0 {
            return Pin::new(&mut self.ahead).poll_read(cx, buf);
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.broken.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.broken.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.broken.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use catwalk_fixtures::pki::{Authority, LeafRequest};
    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn a_listener_is_told_by_its_answer() {
        let leaf = Authority::generate("nobody's").unwrap().issue(&LeafRequest::client("nginx")).unwrap();
        let identity = leaf.identity().unwrap();
        let mut config = ServerConfig::builder_with_provider(pki::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (ours, theirs) = duplex(1 << 16);
        let (offered, accepted) = tokio::join!(
            offer(Box::new(ours), "whisker"),
            TlsAcceptor::from(Arc::new(config)).accept(theirs),
        );
        // Not trusted, and of another name: it speaks TLS all the same.
        let mut stream = offered.unwrap().expect("TLS");
        accepted.unwrap().write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");

        // nginx, to TLS on a port for HTTP.
        let (ours, mut theirs) = duplex(1 << 16);
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        assert!(offer(Box::new(ours), "whisker").await.unwrap().is_none());

        // Hanging up says neither.
        let (ours, theirs) = duplex(1 << 16);
        drop(theirs);
        assert!(offer(Box::new(ours), "whisker").await.is_err());
    }
}
