//! What is wanted of a container's files.

use super::{Backend, InitLayer};
use crate::{Fallbacks, SpaceLimit};

/// What is wanted of a container's files: plain data. By default an overlay, without an init layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub struct ContainerSpec {
    /// What is between the layers and what the container writes.
    pub init: InitLayer,
    /// How its files are kept.
    pub backend: Backend,
    /// What may be done instead where the kernel is older, at each of its mounts. By default nothing.
    pub fallbacks: Fallbacks,
    /// How much it may write. By default as much as there is.
    pub limit: Option<SpaceLimit>,
}

impl ContainerSpec {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the init layer.
    pub fn init(mut self, init: InitLayer) -> Self {
        self.init = init;
        self
    }

    /// Sets how the files are kept.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Sets how much it may write. It is kept with the container.
    pub fn limit(mut self, limit: SpaceLimit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets what may be done instead where the kernel is older. It is kept with the container.
    pub fn fallbacks(mut self, fallbacks: Fallbacks) -> Self {
        self.fallbacks = fallbacks;
        self
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::{LayerId, LimitMethod};

    #[test]
    fn a_spec_is_plain_data() {
        let spec = ContainerSpec::new().init(InitLayer::usual().file("/etc/hosts", "x")).backend(Backend::Copy);
        let limit = SpaceLimit::new().bytes(1 << 30).methods([LimitMethod::Image, LimitMethod::Tmpfs]);
        let spec = spec.fallbacks(Fallbacks::MOUNT).limit(limit);
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ContainerSpec>(&text).unwrap(), spec);
        assert_eq!(serde_json::from_str::<ContainerSpec>("{}").unwrap(), ContainerSpec::new());
        let limited = serde_json::from_str::<ContainerSpec>(r#"{"limit":{"inodes":5}}"#).unwrap();
        assert_eq!(limited.limit, Some(SpaceLimit::new().inodes(5)));
        assert!(serde_json::from_str::<ContainerSpec>(r#"{"backends":"copy"}"#).is_err());
        assert_eq!(serde_json::from_str::<Backend>("\"copy\"").unwrap(), Backend::Copy);
        // What is read is checked as what is made.
        assert!(serde_json::from_str::<LayerId>("\"../x\"").is_err());
    }
}
