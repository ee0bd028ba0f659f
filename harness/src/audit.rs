//! What the operator rendered, held against the cluster's own domain. Pure: objects in, names out.

mod name;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use catwalk_fixtures::ClusterDomain;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sight::Dial;
use name::{Own, Says};

/// A name of another cluster domain in a rendered object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignName {
    /// `Deployment calico-system/whisker`
    pub object: String,
    /// `spec.template.spec.containers[whisker-backend].env[GOLDMANE_HOST]`: an element that has a name by it, another
    /// by its number.
    pub field: String,
    /// The name as it is written, without a final dot.
    pub name: String,
}

impl fmt::Display for ForeignName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}, {}", self.name, self.object, self.field)
    }
}

/// What an audit saw, raw.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// Of every rendered object, the names of cluster domains in it.
    Rendered {
        /// The cluster's own domain.
        domain: ClusterDomain,
        /// How many objects were looked at.
        objects: usize,
        /// How many different full names of the cluster's own domain are in them.
        own: usize,
        /// The names of other cluster domains, sorted.
        foreign: Vec<ForeignName>,
    },
    /// Of every full name of the cluster's own domain in a rendered object, what serves it.
    Served {
        /// How many objects were looked at.
        objects: usize,
        /// The names, sorted.
        names: Vec<FullName>,
    },
}

/// A Service's full name in rendered objects, and what serves it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FullName {
    /// `goldmane.calico-system.svc.corp.internal`
    pub name: String,
    /// `goldmane.calico-system`
    pub service: String,
    /// The objects that name it, sorted.
    pub named_by: Vec<String>,
    /// Whether there is such a Service. Goldmane names guardian's on every cluster.
    pub exists: bool,
    /// The way from the name, as an absolute one, to the certificate that answers; none without a Service.
    pub dial: Option<Dial>,
    /// Why that way ends with the name's address, if it was meant to.
    pub not_dialled: Option<String>,
}

/// The names of cluster domains in some objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Names of other cluster domains.
    pub foreign: BTreeSet<ForeignName>,
    /// Full names of Services in the cluster's own domain, in lower case, with their Service and the objects that
    /// name them.
    pub full: BTreeMap<String, (String, BTreeSet<String>)>,
}

/// Finds every name of a cluster domain in the objects, as [`Environment::rendered`] gives them.
///
/// A name is looked for in all strings of an object but its status, who owns and manages it, what kubectl keeps in an
/// annotation, images (the node resolves these, not the cluster), and comments in texts.
///
/// [`Environment::rendered`]: crate::environment::Environment::rendered
pub fn names(objects: &[Value], domain: &ClusterDomain) -> Named {
    let own = Own::new(domain);
    let mut named = Named::default();
    for object in objects {
        let title = title(object);
        walk::strings(object, &mut |field, text| {
            for name in name::tokens(text) {
                match own.says(name) {
                    Says::Nothing => {}
                    Says::Foreign => {
                        let (field, name) = (field.to_owned(), name.to_owned());
                        named.foreign.insert(ForeignName { object: title.clone(), field, name });
                    }
                    Says::Full { service } => {
                        let entry = named.full.entry(name.to_ascii_lowercase());
                        entry.or_insert_with(|| (service, BTreeSet::new())).1.insert(title.clone());
                    }
                }
            }
        });
    }
    named
}

/// `Deployment calico-system/whisker`, `Namespace calico-system`
pub fn title(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    match text("/metadata/namespace") {
        "" => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests;
