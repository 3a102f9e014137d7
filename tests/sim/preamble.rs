//! Clients that ask for TLS before their first bytes, and backends that are asked for it too.

use mahoraga::kernel::Errno;
use mahoraga::peek::postgres::SSL_REQUEST;
use mahoraga::token::Side;

use crate::kernel::FakeKernel;
use crate::peer::Act;
use crate::stream::{self, StreamId};

impl FakeKernel {
    /// A client that has just come begins with a request.
    pub(crate) fn let_ask(&mut self, fd: i32) {
        let conn = self.conn(fd);
        conn.after_preamble = Some(conn.inbound.stream);
        conn.inbound.stream = stream::ASK;
        for act in [Act::AwaitAnswer, Act::Send(SSL_REQUEST.len() as u64)] {
            conn.peer.script.push_front(act);
        }
    }

    /// The balancer has said something to a peer by itself. `false`: it could not.
    pub(crate) fn on_said(&mut self, fd: i32, bytes: &[u8]) -> bool {
        self.trace.fact("say", fd, bytes.len() as u64);
        let conn = self.conn(fd);
        assert!(conn.connected && conn.outbound.given == 0 && !conn.outbound.fin);
        if conn.refuses_bytes() {
            conn.send_error();
            return false;
        }
        match conn.side {
            Side::Client if bytes == b"S" => {
                self.begin_stream(fd);
                self.wake_peer(fd);
            }
            Side::Client => self.trace.see("an alert"),
            Side::Backend => self.ask_backend(fd, bytes),
        }
        true
    }

    /// What was asked and answered is no part of the stream that follows.
    fn begin_stream(&mut self, fd: i32) {
        let conn = self.conn(fd);
        let stream: StreamId = conn.after_preamble.take().expect("it has asked");
        let inbound = &mut conn.inbound;
        assert_eq!(inbound.taken, inbound.written, "bytes behind a request");
        (inbound.taken, inbound.written, inbound.stream) = (0, 0, stream);
    }

    fn ask_backend(&mut self, fd: i32, request: &[u8]) {
        assert_eq!(request, SSL_REQUEST);
        let (answer, what) = match self.random.below(20) {
            0 => (Some((stream::REFUSAL, 1)), "a backend without TLS"),
            1 => (Some((stream::ANSWER, 2)), "a backend that says too much"),
            2 => (None, "a backend that closes when it is asked"),
            3 => (Some((stream::ANSWER, 0)), "a backend that says nothing"),
            _ => (Some((stream::ANSWER, 1)), "a backend that answers"),
        };
        self.trace.see(what);
        let conn = self.conn(fd);
        conn.after_preamble = Some(conn.inbound.stream);
        // A server says nothing more before the client's hello.
        conn.peer.script.push_front(Act::Await(1));
        match answer {
            None => conn.peer.script.push_front(Act::Close),
            Some((stream, bytes)) => {
                conn.inbound.stream = stream;
                conn.peer.script.push_front(Act::Send(bytes));
            }
        }
        self.on_acknowledged(fd);
    }

    /// The balancer takes a few bytes that have come.
    pub(crate) fn hear_bytes(&mut self, fd: i32, into: &mut [u8]) -> Result<usize, Errno> {
        if let Some(taken) = self.hear_header(fd, into) {
            return Ok(taken);
        }
        let unread = self.conn(fd).unread();
        if unread == 0 {
            return match self.conn(fd).recv_end() {
                Some(end) => end.map(|()| 0),
                None => Err(Errno::AGAIN),
            };
        }
        let length = into.len().min(usize::try_from(unread).expect("a length"));
        let bytes = self.take_bytes(fd, length as u64);
        into[..length].copy_from_slice(&bytes);
        if self.conn(fd).side == Side::Backend && bytes == b"S" {
            self.begin_stream(fd);
            let token = self.conn(fd).asked_for.expect("its answer was awaited");
            self.pair(token, fd);
        }
        self.wake_ops(fd);
        Ok(length)
    }
}
