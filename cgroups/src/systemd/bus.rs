//! The messages: `org.freedesktop.systemd1(5)` by zbus.

use std::time::Duration;

use futures_lite::StreamExt;
use futures_lite::future::{or, ready};
use zbus::message::Type;
use zbus::zvariant::{OwnedObjectPath, Value as Variant};
use zbus::{Connection, MatchRule, Message, MessageStream};

use crate::error::{Error, ErrorKind, Op, Result};
use crate::systemd::failed;
use crate::systemd::properties::Value;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// If no answer has come then, none will.
const ANSWER: Duration = Duration::from_secs(25);

pub(super) type Property = (&'static str, Value);

#[derive(Debug)]
pub(super) struct Bus(Connection);

/// The end of a job: its number, its path, the unit, the result.
type JobRemoved = (u32, OwnedObjectPath, String, String);

impl Bus {
    pub(super) fn connect(address: &str) -> Result<Self> {
        let builder = zbus::connection::Builder::address(address)
            .map_err(|_| Error::invalid(address, "D-Bus address", "the form is unix:path=/run/…"))?;
        let connection = async_io::block_on(builder.method_timeout(ANSWER).build());
        connection.map(Bus).map_err(|error| failed(Op::Connect, address).with_note(error.to_string()))
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

    /// What the unit's own interface says, whose name its type has.
    pub(super) fn cgroup(&self, unit: &str) -> Result<String> {
        let found = match self.call(Op::Read, unit, "GetUnit", &(unit,)) {
            // A service that has ended already.
            Err(error) if error.kind() == ErrorKind::Gone => return Ok(String::new()),
            found => found?,
        };
        let path: OwnedObjectPath = body(Op::Read, unit, &found)?;
        let kind = unit.rsplit('.').next().unwrap_or_default();
        let interface = match kind {
            "service" => "org.freedesktop.systemd1.Service",
            "slice" => "org.freedesktop.systemd1.Slice",
            _ => "org.freedesktop.systemd1.Scope",
        };
        let asked = (interface, "ControlGroup");
        let call = self.0.call_method(Some(NAME), &path, Some(PROPERTIES), "Get", &asked);
        let answer = async_io::block_on(call).map_err(|error| explain(Op::Read, unit, &error))?;
        let answer: zbus::zvariant::OwnedValue = body(Op::Read, unit, &answer)?;
        String::try_from(answer).map_err(|error| failed(Op::Read, unit).with_note(error.to_string()))
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
        let job = async {
            let failed = |error: zbus::Error| explain(op, unit, &error);
            let rule = MatchRule::builder().msg_type(Type::Signal).interface(MANAGER).map_err(failed)?;
            let rule = rule.member("JobRemoved").map_err(failed)?.path(PATH).map_err(failed)?.build();
            // Before the job is there: it may end before the answer has come.
            let mut ended = MessageStream::for_match_rule(rule, &self.0, Some(1024)).await.map_err(failed)?;
            match self.0.call_method(Some(NAME), PATH, Some(MANAGER), "Subscribe", &()).await {
                // By another thread, or an earlier job: once is enough for a connection.
                Err(error) if is_named(&error, "org.freedesktop.systemd1.AlreadySubscribed") => {}
                subscribed => drop(subscribed.map_err(failed)?),
            }
            let answer = self.0.call_method(Some(NAME), PATH, Some(MANAGER), method, body).await.map_err(failed)?;
            let job: OwnedObjectPath = self::body(op, unit, &answer)?;
            loop {
                let Some(signal) = ended.next().await else {
                    return Err(self::failed(op, unit).with_note("the connection was closed"));
                };
                let (_, path, _, result): JobRemoved = self::body(op, unit, &signal.map_err(failed)?)?;
                if path == job {
                    return outcome(op, unit, &result);
                }
            }
        };
        let late = async {
            async_io::Timer::after(timeout).await;
            ready(Err(Error::new(ErrorKind::TimedOut, op, unit))).await
        };
        async_io::block_on(or(job, late))
    }
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
        "org.freedesktop.DBus.Error.UnknownMethod" | "org.freedesktop.DBus.Error.PropertyReadOnly" => {
            ErrorKind::Unsupported
        }
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
