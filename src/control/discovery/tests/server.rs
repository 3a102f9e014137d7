//! A DNS server on loopback whose answers a test sets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The reply for a name.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// The records of the queried type.
    Records {
        answers: Vec<(RData, u32)>,
        additional: Vec<(Name, RData)>,
    },
    /// Only these addresses, and a failure for AAAA.
    BrokenForIpv6(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    Broken,
    /// No answer at all.
    Silence,
}

impl Reply {
    pub(super) fn addresses(ttl: u32, addresses: &[&str]) -> Self {
        let records: Vec<_> = addresses.iter().map(|&address| (address, ttl)).collect();
        Self::of(&records)
    }

    /// Addresses, each with its time to live.
    pub(super) fn of(records: &[(&str, u32)]) -> Self {
        let records = records.iter().map(|(address, ttl)| {
            let address: IpAddr = address.parse().unwrap();
            (RData::from(address), *ttl)
        });
        Self::Records {
            answers: records.collect(),
            additional: Vec::new(),
        }
    }

    /// Priority, weight, port and target.
    pub(super) fn services(services: &[(u16, u16, u16, &str)]) -> Self {
        Self::services_with(services, &[])
    }

    /// The same, and addresses that come along.
    pub(super) fn services_with(
        services: &[(u16, u16, u16, &str)],
        along: &[(&str, &str)],
    ) -> Self {
        let answers = services.iter().map(|(priority, weight, port, target)| {
            let target = Name::from_ascii(target).unwrap();
            (RData::SRV(SRV::new(*priority, *weight, *port, target)), 0)
        });
        let additional = along.iter().map(|(name, address)| {
            let address: IpAddr = address.parse().unwrap();
            (Name::from_ascii(name).unwrap(), RData::from(address))
        });
        Self::Records {
            answers: answers.collect(),
            additional: additional.collect(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    replies: Rc<RefCell<HashMap<String, Reply>>>,
    asked: Rc<RefCell<HashMap<String, u32>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let replies = Rc::new(RefCell::new(HashMap::new()));
        let asked = Rc::new(RefCell::new(HashMap::new()));
        let task = tokio_uring::spawn(serve(socket, Rc::clone(&replies), Rc::clone(&asked)));
        Self {
            address,
            replies,
            asked,
            task,
        }
    }

    /// Sets the reply from now on.
    pub(super) fn say(&self, name: &str, reply: Reply) {
        self.replies.borrow_mut().insert(name.to_owned(), reply);
    }

    /// The number of queries for a name so far, of all types.
    pub(super) fn asked(&self, name: &str) -> u32 {
        self.asked.borrow().get(name).copied().unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: UdpSocket,
    replies: Rc<RefCell<HashMap<String, Reply>>>,
    asked: Rc<RefCell<HashMap<String, u32>>>,
) {
    let mut bytes = [0; 4_096];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        let question = Message::from_vec(&bytes[..length]).unwrap();
        let query = question.queries[0].clone();
        let name = query.name().to_ascii();
        *asked.borrow_mut().entry(name.clone()).or_default() += 1;
        let mut message = Message::response(question.metadata.id, question.metadata.op_code);
        message.add_query(query.clone());
        let reply = replies.borrow().get(&name).cloned();
        let mut answer = |data: RData, ttl| {
            if data.record_type() == query.query_type() {
                let record = Record::from_rdata(query.name().clone(), ttl, data);
                message.add_answer(record);
            }
        };
        match reply {
            Some(Reply::Records {
                answers,
                additional,
            }) => {
                for (data, ttl) in answers {
                    answer(data, ttl);
                }
                for (name, data) in additional {
                    message.add_additional(Record::from_rdata(name, 0, data));
                }
            }
            Some(Reply::BrokenForIpv6(_)) if query.query_type() == RecordType::AAAA => {
                message.metadata.response_code = ResponseCode::ServFail;
            }
            Some(Reply::BrokenForIpv6(addresses)) => {
                for address in addresses {
                    answer(RData::from(address), 0);
                }
            }
            Some(Reply::Silence) => continue,
            Some(Reply::Broken) => message.metadata.response_code = ResponseCode::ServFail,
            Some(Reply::NoSuchName) | None => {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        let bytes = message.to_vec().unwrap();
        socket.send_to(&bytes, from).await.unwrap();
    }
}
