//! cofferdam: the whole image flattened, every layer verified.

use super::{Place, contender};
use crate::area::{Contender, Role};
use cofferdam_image::{Options, Policy};
use std::fs::{File, create_dir, remove_dir};
use std::sync::Arc;

pub(super) fn flatten(place: &Arc<Place>) -> Contender {
    contender("cofferdam", Role::Cofferdam, place, |place, made| {
        let scratch = made.with_file_name("scratch");
        create_dir(&scratch)?;
        create_dir(made)?;
        let layers = place.image()?.all_layers(Options::new().policy(Policy::Lenient))?;
        layers.flatten(File::open(&scratch)?, File::open(made)?)?;
        Ok(remove_dir(scratch)?)
    })
}
