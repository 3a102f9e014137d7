//! The task of each kind of question, and what is counted of the servers that they ask.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::admin::model::{EtcdStatus, RegistryStatus};
use crate::control::remote::{self, RemoteCounts};

use super::news::Teller;
use super::question::Question;
use super::{Discoveries, consul, dns, etcd, file, kubernetes};

/// What is counted of each kind of server.
#[derive(Debug, Default)]
pub(super) struct ServerCounts {
    etcd: Arc<RemoteCounts>,
    consul: Arc<RemoteCounts>,
    kubernetes: Arc<RemoteCounts>,
}

impl Discoveries {
    /// What is counted of etcd, for others that ask it too.
    pub(in crate::control) fn etcd_counts(&self) -> Arc<RemoteCounts> {
        Arc::clone(&self.counts.etcd)
    }

    /// What is known of etcd, as the API shows it.
    #[must_use]
    pub(in crate::control) fn etcd_status(&self) -> EtcdStatus {
        crate::control::etcd::status(&self.counts.etcd)
    }

    /// What is known of Consul.
    #[must_use]
    pub(in crate::control) fn consul_status(&self) -> RegistryStatus {
        self.counts.consul.registry()
    }

    /// What is known of Kubernetes.
    #[must_use]
    pub(in crate::control) fn kubernetes_status(&self) -> RegistryStatus {
        self.counts.kubernetes.registry()
    }

    /// Starts the task of a question; `dns` is for those to the DNS.
    pub(super) fn spawn(&self, dns: dns::Dns, teller: Teller, again: Arc<Notify>) -> AbortHandle {
        let (pace, counts) = (self.pace, &self.counts);
        match dns.question.clone() {
            Question::Addresses(_) | Question::Services(_) => {
                tokio::spawn(dns.follow(teller, pace, again)).abort_handle()
            }
            Question::File(path) => {
                tokio::spawn(file::follow(path, teller, pace, again)).abort_handle()
            }
            Question::Etcd(source) => {
                let counts = Arc::clone(&counts.etcd);
                remote::spawn(etcd::follow(source, teller, pace.remote, again, counts))
            }
            Question::Consul(source) => {
                let counts = Arc::clone(&counts.consul);
                remote::spawn(consul::follow(source, teller, pace.remote, again, counts))
            }
            Question::Kubernetes(source) => {
                let counts = Arc::clone(&counts.kubernetes);
                remote::spawn(kubernetes::follow(
                    source,
                    teller,
                    pace.remote,
                    again,
                    counts,
                ))
            }
        }
    }
}
