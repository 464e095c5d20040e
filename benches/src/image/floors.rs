//! The least that has to be done: the layers decompressed, by the same decompressor; and hashed.

use super::{Place, contender};
use crate::area::{Contender, Role};
use flate2::bufread::MultiGzDecoder;
use std::io::{BufReader, Read};
use std::sync::Arc;

/// One buffer as large as a decompressor likes it.
const BUFFER: usize = 1 << 20;

pub(super) fn of(place: &Arc<Place>) -> Vec<Contender> {
    vec![
        contender("inflate only", Role::Floor, place, |place, _| {
            let image = place.image()?;
            let mut buffer = vec![0; BUFFER];
            for number in 0..image.layers().len() {
                let blob = BufReader::with_capacity(BUFFER, image.blob(number)?);
                let mut archive = MultiGzDecoder::new(blob);
                while archive.read(&mut buffer)? > 0 {}
            }
            Ok(())
        }),
        contender("inflate, sha256 of both, in turn", Role::Floor, place, |place, _| {
            let image = place.image()?;
            for number in 0..image.layers().len() {
                image.read_layer(number)?.finish()?;
            }
            Ok(())
        }),
    ]
}
