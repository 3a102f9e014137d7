//! Records of TLS as a peer may send them: whole, cut, changed and out of place. What comes out of
//! them is what an honest client has put in, up to the first change.

#[path = "../../tls/served.rs"]
mod served;

use std::io::Write;
use std::sync::{Arc, LazyLock};

use mahoraga::tls::{INCOMING_MAX, Records, Terminate, TlsServer, TlsStanding};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection};

use super::input::Input;
use served::Served;

static SERVED: LazyLock<Served> = LazyLock::new(Served::new);
static SERVER: LazyLock<TlsServer> = LazyLock::new(|| SERVED.server());
static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> =
    LazyLock::new(|| [&TLS12, &TLS13].map(|version| SERVED.client(version)));

/// The balancer's end of a connection, used as a worker does.
struct End {
    records: Box<dyn Records>,
    incoming: Vec<u8>,
    plain: Vec<u8>,
    reply: Vec<u8>,
    standing: TlsStanding,
    failed: bool,
}

impl End {
    fn new() -> Self {
        Self {
            records: SERVER.begin(),
            incoming: Vec::new(),
            plain: Vec::new(),
            reply: Vec::new(),
            standing: TlsStanding::Handshake,
            failed: false,
        }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        if self.incoming.len() > INCOMING_MAX || self.standing == TlsStanding::Ended {
            return;
        }
        self.incoming.extend_from_slice(bytes);
        let before = (self.plain.len(), self.incoming.len());
        let taken = self
            .records
            .open(&mut self.incoming, &mut self.plain, &mut self.reply);
        assert!(
            taken.used <= self.incoming.len(),
            "it takes what never came"
        );
        assert!(
            self.plain.len() - before.0 <= before.1,
            "bytes that did not come"
        );
        assert!(self.reply.len() <= INCOMING_MAX, "a long reply");
        self.incoming.drain(..taken.used);
        match taken.standing {
            Ok(standing) => {
                assert!(!self.failed, "it goes on after a failure");
                self.standing = standing;
            }
            Err(_) => self.failed = true,
        }
    }

    /// Has a client do its handshake.
    fn shake(&mut self, client: &mut ClientConnection) {
        let mut goes_on = true;
        while goes_on {
            goes_on = client.is_handshaking();
            self.take_in(&outgoing(client));
            let reply = std::mem::take(&mut self.reply);
            let mut reply = &reply[..];
            while !reply.is_empty() {
                client.read_tls(&mut reply).expect("memory gives it");
                client.process_new_packets().expect("an honest server");
            }
        }
        assert_eq!(self.standing, TlsStanding::Open);
    }
}

fn outgoing(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory takes it");
    }
    bytes
}

/// Feeds an end of TLS with records.
pub fn records(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (kind, mut end) = (input.below(4), End::new());
    if kind < 2 {
        // What never was a handshake.
        let size = usize::from(input.byte()) * 8 + 1;
        for part in input.0.chunks(size) {
            end.take_in(part);
        }
        assert!(end.plain.is_empty() && end.standing == TlsStanding::Handshake);
    } else {
        let name = ServerName::try_from(served::NAME).expect("a name");
        let config = Arc::clone(&CLIENTS[usize::from(kind - 2)]);
        let mut client = ClientConnection::new(config, name).expect("a client");
        end.shake(&mut client);
        after_handshake(&mut input, &mut end, &mut client);
    }
    let mut sealed = Vec::new();
    let _ = end.records.seal(b"answer", &mut end.incoming, &mut sealed);
    end.records.close(&mut end.incoming, &mut sealed);
}

fn after_handshake(input: &mut Input<'_>, end: &mut End, client: &mut ClientConnection) {
    let (mut written, mut is_honest, mut has_ended) = (Vec::new(), true, false);
    while !input.is_empty() {
        let length = usize::from(input.byte());
        match input.below(8) {
            0..4 => {
                let part = vec![input.byte(); length];
                client.writer().write_all(&part).expect("room");
                // What follows the end counts for nothing.
                if is_honest && !has_ended {
                    written.extend(part);
                }
            }
            4 => {
                client.send_close_notify();
                has_ended = true;
            }
            5 => {
                let _ = client.refresh_traffic_keys();
            }
            6 => {
                let (raw, rest) = input.0.split_at(length.min(input.0.len()));
                is_honest &= raw.is_empty();
                end.take_in(raw);
                input.0 = rest;
            }
            _ => {
                let mut records = outgoing(client);
                let at = length % records.len().max(1);
                if let Some(byte) = records.get_mut(at) {
                    *byte ^= input.byte() | 1;
                    is_honest = false;
                }
                end.take_in(&records);
            }
        }
        let records = outgoing(client);
        let (first, last) = records.split_at(length.min(records.len()));
        end.take_in(first);
        end.take_in(last);
        end.reply.clear();
    }
    assert!(written.starts_with(&end.plain), "bytes that were not sent");
    assert!(
        !is_honest || end.failed || end.plain == written,
        "bytes are lost"
    );
}
