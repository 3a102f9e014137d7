//! `mahoraga events`: prints a stream of server-sent events (WHATWG HTML, section 9.2), most of
//! them as one line each.

use std::ops::ControlFlow;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::args::EventsArgs;
use super::client::{Client, ClientError, path, query};
use super::print;
use super::units::plain;
use crate::admin::model::{BalancerEvent, Watching};

pub(super) async fn events(args: &EventsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let mut stream = Stream::open(&client, args.recent).await?;
    let mut left = u64::from(args.recent);
    while args.follow || left > 0 {
        let next = stream.next();
        let event = if args.follow {
            next.await
        } else {
            // Past events arrive at once; the stream itself is endless.
            match timeout(QUIET, next).await {
                Ok(event) => event,
                Err(_) => return Ok(()),
            }
        };
        let line = match event? {
            Some(event) if args.options.json => {
                let json = serde_json::to_string(&event);
                json.expect("the model has text for keys alone") + "\n"
            }
            Some(event) => text(&event),
            None if args.follow => return Err(stream.gone()),
            None => return Ok(()),
        };
        if let ControlFlow::Break(()) = print(&line) {
            return Ok(());
        }
        left = left.saturating_sub(1);
    }
    Ok(())
}

/// An event as a line.
pub(super) fn line(event: &BalancerEvent) -> String {
    // Without fractions of a second: 2026-01-02T03:04:05Z.
    let (time, _) = event.at.split_once('.').unwrap_or((&event.at, ""));
    let time = time.trim_end_matches('Z').replace('T', " ");
    let message = event.message.lines().next().unwrap_or_default();
    plain(&format!("{time}Z  {message}"))
}

/// An event as a line. Further lines of its message follow, indented.
fn text(event: &BalancerEvent) -> String {
    let more = event.message.lines().skip(1);
    let more = more.map(|line| format!("    {}\n", plain(line)));
    format!("{}\n{}", line(event), more.collect::<String>())
}

/// Events as they arrive.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    client: &'a Client,
    body: Incoming,
    lines: Lines,
}

impl<'a> Stream<'a> {
    /// The last `recent` events, and then new ones as they happen.
    pub(super) async fn open(client: &'a Client, recent: u32) -> Result<Self, ClientError> {
        let recent = query(&Watching { recent });
        let body = client.stream(&(path(&["events"]) + &recent)).await?;
        let lines = Lines::default();
        Ok(Self {
            client,
            body,
            lines,
        })
    }

    /// The next event; `None` when the balancer has ended the stream. To drop the future loses no
    /// event.
    pub(super) async fn next(&mut self) -> Result<Option<BalancerEvent>, ClientError> {
        loop {
            while let Some(line) = self.lines.next() {
                if let Some(event) = event(&line) {
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.push(data);
                    }
                }
                Some(Err(error)) => return Err(self.client.broken(&error)),
                None => return Ok(None),
            }
        }
    }

    /// The balancer has ended the stream.
    fn gone(&self) -> ClientError {
        ClientError::Refused(format!(
            "the balancer at {} has ended",
            self.client.address()
        ))
    }
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Whether the current line is too long, and so is left out.
    skips: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line.
    fn next(&mut self) -> Option<String> {
        loop {
            let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') else {
                if self.bytes.len() > LINE_BYTES_MAX {
                    self.bytes.clear();
                    self.skips = true;
                }
                return None;
            };
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            if !std::mem::take(&mut self.skips) {
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

/// The event in a line of data. Each event is one line, since JSON has no newline in it. Other
/// fields and comments repeat what it says.
fn event(line: &str) -> Option<BalancerEvent> {
    serde_json::from_str(line.strip_prefix("data:")?).ok()
}

/// Past events have all arrived once none has come for this long.
const QUIET: Duration = Duration::from_millis(300);
/// The longest line: an event is a sentence with some names.
const LINE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_pieces() {
        let mut lines = Lines::default();
        lines.push(b"data: {\"number\":1,\"at\":\"2026-01-02T03:04:05.678Z\",");
        assert_eq!(lines.next(), None);
        lines.push(
            b"\"kind\":\"changed\",\"pool\":null,\"message\":\"a\\u001b b\"}\r\n\n: still here\n",
        );
        let found = event(&lines.next().unwrap()).unwrap();
        assert_eq!(line(&found), "2026-01-02 03:04:05Z  a\u{fffd} b");
        assert_eq!(lines.next().as_deref(), Some(""));
        assert_eq!(lines.next().and_then(|line| event(&line)), None);
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(lines.next(), None);
        lines.push(b"still\nnext\n");
        assert_eq!(lines.next().as_deref(), Some("next"));
    }
}
