//! What whoever prepares a node wants to know of a cluster beside its records.

use std::collections::BTreeMap;

use buoy_api::meta::Extra;
use buoy_core::store::StoreError;
use serde_json::Value as Json;

use super::Kubernetes;
use super::api::Request;
use super::trouble::Trouble;
use crate::codec::objects::ApiResource;

/// How many of each resource are named.
const NAMED: usize = 3;

/// Network policies of a cluster, of Kubernetes' kind and of Calico's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// A few of them, each with its resource, as `kubectl get` takes them.
    pub some: Vec<String>,
    /// There are others.
    pub more: bool,
}

impl Kubernetes {
    /// The cluster's network policies. A resource that the server does not know has none.
    pub fn policies(&self) -> Result<Policies, StoreError> {
        let mut policies = Policies::default();
        for resource in ApiResource::POLICIES {
            // One more tells whether there are others.
            let url = format!("{}?limit={}", resource.path(None), NAMED + 1);
            let names = match self.ask(&Request::list(resource, url)) {
                Ok(list) => names(&list),
                Err(Trouble::Undefined(_)) => continue,
                Err(trouble) => return Err(self.shared.error(trouble)),
            };
            policies.more |= names.len() > NAMED;
            let named = names.iter().take(NAMED);
            policies
                .some
                .extend(named.map(|name| format!("{} {name}", resource.name())));
        }
        Ok(policies)
    }

    /// What a ConfigMap says; nothing, if there is none.
    pub fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, StoreError> {
        let resource = ApiResource::CONFIG_MAPS;
        let url = format!("{}/{name}", resource.path(Some(namespace)));
        match self.ask(&Request::get(resource, url)) {
            Ok(object) => Ok(Some(texts(&object))),
            Err(Trouble::Missing) => Ok(None),
            Err(trouble) => Err(self.shared.error(trouble)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Extra, Trouble> {
        self.shared.threads.wait(self.shared.api.call(request))
    }
}

/// Names of a list's objects, with their namespaces.
fn names(list: &Extra) -> Vec<String> {
    let items = list.get("items").and_then(Json::as_array).into_iter().flatten();
    items
        .map(|item| {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default();
            match text("namespace") {
                "" => text("name").to_owned(),
                namespace => format!("{namespace}/{}", text("name")),
            }
        })
        .collect()
}

fn texts(config_map: &Extra) -> BTreeMap<String, String> {
    let data = config_map
        .get("data")
        .and_then(Json::as_object)
        .into_iter()
        .flatten();
    data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
