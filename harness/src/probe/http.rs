//! Asks Whisker over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::environment::WhiskerDoor;
use crate::sight::Said;

/// The most that is read of a body, in bytes.
const BODY_LIMIT: usize = 4 << 20;

/// Sends `GET prefix+path` and reads the answer until it ends, `enough` says so, or `limit` has passed.
pub async fn get(door: WhiskerDoor, path: &str, limit: Duration, enough: impl Fn(&str) -> bool) -> Said {
    let path = format!("{}{path}", door.prefix);
    let mut got = None;
    match timeout(limit, exchange(door, &path, enough, &mut got)).await {
        Ok(Ok(())) => got.unwrap_or_else(|| Said::Silent("no answer".to_owned())),
        Ok(Err(why)) => Said::NotThere(why),
        // What came of an endless answer counts as the answer.
        Err(_) => got.unwrap_or_else(|| Said::Silent(format!("no answer within {} ms", limit.as_millis()))),
    }
}

async fn exchange(
    door: WhiskerDoor,
    path: &str,
    enough: impl Fn(&str) -> bool,
    got: &mut Option<Said>,
) -> Result<(), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(door.stream))
        .await
        .map_err(|e| format!("connecting to Whisker: {e}"))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "whisker")
        .header("accept", "*/*")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(|e| format!("asking Whisker: {e}"));
    let result = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let content_type =
                answer.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
            let content_type = content_type.to_owned();
            let mut body = answer.into_body();
            let mut bytes = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let over = enough(&text) || bytes.len() > BODY_LIMIT;
                *got = Some(Said::Answer { status, content_type: content_type.clone(), body: text });
                if over {
                    break Ok(());
                }
                match body.frame().await {
                    Some(Ok(frame)) => bytes.extend(frame.data_ref().into_iter().flatten()),
                    // A body that breaks off is the answer as far as it came.
                    Some(Err(_)) | None => break Ok(()),
                }
            }
        }
        Err(e) => Err(e),
    };
    connection.abort();
    result
}
