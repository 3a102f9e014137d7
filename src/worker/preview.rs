//! Where a client would go now. Nothing changes by it: no turn is taken, no client remembered.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::kernel::Kernel;
use crate::peek::SpokenBytes;
use crate::select::{Considered, Keys, Plan, Request};
use crate::snapshot::LiveListener;

use super::Worker;

/// A client that would connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewQuestion {
    /// The name of the pool.
    pub pool: String,
    /// The name of the listener; `None`: each that leads there.
    pub listener: Option<String>,
    /// Its address.
    pub client: SocketAddr,
    /// The host that it would name, as a TLS server name or in HTTP.
    pub host: Option<String>,
    /// The target of its HTTP request.
    pub target: Option<String>,
    /// What it would say, as routes see it.
    pub spoken: SpokenBytes,
}

impl PreviewQuestion {
    /// Whether a listener is asked about, if it leads to the pool.
    #[must_use]
    pub fn is_about(&self, listener: &LiveListener) -> bool {
        let name = self.listener.as_ref();
        name.is_none_or(|name| *name == listener.name)
    }

    /// The keys of the client by this pool of a listener. Where TLS ends, what the client says in
    /// it and inside of it is known apart.
    fn keys(&self, listener: &LiveListener, plan: &Plan) -> Keys {
        if let Some(tls) = &listener.tls
            && let Ok(heard) = self.spoken.heard(Some(&*tls.begins), false)
        {
            return plan.look(Some(self.client), &heard.first_bytes()).keys();
        }
        self.keys_by_host(plan)
    }

    /// The same without a listener, or where TLS passes through: the host that it names counts as
    /// a server name and as that of a request.
    #[must_use]
    pub fn keys_by_host(&self, plan: &Plan) -> Keys {
        let asked = (self.host.as_deref(), self.target.as_deref());
        plan.keys_of(self.client, asked, self.spoken.tlvs())
    }
}

/// Where it would go by one listener of one worker.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The worker.
    pub worker: u32,
    /// The listener.
    pub listener: Arc<LiveListener>,
    /// The pool, as the worker selects from it.
    pub plan: Arc<Plan>,
    /// The keys of the client.
    pub keys: Keys,
    /// The selection.
    pub considered: Considered,
}

impl<K: Kernel> Worker<K> {
    /// Where a client would go by each listener of a pool, [`PREVIEWS_MAX`] of them at most.
    pub(super) fn preview(&self, question: &PreviewQuestion) -> Vec<Preview> {
        let ports = self.listening.values().map(|key| &self.ports[*key]);
        let ports = ports.filter(|port| question.is_about(&port.listener));
        let of_pool = ports.filter_map(|port| {
            let mut leading = port.listener.plans().zip(&port.pools);
            let found = leading.find(|(plan, _)| plan.pool().name == question.pool)?;
            Some((port, found))
        });
        let previews = of_pool.take(PREVIEWS_MAX).map(|(port, (plan, pool))| {
            let keys = question.keys(&port.listener, plan);
            let request = Request {
                now: self.now,
                keys,
                tried: &[],
            };
            Preview {
                worker: self.id,
                listener: Arc::clone(&port.listener),
                plan: Arc::clone(plan),
                keys,
                considered: self.pools.selector(*pool).preview(&request),
            }
        });
        previews.collect()
    }
}

/// Listeners of a pool for which a worker answers: each copies the state of its strategy.
const PREVIEWS_MAX: usize = 4;
