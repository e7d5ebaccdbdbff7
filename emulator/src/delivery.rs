//! Response delivery: regular HTTP, or a byte-level script that a fault defines.
//!
//! hyper sends regular responses. A broken one, which hyper cannot send, becomes a script that the
//! connection plays on the raw socket.

use crate::answer::Answer;
use crate::distortion;
use crate::fault::{Ending, FaultKind};
use crate::socket::Socket;
use hyper::StatusCode;
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Block size for long writes.
const BLOCK: usize = 1 << 16;

#[derive(Debug)]
pub(crate) enum Delivery {
    Whole(Answer),
    Scripted(Script),
}

/// A script of socket operations. Clones are cheap because HTTP extensions must be `Clone`.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    steps: Arc<[Step]>,
    ending: Ending,
}

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Drip { bytes: Vec<u8>, every: Duration },
    Repeat { block: Vec<u8>, count: u64 },
}

impl Script {
    fn new(steps: impl Into<Arc<[Step]>>, ending: Ending) -> Self {
        Self { steps: steps.into(), ending }
    }

    /// A script that only ends the connection.
    pub(crate) fn ending(ending: Ending) -> Self {
        Self::new([], ending)
    }

    /// Plays the script to its end, or until the client disconnects.
    pub(crate) async fn play(&self, mut socket: impl Socket) {
        // An error means that the client has disconnected.
        let _ = self.try_play(&mut socket).await;
    }

    async fn try_play(&self, socket: &mut impl Socket) -> io::Result<()> {
        for step in &*self.steps {
            match step {
                Step::Send(bytes) => socket.write_all(bytes).await?,
                Step::Drip { bytes, every } => {
                    for byte in bytes {
                        tokio::time::sleep(*every).await;
                        socket.write_all(&[*byte]).await?;
                        socket.flush().await?;
                    }
                }
                Step::Repeat { block, count } => {
                    for _ in 0..*count {
                        socket.write_all(block).await?;
                    }
                }
            }
        }
        socket.flush().await?;
        match self.ending {
            Ending::Close => socket.shutdown().await,
            // A plain close, without a TLS `close_notify`.
            Ending::Cut => Ok(()),
            // With a linger time of zero, closing sends a TCP reset.
            Ending::Reset => socket.tcp().set_zero_linger(),
            Ending::Silence => {
                let mut ignored = [0; 1_024];
                while socket.read(&mut ignored).await? > 0 {}
                Ok(())
            }
        }
    }
}

/// Applies a fault. `answer` is the regular response, if the request was processed; `url` is the
/// URL of the request.
pub(crate) fn spoil(kind: FaultKind, answer: Option<Answer>, url: &str) -> Delivery {
    let nothing = |ending| Delivery::Scripted(Script::ending(ending));
    match kind {
        FaultKind::Reset { .. } => return nothing(Ending::Reset),
        FaultKind::ReplyLost => return nothing(Ending::Close),
        FaultKind::Raw { text, ending } => {
            return Delivery::Scripted(Script::new([Step::Send(text.into_bytes())], ending));
        }
        FaultKind::Refusal { refusal } => return Delivery::Whole(refusal.answer()),
        FaultKind::CommandTimedOut { as_object, .. } => {
            return Delivery::Whole(Answer::command_timed_out(as_object));
        }
        FaultKind::UnavailablePage { .. } => return Delivery::Whole(Answer::unavailable_page()),
        FaultKind::Redirect { status, location } => {
            let location = location.unwrap_or_else(|| url.to_owned());
            return Delivery::Whole(Answer {
                status,
                headers: vec![("location".to_owned(), location)],
                body: Vec::new(),
            });
        }
        FaultKind::Status { status, body, content_type, mut headers, .. } => {
            let content_type = content_type.unwrap_or_else(|| looks_like(&body).to_owned());
            headers.push(("content-type".to_owned(), content_type));
            return Delivery::Whole(Answer { status, headers, body: body.into_bytes() });
        }
        _ => {}
    }
    let Some(answer) = answer else {
        return nothing(Ending::Close);
    };
    distort(kind, answer)
}

fn distort(kind: FaultKind, mut answer: Answer) -> Delivery {
    let json = |answer: Answer, change: fn(Value) -> Value| Answer {
        body: match serde_json::from_slice(&answer.body) {
            Ok(value) => change(value).to_string().into_bytes(),
            Err(_) => answer.body,
        },
        ..answer
    };
    Delivery::Whole(match kind {
        FaultKind::ReplaceStatus { status } => Answer { status, ..answer },
        FaultKind::EmptyBody => Answer { body: Vec::new(), ..answer },
        FaultKind::TruncatedJson => {
            answer.body.truncate(answer.body.len() / 2);
            answer
        }
        FaultKind::NotJson => Answer { body: b"OK, here is your token".to_vec(), ..answer },
        FaultKind::Stringified => json(answer, distortion::stringified),
        FaultKind::WrongTypes => json(answer, distortion::wrong_types),
        FaultKind::SnakeCase => json(answer, distortion::snake_case),
        FaultKind::Gzip { marked } => {
            answer.body = distortion::gzip(&answer.body);
            if marked {
                answer.with_headers([("content-encoding", "gzip".to_owned())])
            } else {
                answer
            }
        }
        kind => return slowly_or_at_length(kind, answer),
    })
}

fn slowly_or_at_length(kind: FaultKind, answer: Answer) -> Delivery {
    Delivery::Scripted(match kind {
        FaultKind::CutBody { body_bytes, ending } => {
            let mut bytes = head(&answer, Length::Known(answer.body.len() as u64));
            bytes.extend(answer.body.iter().take(body_bytes));
            Script::new([Step::Send(bytes)], ending)
        }
        FaultKind::Drip { every_ms, body_only } => {
            let mut head = head(&answer, Length::Known(answer.body.len() as u64));
            let every = Duration::from_millis(every_ms);
            let steps = if body_only {
                let bytes = answer.body;
                vec![Step::Send(head), Step::Drip { bytes, every }]
            } else {
                head.extend(answer.body);
                vec![Step::Drip { bytes: head, every }]
            };
            Script::new(steps, Ending::Close)
        }
        FaultKind::HugeBody { bytes, chunked } => huge_body(&answer, bytes, chunked),
        FaultKind::HugeHead { bytes, lines } => {
            let lines = lines.max(1);
            let value = "x".repeat(bytes / lines);
            let padding = (0..lines).map(|line| (format!("x-padding-{line}"), value.clone()));
            let answer = answer.with_headers(padding);
            let mut bytes = head(&answer, Length::Known(answer.body.len() as u64));
            bytes.extend(answer.body);
            Script::new([Step::Send(bytes)], Ending::Close)
        }
        _ => return Delivery::Whole(answer),
    })
}

fn huge_body(answer: &Answer, bytes: u64, chunked: bool) -> Script {
    let padding = bytes.saturating_sub(answer.body.len() as u64);
    let (count, rest) = (padding / BLOCK as u64, padding % BLOCK as u64);
    let rest = vec![b' '; usize::try_from(rest).unwrap_or(0)];
    let frame = |bytes: &[u8]| {
        if !chunked {
            return bytes.to_vec();
        }
        if bytes.is_empty() {
            // A chunk of length zero would end the body.
            return Vec::new();
        }
        [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
    };
    let length =
        if chunked { Length::Chunked } else { Length::Known(padding + answer.body.len() as u64) };
    let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
    Script::new(
        [
            Step::Send([head(answer, length), frame(&answer.body)].concat()),
            Step::Repeat { block: frame(&[b' '; BLOCK]), count },
            Step::Send([frame(&rest).as_slice(), end].concat()),
        ],
        Ending::Close,
    )
}

enum Length {
    Known(u64),
    Chunked,
}

/// The head of a response in wire format.
fn head(answer: &Answer, length: Length) -> Vec<u8> {
    let reason = StatusCode::from_u16(answer.status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", answer.status);
    let framing = match length {
        Length::Known(length) => ("content-length", length.to_string()),
        Length::Chunked => ("transfer-encoding", "chunked".to_owned()),
    };
    let own =
        [framing, ("connection", "close".to_owned())].map(|(name, value)| (name.to_owned(), value));
    for (name, value) in answer.headers.iter().chain(&own) {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn looks_like(body: &str) -> &'static str {
    match body.trim_start().as_bytes().first() {
        Some(b'<') => "text/html; charset=utf-8",
        Some(b'{' | b'[') => "application/json; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}
