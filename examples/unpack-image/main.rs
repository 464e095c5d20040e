//! An image's files: unpacked as layers for an overlay mount, or flattened into one tree.
//!
//! Read [`unpack`] first. What it makes is built beside DEST and takes its place only when everything is there and verified.

mod bar;
mod options;
mod report;
mod staging;

use bar::Bars;
use cofferdam_image::{Image, Layers, Options, Report};
use cofferdam_unionfs::Form;
use options::{Command, Destination, HELP, Mode, Source};
use staging::Staging;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// Whatever went wrong, in one line.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let command = match options::parse(lexopt::Parser::from_env()) {
        Ok(Command::Unpack(command)) => command,
        Ok(Command::Help) => {
            // To whoever still reads it.
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            say(&format!("{why}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    match run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&why.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Destination) -> Result<()> {
    let reports = unpack(command)?;
    if command.json {
        // Whoever reads it no more has still got the files.
        let _ = writeln!(io::stdout(), "{}", report::json(&reports)?);
        return Ok(());
    }
    for (number, report) in reports.iter().enumerate() {
        for skipped in &report.skipped {
            say(&format!("layer {number}: left out {skipped}"));
        }
    }
    Ok(())
}

/// Opens the image, unpacks it beside DEST, and puts it there.
fn unpack(command: &Destination) -> Result<Vec<Report>> {
    let options = how(command);
    let (layers, sizes) = open(&command.source, options)?;
    let staging = Staging::beside(&command.dest)?;
    let bars = Bars::new(sizes);
    let layers = layers.observer(Arc::clone(&bars) as _);
    let reports = match command.mode {
        Mode::Flatten => layers.flatten(staging.make("scratch")?, staging.make("tree")?),
        Mode::Overlay => {
            let stages: Result<Vec<File>> = (0..bars.count()).map(|number| staging.make_in_tree(number)).collect();
            layers.unpack(&stages?)
        }
    };
    bars.end();
    let reports = reports?;
    staging.publish()?;
    Ok(reports)
}

/// Root can have everything as it is. Others have what they can; strictly, they fail where that is not all.
fn how(command: &Destination) -> Options {
    let root = nix::unistd::geteuid().is_root();
    let options = match command.policy {
        _ if root => Options::new(),
        cofferdam_image::Policy::Strict => Options::new().form(Form::User),
        _ => Options::rootless(),
    };
    options.policy(command.policy)
}

/// The layers, and the lengths of their blobs.
fn open(source: &Source, options: Options) -> Result<(Layers, Vec<u64>)> {
    let image = match source {
        Source::Layers(files) => return loose(files, options),
        Source::Oci(dir, selection) => Image::open(dir, selection)?,
        Source::DockerArchive(file, selection) => Image::open_archive(file, selection)?,
    };
    let sizes = image.layers().iter().map(|layer| layer.size).collect();
    Ok((image.all_layers(options)?, sizes))
}

fn loose(files: &[std::path::PathBuf], options: Options) -> Result<(Layers, Vec<u64>)> {
    let (mut layers, mut sizes) = (Layers::new(options), Vec::new());
    for path in files {
        let file = File::open(path).map_err(|e| format!("{path:?}: {e}"))?;
        sizes.push(file.metadata().map_err(|e| format!("{path:?}: {e}"))?.len());
        layers = layers.layer(file);
    }
    Ok((layers, sizes))
}

/// One line on standard error, whatever is in it.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "unpack-image: {}", what.replace(char::is_control, " "));
}
