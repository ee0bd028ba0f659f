//! Asks a DNS server over a connection (RFC 7766), as it comes through a port-forward too.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::environment::Stream;
use crate::sight::DnsAnswer;

/// Asks for the A records of an absolute name; one connection takes many questions, one after the other.
pub async fn ask(stream: &mut impl Stream, name: &str) -> DnsAnswer {
    match exchange(stream, name).await {
        Ok(message) => read(&message),
        Err(e) => DnsAnswer::Unreachable(e.to_string()),
    }
}

async fn exchange(stream: &mut impl Stream, name: &str) -> std::io::Result<Message> {
    let name = Name::from_ascii(name).map_err(std::io::Error::other)?;
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let bytes = question.to_vec().map_err(std::io::Error::other)?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    let answer = Message::from_vec(&bytes).map_err(std::io::Error::other)?;
    if answer.metadata.id != question.metadata.id {
        return Err(std::io::Error::other("the answer belongs to another question"));
    }
    Ok(answer)
}

fn read(message: &Message) -> DnsAnswer {
    match message.metadata.response_code {
        ResponseCode::NoError => DnsAnswer::Addresses(
            message
                .answers
                .iter()
                .filter_map(|record| match record.data {
                    RData::A(a) => Some(a.0.into()),
                    _ => None,
                })
                .collect(),
        ),
        ResponseCode::NXDomain => DnsAnswer::NoSuchName,
        other => DnsAnswer::Failed(other.to_string()),
    }
}
