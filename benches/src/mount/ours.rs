//! cofferdam and its floor.

use super::Place;
use crate::Result;
use crate::area::{Contender, Role, Sample};
use crate::floor::mount::Floor;
use cofferdam_unionfs::{Layer, Overlay};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How the lowers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// As paths, which a mount opens.
    Paths,
    /// As paths, and it is said that no root is opaque, as a layer from a store says by itself.
    Known,
    /// As descriptors that are open already.
    Descriptors,
}

/// Our library. The spec is made once, as by a program that starts one container after the other of an image.
///
/// # Errors
/// If a layer cannot be opened.
pub fn cofferdam(place: &Arc<Place>, given: Given) -> Result<Contender> {
    let layer = |path: PathBuf| -> Result<Layer> {
        Ok(match given {
            Given::Paths => path.into(),
            Given::Known => Layer::from(path).root_is_opaque(false),
            Given::Descriptors => File::open(path)?.into(),
        })
    };
    let lowers: Vec<Layer> = place.lowers().into_iter().map(layer).collect::<Result<_>>()?;
    let mut overlay = Overlay::new().lowers(lowers);
    if let Some(writable) = place.writable() {
        overlay = overlay.writable(writable);
    }
    Ok(contender("cofferdam", Role::Cofferdam, place, move || Ok(overlay.mount()?)))
}

/// The least that the kernel asks for.
///
/// # Errors
/// None that is known: no path has a zero byte.
pub fn floor(place: &Arc<Place>) -> Result<Contender> {
    let name = |path: PathBuf| CString::new(path.into_os_string().into_vec());
    let lowers = place.lowers().into_iter().map(name).collect::<std::result::Result<_, _>>()?;
    let writable = place.writable().map(|layer| (Arc::clone(layer.upper()), Arc::clone(layer.work())));
    let floor = Floor { lowers, writable };
    Ok(contender("floor", Role::Floor, place, move || Ok(floor.mount()?)))
}

/// Mounts, looks, drops the mount. The look is not timed: it would be the same for all.
fn contender(
    name: &str,
    role: Role,
    place: &Arc<Place>,
    mount: impl Fn() -> Result<OwnedFd> + Send + Sync + 'static,
) -> Contender {
    let (place, mount) = (Arc::clone(place), Arc::new(mount));
    Contender::new(name, role, move || {
        let (place, mount) = (Arc::clone(&place), Arc::clone(&mount));
        move || {
            let start = Instant::now();
            let root = mount()?;
            let returned = start.elapsed();
            place.check(&root)?;
            let start = Instant::now();
            drop(root);
            Ok(Sample { whole: returned + start.elapsed(), returned })
        }
    })
}
