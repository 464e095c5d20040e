//! An image's config: what a process of it should be started with.

use crate::document::{null_is_empty, parse};
use crate::{Digest, Error, ErrorKind, Operation};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What an image says about the process to start: program, environment, working directory, user.
///
/// All of it was chosen by whoever made the image.
#[derive(Debug, Clone)]
pub struct Config {
    parsed: Parsed,
    diff_ids: Vec<Digest>,
    json: Vec<u8>,
}

#[derive(Debug, Clone, Deserialize)]
struct Parsed {
    os: Option<String>,
    architecture: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    config: Process,
    rootfs: RootFs,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    // Go writes a set as an object of empty objects.
    #[serde(deserialize_with = "null_is_empty")]
    volumes: BTreeMap<String, Nothing>,
    #[serde(deserialize_with = "null_is_empty")]
    exposed_ports: BTreeMap<String, Nothing>,
    #[serde(deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    cmd: Vec<String>,
}

/// An empty object, in which others may put something one day.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
struct Nothing(#[expect(dead_code, reason = "nobody knows what it means")] serde_json::Value);

#[derive(Debug, Clone, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    sort: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    diff_ids: Vec<String>,
}

impl Config {
    pub(crate) fn parse(json: Vec<u8>) -> Result<Self, Error> {
        let parsed: Parsed = parse(&json, Operation::ReadConfig)?;
        if parsed.rootfs.sort != "layers" {
            let error =
                Error::new(ErrorKind::Unsupported, Operation::ReadConfig, "is not a known type of root file system");
            return Err(error.about(parsed.rootfs.sort));
        }
        let diff_ids: Result<Vec<Digest>, Error> = parsed.rootfs.diff_ids.iter().map(|text| text.parse()).collect();
        Ok(Config { diff_ids: diff_ids?, parsed, json })
    }

    /// The program and its arguments: [`entrypoint`](Self::entrypoint), then [`cmd`](Self::cmd). Can be empty.
    #[must_use]
    pub fn command(&self) -> Vec<&str> {
        self.entrypoint().iter().chain(self.cmd()).map(String::as_str).collect()
    }

    /// What always comes first in the command line.
    #[must_use]
    pub fn entrypoint(&self) -> &[String] {
        &self.parsed.config.entrypoint
    }

    /// What follows [`entrypoint`](Self::entrypoint) unless the user gives something else.
    #[must_use]
    pub fn cmd(&self) -> &[String] {
        &self.parsed.config.cmd
    }

    /// The environment: names and values.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parsed.config.env.iter().map(|var| var.split_once('=').unwrap_or((var, "")))
    }

    /// The working directory.
    #[must_use]
    pub fn working_directory(&self) -> Option<&str> {
        self.parsed.config.working_dir.as_deref().filter(|s| !s.is_empty())
    }

    /// The user, as it stands there: `user`, `uid`, `user:group`, `uid:gid` and so on, names being those of the image's own `/etc/passwd`.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.parsed.config.user.as_deref().filter(|s| !s.is_empty())
    }

    /// The signal that asks the process to end, as it stands there: `SIGTERM`, `15`. By default `SIGTERM`.
    #[must_use]
    pub fn stop_signal(&self) -> Option<&str> {
        self.parsed.config.stop_signal.as_deref().filter(|s| !s.is_empty())
    }

    /// Directories that are meant to be mounted from outside.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.parsed.config.volumes.keys().map(String::as_str)
    }

    /// Ports that the process listens on, as they stand there: `80/tcp`.
    pub fn exposed_ports(&self) -> impl Iterator<Item = &str> {
        self.parsed.config.exposed_ports.keys().map(String::as_str)
    }

    /// Labels: names and values.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parsed.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The operating system that it is for, in Go's words.
    #[must_use]
    pub fn os(&self) -> Option<&str> {
        self.parsed.os.as_deref()
    }

    /// The architecture that it is for, in Go's words.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        self.parsed.architecture.as_deref()
    }

    /// The digests of the layers' archives, lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// The document itself, with all that has no accessor here: health check, onbuild, history.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(text: &str) -> Result<Config, Error> {
        Config::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn everything_is_there() {
        let id = Digest::of(b"x");
        let json = format!(
            r#"{{"os":"linux","architecture":"amd64","history":[],"config":{{"User":"app:staff","WorkingDir":"/srv",
            "Env":["PATH=/bin","A=b=c","EMPTY"],"StopSignal":"SIGINT","Volumes":{{"/data":{{}}}},"ExposedPorts":{{"80/tcp":{{}}}},"Labels":{{"a":"b"}},"Entrypoint":["/init"],"Cmd":["-v"],"Healthcheck":{{"Test":["x"]}}}},
            "rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
        );
        let config = config(&json).unwrap();
        assert_eq!(config.command(), ["/init", "-v"]);
        assert!(config.env().eq([("PATH", "/bin"), ("A", "b=c"), ("EMPTY", "")]));
        assert_eq!((config.user(), config.working_directory()), (Some("app:staff"), Some("/srv")));
        assert_eq!(config.stop_signal(), Some("SIGINT"));
        assert!(config.volumes().eq(["/data"]) && config.exposed_ports().eq(["80/tcp"]));
        assert!(config.labels().eq([("a", "b")]));
        assert_eq!((config.os(), config.architecture()), (Some("linux"), Some("amd64")));
        assert_eq!(config.diff_ids(), [id]);
        assert_eq!(config.json(), json.as_bytes(), "unknown fields are kept");
    }

    #[test]
    fn nothing_is_there_as_go_writes_it() {
        for inner in ["null", "{}", r#"{"Env":null,"Entrypoint":null,"Cmd":null,"User":"","WorkingDir":""}"#] {
            let json = format!(r#"{{"config":{inner},"rootfs":{{"type":"layers","diff_ids":null}}}}"#);
            let config = config(&json).unwrap();
            assert!(config.command().is_empty() && config.env().next().is_none());
            assert_eq!((config.user(), config.working_directory()), (None, None));
        }
    }

    #[test]
    fn what_is_no_config() {
        for (json, kind) in [
            ("", ErrorKind::Malformed),
            ("{}", ErrorKind::Malformed),
            (r#"{"rootfs":{"type":"ostree"}}"#, ErrorKind::Unsupported),
            (r#"{"rootfs":{"type":"layers","diff_ids":["sha256:.."]}}"#, ErrorKind::Malformed),
            (r#"{"config":{"Env":"A=b"},"rootfs":{"type":"layers"}}"#, ErrorKind::Malformed),
        ] {
            assert_eq!(config(json).unwrap_err().kind(), kind, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,200}") {
            let _ = config(&text);
        }
    }
}
