//! The options of an overlay: typed, checked against each other, and as the kernel wants them. Pure.

use crate::{Error, Form, Operation};

/// Whether a directory that exists in a lower can be renamed, and whether such renames in layers are followed.
///
/// The kernel's `redirect_dir=off` is not here: it means *follow* or *nofollow*, as the module was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum RedirectDir {
    /// Renaming is refused with `EXDEV`, and tools copy instead. A redirect that is found in a layer is refused: it
    /// could have been put there by whoever made the layer.
    #[default]
    NoFollow,
    /// Renaming is refused as before, redirects that are found in layers are followed.
    Follow,
    /// Renaming works and leaves redirects in the upper, which can then only be mounted with `Follow` or `On`.
    On,
}

/// Whether inode numbers carry the layer in their high bits, so that they are unique across file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Xino {
    /// No.
    #[default]
    Off,
    /// If the file systems below leave enough bits free.
    Auto,
    /// Yes, whatever the file systems say.
    On,
}

/// What is asked of the overlay itself, apart from its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "so many options are on or off, independently")]
pub(crate) struct Options {
    pub(crate) form: Form,
    pub(crate) index: bool,
    pub(crate) redirect_dir: RedirectDir,
    pub(crate) metacopy: bool,
    pub(crate) nfs_export: bool,
    pub(crate) volatile: bool,
    pub(crate) xino: Xino,
}

/// One option as `fsconfig(2)` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Flag(&'static str),
    Value(&'static str, &'static str),
}

impl Options {
    /// Refuses what the kernel would refuse with a bare `EINVAL`.
    pub(crate) fn check(self, has_upper: bool) -> Result<(), Error> {
        let refuse = |object: &str, words| Err(Error::invalid(Operation::Check, object, words));
        if self.form == Form::User && self.redirect_dir != RedirectDir::NoFollow {
            return refuse("redirect_dir", "does not go together with user.* attributes");
        }
        if self.form == Form::User && self.metacopy {
            return refuse("metacopy", "does not go together with user.* attributes");
        }
        if self.metacopy && has_upper && self.redirect_dir != RedirectDir::On {
            return refuse("metacopy", "with an upper needs redirect_dir=on");
        }
        if self.metacopy && self.redirect_dir == RedirectDir::NoFollow {
            return refuse("metacopy", "needs redirects to be followed");
        }
        if self.nfs_export && !self.index && has_upper {
            return refuse("nfs_export", "with an upper needs index=on");
        }
        if self.nfs_export && self.metacopy {
            return refuse("nfs_export", "does not go together with metacopy=on");
        }
        if self.volatile && !has_upper {
            return refuse("volatile", "is about an upper, and there is none");
        }
        Ok(())
    }

    /// All of them, also where they are the kernel's usual defaults: those depend on how the module was built and loaded.
    pub(crate) fn settings(self) -> impl Iterator<Item = Setting> {
        let on_off = |on| if on { "on" } else { "off" };
        let redirect_dir = match self.redirect_dir {
            RedirectDir::NoFollow => "nofollow",
            RedirectDir::Follow => "follow",
            RedirectDir::On => "on",
        };
        let xino = match self.xino {
            Xino::Off => "off",
            Xino::Auto => "auto",
            Xino::On => "on",
        };
        [
            (self.form == Form::User).then_some(Setting::Flag("userxattr")),
            Some(Setting::Value("index", on_off(self.index))),
            Some(Setting::Value("redirect_dir", redirect_dir)),
            Some(Setting::Value("metacopy", on_off(self.metacopy))),
            Some(Setting::Value("xino", xino)),
            // Off, it is what the kernel makes of index=off anyway.
            self.nfs_export.then_some(Setting::Value("nfs_export", "on")),
            self.volatile.then_some(Setting::Flag("volatile")),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Setting::{Flag, Value};

    #[test]
    fn the_defaults_are_said_aloud() {
        let settings: Vec<_> = Options::default().settings().collect();
        let defaults =
            [Value("index", "off"), Value("redirect_dir", "nofollow"), Value("metacopy", "off"), Value("xino", "off")];
        assert_eq!(settings, defaults);
        let user = Options { form: Form::User, volatile: true, ..Options::default() };
        assert_eq!(user.settings().next(), Some(Flag("userxattr")));
        assert_eq!(user.settings().last(), Some(Flag("volatile")));
    }

    #[test]
    fn what_does_not_go_together() {
        let plain = Options::default();
        let user = Options { form: Form::User, ..plain };
        let meta = Options { metacopy: true, ..plain };
        for (options, has_upper, fine) in [
            (plain, true, true),
            (plain, false, true),
            (user, true, true),
            (Options { redirect_dir: RedirectDir::On, ..user }, true, false),
            (Options { redirect_dir: RedirectDir::Follow, ..user }, true, false),
            (Options { metacopy: true, ..user }, true, false),
            (meta, true, false),
            (meta, false, false),
            (Options { redirect_dir: RedirectDir::Follow, ..meta }, true, false),
            (Options { redirect_dir: RedirectDir::Follow, ..meta }, false, true),
            (Options { redirect_dir: RedirectDir::On, ..meta }, true, true),
            (Options { nfs_export: true, ..plain }, true, false),
            (Options { nfs_export: true, ..plain }, false, true),
            (Options { nfs_export: true, index: true, ..plain }, true, true),
            (Options { nfs_export: true, redirect_dir: RedirectDir::Follow, ..meta }, false, false),
            (Options { volatile: true, ..plain }, true, true),
            (Options { volatile: true, ..plain }, false, false),
            (Options { volatile: true, ..user }, true, true),
        ] {
            assert_eq!(options.check(has_upper).is_ok(), fine, "{options:?}, upper: {has_upper}");
        }
    }
}
