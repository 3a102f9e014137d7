//! Balancers that share over real TLS on loopback, and others that do as they like.

mod hostile;
mod sharing;
mod sparing;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::{PeerMember, parse};
use crate::guard::{AccessFilters, Ban, BannedBy, Trusted};
use crate::pool::{Standing, StickyTable};
use crate::sys;
use crate::time::NEVER;
use crate::tls::TlsByOwner;

/// An authority with the certificates of its balancers, and where they listen.
struct Site {
    directory: PathBuf,
    members: Vec<PeerMember>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes the certificate of a name, and its key.
fn issue(authority: &Authority, name: &str, directory: &Path) {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

impl Site {
    /// With so many members, and certificates of strangers.
    fn new(members: usize) -> Self {
        let directory = format!(
            "mahoraga-peers-{}-{}",
            std::process::id(),
            fastrand::u64(..)
        );
        let directory = std::env::temp_dir().join(directory);
        fs::create_dir_all(&directory).unwrap();
        let ours = authority();
        fs::write(directory.join("ca.pem"), ours.pem()).unwrap();
        let held: Vec<_> = (0..members)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let members = held.iter().enumerate().map(|(place, listener)| PeerMember {
            name: format!("lb-{place}.test"),
            address: listener.local_addr().unwrap().to_string(),
        });
        let members: Vec<_> = members.collect();
        for member in &members {
            issue(&ours, &member.name, &directory);
        }
        issue(&ours, "stranger.test", &directory);
        let other = directory.join("other");
        fs::create_dir_all(&other).unwrap();
        issue(&authority(), "lb-1.test", &other);
        Self { directory, members }
    }

    fn settings(&self, name: &str) -> PeerSettings {
        let own = self.members.iter().find(|its| its.name == name);
        PeerSettings {
            listen: own.unwrap_or(&self.members[0]).address.parse().unwrap(),
            members: self.members.clone(),
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
            ca: self.directory.join("ca.pem"),
        }
    }

    /// Starts a member.
    fn start(&self, place: usize) -> Node {
        Node::start(&self.settings(&self.members[place].name), place)
    }
}

/// A balancer, as far as peers go.
struct Node {
    place: usize,
    snapshot: Arc<Snapshot>,
    orders: mpsc::Sender<Order>,
    _snapshots: watch::Sender<Arc<Snapshot>>,
    news: mpsc::Receiver<PeersNews>,
    counts: Vec<Arc<PeerCounts>>,
    strangers: Arc<AtomicU64>,
    bans: Arc<Mutex<BanWrites>>,
    told: Vec<String>,
    task: AbortHandle,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    fn start(settings: &PeerSettings, place: usize) -> Self {
        let snapshot = Arc::new(snapshot(&["web"]));
        Self::begin(settings, place, (1, no_bans()), snapshot)
    }

    /// Follows other settings, as after a reload.
    fn reload(self, settings: &PeerSettings) -> Self {
        let bans = (2, Arc::clone(&self.bans));
        let (snapshot, place) = (Arc::clone(&self.snapshot), self.place);
        drop(self);
        Self::begin(settings, place, bans, snapshot)
    }

    fn begin(
        settings: &PeerSettings,
        place: usize,
        (number, bans): (u64, Arc<Mutex<BanWrites>>),
        snapshot: Arc<Snapshot>,
    ) -> Self {
        let strangers = Arc::default();
        let (mut hub, counts, news) = hub(settings, (number, &bans), &strangers);
        hub.patience = Duration::from_secs(2);
        let (orders, waiting) = mpsc::channel(ORDERS);
        let (snapshots, shown) = watch::channel(Arc::clone(&snapshot));
        let control = Control {
            orders: waiting,
            snapshots: shown,
        };
        Self {
            place,
            snapshot,
            orders,
            _snapshots: snapshots,
            news,
            counts,
            strangers,
            bans,
            told: Vec::new(),
            task: tokio::spawn(hub.run(control)).abort_handle(),
        }
    }

    fn ban(&self, text: &str) {
        let now = sys::monotonic();
        let time = (i64::try_from(now).unwrap(), NEVER);
        let ban = Ban::new(text.parse().unwrap(), BannedBy::Hand, "".into(), time);
        self.snapshot.bans.add(ban, now).unwrap();
    }

    fn unban(&self, text: &str) {
        let prefix = text.parse().unwrap();
        self.snapshot.bans.lift(prefix);
        assert!(self.orders.try_send(Order::Lifted(vec![prefix])).is_ok());
    }

    /// Takes in the next list of bans.
    async fn next_list(&mut self) {
        let wait = async {
            loop {
                let news = self.news.recv().await.expect("the hub runs");
                if let News::Bans(list) = news.what {
                    return list;
                }
            }
        };
        let list = timeout(Duration::from_secs(10), wait).await;
        let now = sys::monotonic();
        let bans = &self.snapshot.bans;
        bans.import(&list.expect("in time"), &Trusted::default(), now);
    }

    /// Does with news as the control thread does.
    fn follow(&mut self) {
        while let Ok(PeersNews { what, .. }) = self.news.try_recv() {
            match what {
                News::Bans(list) => {
                    let now = sys::monotonic();
                    self.snapshot.bans.import(&list, &Trusted::default(), now);
                }
                News::Lifted(all) => all.iter().for_each(|its| {
                    self.snapshot.bans.lift(its.prefix);
                }),
                News::Problem { peer, problem } => {
                    let problem = problem.unwrap_or_else(|| "well".to_owned());
                    self.told.push(sentence(&peer, &problem));
                }
                News::Failed(sentence) => self.told.push(sentence),
            }
        }
    }

    fn bans(&mut self, text: &str) -> bool {
        self.follow();
        let prefix = text.parse().unwrap();
        self.snapshot.bans.holds(prefix, sys::monotonic())
    }

    fn was_told(&mut self, part: &str) -> bool {
        self.follow();
        self.told.iter().any(|its| its.contains(part))
    }

    fn table(&self) -> Arc<StickyTable> {
        self.snapshot.pools[0].pool().sticky.clone().unwrap()
    }

    /// A client comes for the first time.
    fn visit(&self, client: u64, backend: &str) {
        let table = self.table();
        table.insert(client, hash(backend), None, sys::monotonic());
    }

    /// The backend that a client would get again.
    fn backend(&self, client: u64) -> Option<&'static str> {
        let found = self.table().look(client, sys::monotonic())?;
        ["a", "b"].into_iter().find(|name| hash(name) == found)
    }

    /// What it counts of a member.
    fn of(&self, place: usize) -> crate::admin::model::PeerStatus {
        self.counts[place].status()
    }

    /// Whether it sends to all others, and they send to it.
    fn is_connected(&self) -> bool {
        let others = (0..self.counts.len()).filter(|place| *place != self.place);
        let mut others = others.map(|place| self.of(place));
        others.all(|its| its.sending && its.receiving)
    }
}

fn hash(backend: &str) -> u64 {
    crate::hash::of(backend.as_bytes())
}

fn hub(
    settings: &PeerSettings,
    (number, bans): (u64, &Arc<Mutex<BanWrites>>),
    strangers: &Arc<AtomicU64>,
) -> (Hub, Vec<Arc<PeerCounts>>, mpsc::Receiver<PeersNews>) {
    let members = settings.members.iter();
    let counts: Vec<_> = members.map(|its| Arc::new(PeerCounts::new(its))).collect();
    let (sender, news) = mpsc::channel(NEWS);
    let hub = Hub::new((settings, true), bans, &counts, strangers, (number, sender));
    (hub, counts, news)
}

/// Pools of these names, each with sticky clients.
fn snapshot(pools: &[&str]) -> Snapshot {
    let pools = pools.iter().map(|name| {
        format!(
            "(name: \"{name}\", persist: (key: \"source_ip\", clients_max: 65536), backends: [\
             (name: \"a\", address: \"127.0.0.1:2\"), \
             (name: \"b\", address: \"127.0.0.1:3\")])"
        )
    });
    let pools = pools.collect::<Vec<_>>().join(", ");
    let text = format!("(listeners: [(bind: \"127.0.0.1:1\", pool: \"web\")], pools: [{pools}])");
    let (config, _) = parse("f".to_owned(), text.into()).unwrap();
    let access = AccessFilters::new();
    let standings = |_| std::iter::repeat_with(Standing::default);
    let draft = Snapshot::compose(
        None,
        (&config, &access, &TlsByOwner::default()),
        100,
        standings,
        |_| true,
    );
    draft.take_effect()
}

/// Waits until something holds.
async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), wait)
        .await
        .expect("in time");
}
