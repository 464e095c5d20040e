//! The messages: `org.freedesktop.systemd1(5)` by zbus.

use std::time::Duration;

use futures_lite::StreamExt;
use futures_lite::future::{or, yield_now};
use zbus::message::Type;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value as Variant};
use zbus::{Connection, MatchRule, Message, MessageStream};

use crate::error::{Error, ErrorKind, Op, Result};
use crate::systemd::failed;
use crate::systemd::properties::Value;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// If no answer has come then, none will.
const ANSWER: Duration = Duration::from_secs(25);

pub(super) type Property = (&'static str, Value);

#[derive(Debug)]
pub(super) struct Bus(Connection);

/// The end of a job: its number, its path, the unit, the result.
type JobRemoved = (u32, OwnedObjectPath, String, String);

impl Bus {
    /// Connects, at most for as long as an answer may take: who listens there may be silent.
    pub(super) fn connect(address: &str) -> Result<Self> {
        Self::connect_within(address, ANSWER)
    }

    fn connect_within(address: &str, time: Duration) -> Result<Self> {
        let builder = zbus::connection::Builder::address(address)
            .map_err(|_| Error::invalid(address, "D-Bus address", "the form is unix:path=/run/…"))?;
        let connect = async {
            let connection = builder.method_timeout(ANSWER).build().await;
            connection.map(Bus).map_err(|error| failed(Op::Connect, address).with_note(error.to_string()))
        };
        within(time, connect, || Error::new(ErrorKind::TimedOut, Op::Connect, address))
    }

    pub(super) fn start(&self, unit: &str, properties: &[Property], timeout: Duration) -> Result<()> {
        let start = || {
            let properties: Vec<_> = properties.iter().map(|(name, value)| (*name, variant(value))).collect();
            let others: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
            self.run_job(Op::Start, unit, timeout, "StartTransientUnit", &(unit, "fail", properties, others))
        };
        match start() {
            // One that has failed is remembered under its name.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.call(Op::Start, unit, "ResetFailedUnit", &(unit,)).map_err(|_| error)?;
                start()
            }
            result => result,
        }
    }

    pub(super) fn stop(&self, unit: &str, timeout: Duration) -> Result<()> {
        self.run_job(Op::Stop, unit, timeout, "StopUnit", &(unit, "replace"))
    }

    pub(super) fn set(&self, unit: &str, properties: &[Property]) -> Result<()> {
        let properties: Vec<_> = properties.iter().map(|(name, value)| (*name, variant(value))).collect();
        // Until it ends, not for ever.
        self.call(Op::Write, unit, "SetUnitProperties", &(unit, true, properties)).map(drop)
    }

    /// `None`: a service that has ended already, a unit with nothing in it.
    pub(super) fn cgroup(&self, unit: &str) -> Result<Option<String>> {
        match self.property(unit, "ControlGroup") {
            Err(error) if error.kind() == ErrorKind::Gone => Ok(None),
            path => path.map(|path: String| Some(path).filter(|path| !path.is_empty())),
        }
    }

    /// How often the quota of CPU time is filled up, in microseconds. `None` where systemd has no such property, which is
    /// before version 242.
    pub(super) fn cpu_period(&self, unit: &str) -> Result<Option<u64>> {
        match self.property(unit, "CPUQuotaPeriodUSec") {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
            period => period.map(Some),
        }
    }

    /// What the unit's own interface says, whose name its type has.
    fn property<T>(&self, unit: &str, name: &str) -> Result<T>
    where
        T: TryFrom<OwnedValue, Error: std::fmt::Display>,
    {
        let found = self.call(Op::Read, unit, "GetUnit", &(unit,))?;
        let path: OwnedObjectPath = body(Op::Read, unit, &found)?;
        let kind = unit.rsplit('.').next().unwrap_or_default();
        let interface = match kind {
            "service" => "org.freedesktop.systemd1.Service",
            "slice" => "org.freedesktop.systemd1.Slice",
            "socket" => "org.freedesktop.systemd1.Socket",
            "mount" => "org.freedesktop.systemd1.Mount",
            "swap" => "org.freedesktop.systemd1.Swap",
            _ => "org.freedesktop.systemd1.Scope",
        };
        let asked = (interface, name);
        let call = self.0.call_method(Some(NAME), &path, Some(PROPERTIES), "Get", &asked);
        let answer = async_io::block_on(call).map_err(|error| explain(Op::Read, unit, &error))?;
        let answer: OwnedValue = body(Op::Read, unit, &answer)?;
        T::try_from(answer).map_err(|error| failed(Op::Read, unit).with_note(error.to_string()))
    }

    fn call<B>(&self, op: Op, unit: &str, method: &str, body: &B) -> Result<Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let call = self.0.call_method(Some(NAME), PATH, Some(MANAGER), method, body);
        async_io::block_on(call).map_err(|error| explain(op, unit, &error))
    }

    /// Asks for something that is a job of systemd's, and waits for its end.
    fn run_job<B>(&self, op: Op, unit: &str, timeout: Duration, method: &str, body: &B) -> Result<()>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let failed = |error: zbus::Error| explain(op, unit, &error);
        let job = async {
            // Before the job is there: it may end before the answer has come.
            let mut ends = Ends::listen(&self.0).await.map_err(failed)?;
            let call = self.0.call_method(Some(NAME), PATH, Some(MANAGER), "Subscribe", &());
            match ends.during(call).await {
                // By another thread, or an earlier job: once is enough for a connection.
                Err(error) if is_named(&error, "org.freedesktop.systemd1.AlreadySubscribed") => {}
                subscribed => drop(subscribed.map_err(failed)?),
            }
            let call = self.0.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &(NAME,));
            ends.owner = self::body(op, unit, &ends.during(call).await.map_err(failed)?)?;
            let call = self.0.call_method(Some(NAME), PATH, Some(MANAGER), method, body);
            let answer = ends.during(call).await.map_err(failed)?;
            if !is_from(&answer, &ends.owner) {
                return Err(self::failed(op, unit).with_note("another systemd has taken over meanwhile"));
            }
            let job: OwnedObjectPath = self::body(op, unit, &answer)?;
            let result = ends.of(&job).await.map_err(failed)?;
            outcome(op, unit, &result)
        };
        within(timeout, job, || Error::new(ErrorKind::TimedOut, op, unit))
    }
}

/// Ends of jobs, as systemd tells them. Whoever is on the bus can send such a signal to us, whatever rule of matching we
/// have, so that it counts only if its sender is the name's owner. All that comes must be taken off the queue at once:
/// behind it is everything else on the connection.
struct Ends {
    signals: MessageStream,
    /// Nobody, until it is known.
    owner: String,
    early: Vec<(OwnedObjectPath, String)>,
}

impl Ends {
    async fn listen(connection: &Connection) -> zbus::Result<Self> {
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(NAME)?.path(PATH)?;
        let rule = rule.interface(MANAGER)?.member("JobRemoved")?.build();
        let signals = MessageStream::for_match_rule(rule, connection, Some(1024)).await?;
        Ok(Ends { signals, owner: String::new(), early: Vec::new() })
    }

    async fn next(&mut self) -> zbus::Result<(OwnedObjectPath, String)> {
        loop {
            let Some(signal) = self.signals.next().await else {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into());
            };
            let signal = signal?;
            if is_from(&signal, &self.owner)
                && let Ok((_, job, _, result)) = signal.body().deserialize::<JobRemoved>()
            {
                return Ok((job, result));
            }
            // However many there are, the answer and the clock are looked at.
            yield_now().await;
        }
    }

    /// Waits for the answer to a call.
    async fn during(&mut self, call: impl Future<Output = zbus::Result<Message>>) -> zbus::Result<Message> {
        let listen = async {
            loop {
                let end = self.next().await?;
                self.early.push(end);
                yield_now().await;
            }
        };
        or(call, listen).await
    }

    /// Waits for the end of this job, and returns its result.
    async fn of(mut self, job: &OwnedObjectPath) -> zbus::Result<String> {
        if let Some((_, result)) = self.early.into_iter().find(|(ended, _)| ended == job) {
            return Ok(result);
        }
        self.early = Vec::new();
        loop {
            let (ended, result) = self.next().await?;
            if ended == *job {
                return Ok(result);
            }
            yield_now().await;
        }
    }
}

/// The bus itself writes the sender of each message.
fn is_from(message: &Message, owner: &str) -> bool {
    message.header().sender().is_some_and(|sender| sender.as_str() == owner)
}

/// Waits, at most for this long.
fn within<T>(time: Duration, work: impl Future<Output = Result<T>>, late: impl FnOnce() -> Error) -> Result<T> {
    let clock = async {
        async_io::Timer::after(time).await;
        Err(late())
    };
    async_io::block_on(or(work, clock))
}

fn outcome(op: Op, unit: &str, result: &str) -> Result<()> {
    match result {
        "done" => Ok(()),
        "timeout" => Err(Error::new(ErrorKind::TimedOut, op, unit).with_note("systemd waited in vain")),
        result => Err(failed(op, unit).with_note(format!("systemd's job has ended: {}", result.escape_debug()))),
    }
}

fn body<'m, T>(op: Op, unit: &str, message: &'m Message) -> Result<T>
where
    T: serde::de::DeserializeOwned + zbus::zvariant::Type + 'm,
{
    let body = message.body();
    body.deserialize()
        .map_err(|error: zbus::Error| Error::new(ErrorKind::Malformed, op, unit).with_note(error.to_string()))
}

fn is_named(error: &zbus::Error, wanted: &str) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == wanted)
}

/// systemd's errors by their names: `org.freedesktop.systemd1(5)`.
fn explain(op: Op, unit: &str, error: &zbus::Error) -> Error {
    let zbus::Error::MethodError(name, text, _) = error else {
        return failed(op, unit).with_note(error.to_string());
    };
    let kind = match name.as_str() {
        "org.freedesktop.systemd1.UnitExists" => ErrorKind::AlreadyExists,
        "org.freedesktop.systemd1.NoSuchUnit" => ErrorKind::Gone,
        "org.freedesktop.systemd1.NoSuchProcess"
        | "System.Error.ESRCH"
        | "org.freedesktop.DBus.Error.UnixProcessIdUnknown" => ErrorKind::NoProcess,
        "org.freedesktop.DBus.Error.AccessDenied" | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
            ErrorKind::PermissionDenied
        }
        "org.freedesktop.DBus.Error.UnknownMethod"
        | "org.freedesktop.DBus.Error.UnknownProperty"
        | "org.freedesktop.DBus.Error.PropertyReadOnly" => ErrorKind::Unsupported,
        "org.freedesktop.DBus.Error.NoReply" => ErrorKind::TimedOut,
        _ => ErrorKind::Os,
    };
    let text = text.as_deref().unwrap_or_default();
    Error::new(kind, op, unit).with_note(format!("{}: {}", name.as_str(), text.escape_debug()))
}

/// A value in the type that systemd expects.
fn variant(value: &Value) -> Variant<'_> {
    match value {
        Value::Bool(on) => Variant::from(*on),
        Value::Number(number) => Variant::from(*number),
        Value::Text(text) => Variant::from(text.as_str()),
        Value::Bits(bits) => Variant::from(bits.clone()),
        Value::Processes(processes) => Variant::from(processes.clone()),
        Value::Numbers(list) => Variant::from(list.clone()),
        Value::Rules(list) => Variant::from(list.clone()),
        Value::Program(program, arguments) => Variant::from(vec![(program.clone(), arguments.clone(), false)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that accepts, and says nothing; and one that does not even accept.
    #[test]
    fn a_silent_bus_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        for accepts in [true, false] {
            let path = folder.path().join(if accepts { "accepts" } else { "full" });
            let bus = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let address = format!("unix:path={}", path.display());
            let connect = || Bus::connect_within(&address, Duration::from_millis(100)).unwrap_err();
            let error = std::thread::scope(|scope| {
                let accepted = accepts.then(|| scope.spawn(|| bus.accept().unwrap()));
                let error = connect();
                drop(accepted.map(|thread| thread.join().unwrap()));
                error
            });
            assert_eq!((error.kind(), error.operation()), (ErrorKind::TimedOut, "connect to"), "{error}");
        }
    }
}
