//! The model of a union against the kernel's.

use crate::support::{Place, Random, cases, mounted};
use crate::tree::random_layer;
use cofferdam_testkit::union::{Facts, paths, seen};
use cofferdam_unionfs::Form;
use cofferdam_unionfs::model::{Directory, merge};
use std::fs;
use std::path::PathBuf;

/// Random layers on disk, topmost first, with their models.
pub(crate) fn random_layers(place: &Place, random: &mut Random, count: u64) -> Vec<(PathBuf, Directory<Facts>)> {
    (0..count)
        .map(|number| {
            let path = place.layer(&format!("layers/{number}"), &[]);
            let model = random_layer(random, &path, place.form, number);
            (path, model)
        })
        .collect()
}

pub(crate) fn random_stacks_show_what_the_model_says(form: Form) {
    let place = Place::new(form);
    let mut entries = 0;
    for case in 0..cases(500) {
        let mut random = Random::new(case);
        let count = random.below(4) + 1;
        let layers = random_layers(&place, &mut random, count);
        let models: Vec<_> = layers.iter().map(|(_, model)| model).collect();
        let folders: Vec<_> = layers.iter().map(|(path, _)| path).collect();
        let expected = paths(&merge(&models).expect("a layer"));
        let shown = seen(&mounted(&place.overlay(&folders)).path(""), form);
        assert_eq!(shown, expected, "case {case}: {layers:#?}");
        entries += shown.len();
        fs::remove_dir_all(place.path().join("layers")).expect("is removed");
    }
    assert!(entries > 100, "{entries} entries");
}
