//! Capabilities, as `--cap-add` and `--cap-drop` of bwrap count them.

use cofferdam_namespaces::{Capabilities, Capability, CapabilitySet};

/// What the program is to have in all five sets, if one of the two options is given at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rights {
    asked: bool,
    set: CapabilitySet,
}

impl Rights {
    /// Before any option: what root has, and nothing for others.
    pub(crate) fn new(uid: u32, effective: CapabilitySet) -> Self {
        Rights { asked: false, set: if uid == 0 { effective } else { CapabilitySet::EMPTY } }
    }

    pub(crate) fn add(&mut self, name: &str) -> Result<(), String> {
        self.set = self.set | named(name)?;
        self.asked = true;
        Ok(())
    }

    pub(crate) fn drop(&mut self, name: &str) -> Result<(), String> {
        self.set = self.set - named(name)?;
        self.asked = true;
        Ok(())
    }

    pub(crate) fn capabilities(self) -> Option<Capabilities> {
        self.asked.then(|| Capabilities::none().with_ambient(self.set))
    }
}

fn named(name: &str) -> Result<CapabilitySet, String> {
    if name == "ALL" {
        return Ok(CapabilitySet::all());
    }
    name.parse::<Capability>().map(CapabilitySet::from).map_err(|error| error.to_string())
}

/// Of `/proc/self/status`: the effective set.
pub(crate) fn effective(status: &str) -> CapabilitySet {
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let has = |one: &Capability| bits.unwrap_or(0) >> one.number() & 1 == 1;
    Capability::ALL.iter().copied().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_has_is_where_root_begins() {
        let effective = effective("Name:\tx\nCapEff:\t0000000000000021\n");
        assert_eq!(effective, CapabilitySet::from([Capability::Chown, Capability::Kill]));
        let mut root = Rights::new(0, effective);
        assert_eq!(root.capabilities(), None, "nothing was said");
        root.drop("CAP_KILL").unwrap();
        let chown = Capabilities::none().with_ambient([Capability::Chown]);
        assert_eq!(root.capabilities(), Some(chown));
        let mut user = Rights::new(1000, effective);
        user.add("ALL").unwrap();
        user.drop("ALL").unwrap();
        user.add("cap_chown").unwrap();
        assert_eq!(user.capabilities(), Some(chown));
        assert!(user.add("CAP_NONE").unwrap_err().contains("CAP_NONE"));
    }
}
