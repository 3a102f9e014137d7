//! The fields of the API server's answers that are read. What is zero or empty may be left out or
//! `null`.

use serde::Deserialize;

use crate::control::remote::few;

/// A list of slices.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    pub(super) metadata: ListMeta,
    #[serde(deserialize_with = "few::<PAGE, _, _>")]
    pub(super) items: Vec<Object>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    /// Names the rest of the list; empty: there is none.
    pub(super) r#continue: String,
}

/// A line of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) r#type: String,
    pub(super) object: Object,
}

/// A slice; of an event that is an error, the status.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Object {
    pub(super) metadata: ObjectMeta,
    pub(super) address_type: String,
    #[serde(deserialize_with = "few::<ENDPOINTS_MAX, _, _>")]
    pub(super) endpoints: Vec<WireEndpoint>,
    #[serde(deserialize_with = "few::<PORTS_MAX, _, _>")]
    pub(super) ports: Vec<WirePort>,
    /// Of a status.
    pub(super) code: u16,
    /// Of a status.
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ObjectMeta {
    pub(super) name: String,
    pub(super) resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireEndpoint {
    #[serde(deserialize_with = "few::<ADDRESSES_MAX, _, _>")]
    pub(super) addresses: Vec<String>,
    pub(super) conditions: Option<Conditions>,
}

/// Not given: `ready` is true, `serving` is as `ready`, and `terminating` is false.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WirePort {
    pub(super) name: Option<String>,
    /// `None`: every port.
    pub(super) port: Option<i64>,
    /// `None`: TCP.
    pub(super) protocol: Option<String>,
}

/// Slices that are asked for at a time.
pub(super) const PAGE: usize = 50;
/// Endpoints of a slice, which is Kubernetes' own limit, as are the next two.
const ENDPOINTS_MAX: usize = 1_000;
/// Ports of a slice.
const PORTS_MAX: usize = 100;
/// Addresses of an endpoint.
const ADDRESSES_MAX: usize = 100;
