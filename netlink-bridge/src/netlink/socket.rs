//! A conversation with the kernel: a batch out, an answer to each of its messages back.

use super::decode::{Malformed, Verdict, messages};
use super::encode::{Batch, Sent};
use super::route::Link;
use crate::{Error, ErrorKind, Operation, sys};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, send, socket_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The kernel answers at once, and goes on at once; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much as the kernel ever puts into one datagram.
const LONGEST_DATAGRAM: usize = 32 << 10;
/// How often a list is asked for again that changed while the kernel made it.
const LISTINGS: usize = 16;

/// Types of messages that every netlink protocol has.
const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The netlink families that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Route,
    Netfilter,
}

/// A netlink socket of one network namespace, for any thread: one conversation at a time.
#[derive(Debug)]
pub(crate) struct Session {
    fd: OwnedFd,
    state: Mutex<State>,
}

struct State {
    /// Of the next message.
    sequence: u32,
    buffer: Vec<u8>,
}

/// Without the buffer: nobody wants to read that much.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open(protocol: Protocol) -> Result<Self, Error> {
        let failed = |call| move |errno: Errno| Error::os(Operation::OpenSocket, call, errno.raw_os_error());
        let protocol = match protocol {
            // NETLINK_ROUTE is 0, the default.
            Protocol::Route => None,
            Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
        let fd = fd.map_err(failed("socket"))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            sys::set_netlink_option(fd.as_fd(), option).map_err(failed("setsockopt"))?;
        }
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE)).map_err(failed("setsockopt"))?;
        Ok(Session { fd, state: Mutex::new(State { sequence: 1, buffer: vec![0; LONGEST_DATAGRAM] }) })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a batch and brings an answer to each of its messages, in their order.
    ///
    /// An error means that not all answers came: what was asked for may or may not have been done.
    pub(crate) fn run(&self, batch: Batch) -> Result<Answers, Error> {
        self.run_keeping(batch, &|_| true)
    }

    /// As [`run`](Self::run), but of what was asked for only that which `keep` wants.
    pub(crate) fn run_keeping(&self, mut batch: Batch, keep: Keep<'_>) -> Result<Answers, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LISTINGS {
            let (answers, interrupted) = self.once(&mut state, &mut batch, keep)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(lost(&batch, "the list changed each time that it was asked for"))
    }

    fn once(
        &self,
        state: &mut MutexGuard<'_, State>,
        batch: &mut Batch,
        keep: Keep<'_>,
    ) -> Result<(Answers, bool), Error> {
        let first = state.sequence;
        // A batch is short: it never has as many messages as there are numbers.
        state.sequence = first.wrapping_add(u32::try_from(batch.sent().len()).unwrap_or(u32::MAX));
        let bytes = batch.number(first);
        let sent = loop {
            match send(&self.fd, bytes, SendFlags::empty()) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        sent.map_err(|errno| broken(batch, "sendto", errno))?;
        let mut until = Instant::now() + PATIENCE;
        let mut desk = Desk { keep, ..Desk::new(first, batch.sent()) };
        while desk.open > 0 {
            if Instant::now() > until {
                return Err(lost(batch, "the kernel did not answer in time"));
            }
            if let Some(datagram) = self.receive(batch, &mut state.buffer)? {
                desk.take(datagram).map_err(|Malformed| lost(batch, "the kernel's reply makes no sense"))?;
                // A list may be so long that all of it takes longer.
                until = Instant::now() + PATIENCE;
            }
        }
        let interrupted = desk.interrupted;
        Ok((Answers(desk.answers), interrupted))
    }

    /// One datagram; none if the wait was interrupted by a signal or it does not come from the kernel.
    fn receive<'b>(&self, batch: &Batch, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, Error> {
        // TRUNC: the true length, also of what does not fit.
        let (_, length, from) = match recvfrom(&self.fd, &mut *buffer, RecvFlags::TRUNC) {
            Err(Errno::INTR) => return Ok(None),
            other => other.map_err(|errno| broken(batch, "recvfrom", errno))?,
        };
        let from_kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        if !from_kernel {
            return Ok(None);
        }
        buffer.get(..length).map(Some).ok_or_else(|| lost(batch, "the kernel's reply is too long"))
    }
}

/// Whether a reply's payload is of use.
pub(super) type Keep<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Sorts what arrives to the messages that it answers.
struct Desk<'a> {
    first: u32,
    sent: &'a [Sent],
    answers: Vec<Answer>,
    /// How many are without a verdict.
    open: usize,
    interrupted: bool,
    keep: Keep<'a>,
}

impl<'a> Desk<'a> {
    fn new(first: u32, sent: &'a [Sent]) -> Self {
        let answers = sent.iter().map(|_| Answer::default()).collect();
        let open = sent.iter().filter(|sent| !sent.mark).count();
        Desk { first, sent, answers, open, interrupted: false, keep: &|_| true }
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), Malformed> {
        for message in messages(datagram) {
            let message = message?;
            // What answers an earlier batch, whose answers nobody waited for, counts downwards from here.
            let place = usize::try_from(message.sequence.wrapping_sub(self.first)).map_err(|_| Malformed)?;
            let (Some(sent), Some(answer)) = (self.sent.get(place), self.answers.get_mut(place)) else {
                continue;
            };
            self.interrupted |= sent.dump && message.flags & NLM_F_DUMP_INTR != 0;
            let verdict = match message.kind {
                NOOP => continue,
                ERROR => hook::replaced(Verdict::parse(message.flags, message.payload, true)?),
                DONE if sent.dump => hook::replaced(Verdict::parse(message.flags, message.payload, false)?),
                reply if reply == sent.reply => {
                    if (self.keep)(message.payload) {
                        answer.replies.push(message.payload.to_vec());
                    }
                    continue;
                }
                _ => return Err(Malformed),
            };
            if answer.verdict.is_some() {
                return Err(Malformed);
            }
            answer.verdict = Some(judge(sent, verdict));
            // A transaction that fails as a whole says so once, and nothing about its messages.
            self.open = if sent.mark { 0 } else { self.open.saturating_sub(1) };
        }
        Ok(())
    }
}

/// The answers in a datagram, or nothing if it makes no sense.
#[cfg(any(test, feature = "test-hooks"))]
pub(super) fn read(batch: &Batch, datagram: &[u8]) -> Option<Answers> {
    let mut desk = Desk::new(1, batch.sent());
    desk.take(datagram).ok()?;
    Some(Answers(desk.answers))
}

/// The one place at which tests can replace the kernel's answers.
mod hook {
    use super::Verdict;

    #[cfg(not(feature = "test-hooks"))]
    pub(super) fn replaced(verdict: Verdict) -> Verdict {
        verdict
    }

    #[cfg(feature = "test-hooks")]
    pub(super) fn replaced(mut verdict: Verdict) -> Verdict {
        if let Some(errno) = crate::test_hooks::next_answer() {
            verdict.errno = errno;
        }
        verdict
    }
}

fn judge(sent: &Sent, verdict: Verdict) -> Result<(), Error> {
    if verdict.errno == 0 {
        return Ok(());
    }
    let attribute = verdict.offset.and_then(|offset| sent.attribute_at(offset));
    let error = Error::os(sent.operation, sent.call, verdict.errno).about(sent.object_at(verdict.offset));
    Err(error.with_message(verdict.message, attribute))
}

/// The kernel's answer to one message.
#[derive(Debug, Default)]
struct Answer {
    verdict: Option<Result<(), Error>>,
    /// The payloads of what it was asked for.
    replies: Vec<Vec<u8>>,
}

/// The kernel's answers to a batch.
#[derive(Debug)]
pub(crate) struct Answers(Vec<Answer>);

impl Answers {
    /// Nothing, or the first error.
    pub(crate) fn all(self) -> Result<(), Error> {
        self.0.into_iter().filter_map(|answer| answer.verdict).collect()
    }

    /// As [`all`](Self::all), but it does not matter if something is there already.
    pub(crate) fn all_there(self) -> Result<(), Error> {
        let verdicts = self.0.into_iter().filter_map(|answer| answer.verdict);
        verdicts.filter(|verdict| !matches!(verdict, Err(e) if e.kind() == ErrorKind::AlreadyExists)).collect()
    }

    /// As [`all`](Self::all), but it does not matter if something is not there any more.
    pub(crate) fn all_gone(self) -> Result<(), Error> {
        let gone = |e: &Error| matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV));
        let verdicts = self.0.into_iter().filter_map(|answer| answer.verdict);
        verdicts.filter(|verdict| !matches!(verdict, Err(e) if gone(e))).collect()
    }

    /// The verdict on the first message, and what the second asked for.
    pub(crate) fn done_and_link(self) -> (Result<(), Error>, Result<Option<Link>, Error>) {
        let mut answers = self.0.into_iter();
        let done = answers.next().and_then(|answer| answer.verdict).unwrap_or(Ok(()));
        (done, Answers(answers.collect()).link())
    }

    /// The link that the only message asked for; `None` if there is none.
    pub(crate) fn link(self) -> Result<Option<Link>, Error> {
        self.one(&[libc::ENODEV], Link::parse)
    }

    /// What the only message asked for; `None` if there is none, which the kernel says by one of these errnos.
    pub(super) fn one<T>(
        self,
        none: &[i32],
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Error> {
        let Some(answer) = self.0.into_iter().next() else {
            return Ok(None);
        };
        answer.one(none, parse)
    }

    /// As [`one`](Self::one), for each of several messages.
    pub(super) fn each<T>(
        self,
        none: &[i32],
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<Option<T>>, Error> {
        self.0.into_iter().map(|answer| answer.one(none, &parse)).collect()
    }

    /// Nothing, if what the only message was to delete has been deleted or was not there.
    pub(crate) fn gone(self) -> Result<(), Error> {
        self.link().map(drop)
    }

    /// The links that the only message asked for.
    pub(crate) fn links(self) -> Result<Vec<Link>, Error> {
        self.list(Link::parse)
    }

    /// The list that the only message asked for.
    pub(super) fn list<T>(self, parse: impl Fn(&[u8]) -> Result<T, Malformed>) -> Result<Vec<T>, Error> {
        let Some(answer) = self.0.into_iter().next() else {
            return Ok(Vec::new());
        };
        answer.verdict.unwrap_or(Ok(()))?;
        answer.replies.iter().map(|reply| parse(reply).map_err(|Malformed| senseless())).collect()
    }
}

impl Answer {
    fn one<T>(self, none: &[i32], parse: impl Fn(&[u8]) -> Result<T, Malformed>) -> Result<Option<T>, Error> {
        match self.verdict {
            Some(Err(error)) if error.raw_os_error().is_some_and(|errno| none.contains(&errno)) => Ok(None),
            Some(Err(error)) => Err(error),
            _ => self.replies.first().map(|reply| parse(reply).map_err(|Malformed| senseless())).transpose(),
        }
    }
}

fn senseless() -> Error {
    Error::words(ErrorKind::Protocol, Operation::OpenSocket, "the kernel's reply makes no sense")
}

/// A system call failed in a conversation.
fn broken(batch: &Batch, call: &'static str, errno: Errno) -> Error {
    let error = about_first(batch, |operation| Error::os(operation, call, errno.raw_os_error()));
    match (call, errno) {
        // The time is over; or answers were dropped, because there was no room for them.
        ("recvfrom", Errno::AGAIN | Errno::NOBUFS) => error.with_kind(ErrorKind::Protocol),
        _ => error,
    }
}

fn lost(batch: &Batch, words: &'static str) -> Error {
    about_first(batch, |operation| Error::words(ErrorKind::Protocol, operation, words))
}

fn about_first(batch: &Batch, error: impl FnOnce(Operation) -> Error) -> Error {
    let first = batch.sent().first();
    let error = error(first.map_or(Operation::OpenSocket, |sent| sent.operation));
    match first {
        Some(sent) => error.about(&sent.object),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn two_messages() -> Batch {
        let mut batch = Batch::new();
        batch.loopback_up();
        batch.find_link(Operation::OpenBridge, "br0");
        batch
    }

    /// An acknowledgement as the kernel sends it.
    fn verdict(sequence: u32, errno: u32) -> Vec<u8> {
        let words = [36, 2 | 0x100 << 16, sequence, 77, 0u32.wrapping_sub(errno), 32, 19, sequence, 77];
        words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    }

    #[test]
    fn every_message_wants_its_own_verdict() {
        let batch = two_messages();
        let mut desk = Desk::new(u32::MAX, batch.sent());
        // Of an earlier batch, or of a later one: nobody waits for it.
        for sequence in [u32::MAX - 1, 1, 1000] {
            desk.take(&verdict(sequence, 0)).unwrap();
        }
        assert_eq!(desk.open, 2);
        desk.take(&verdict(0, 17)).unwrap();
        assert_eq!(desk.open, 1);
        assert_eq!(desk.take(&verdict(0, 0)), Err(Malformed), "a second verdict on the same message");
        desk.take(&verdict(u32::MAX, 0)).unwrap();
        assert_eq!(desk.open, 0);
        let error = Answers(desk.answers).all().unwrap_err();
        assert_eq!(error.to_string(), "find the bridge: RTM_GETLINK(\"br0\"): File exists (os error 17)");
    }

    /// Any of its messages says that the list has changed meanwhile: it is no list, and is asked for again.
    #[test]
    fn a_list_that_changed_while_it_was_made() {
        let mut batch = Batch::new();
        batch.list_routes(Operation::Inspect, true);
        let [route, end] = [24u32, 3].map(|kind| {
            let body: &[u8] = if kind == 3 { &[0; 4] } else { &[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0] };
            move |flags: u32| {
                let length = u32::try_from(16 + body.len()).unwrap();
                let head = [length, kind | (2 | flags) << 16, 9, 77].map(u32::to_ne_bytes).concat();
                [&head, body].concat()
            }
        });
        for (datagram, interrupted) in [
            ([route(0), end(0)].concat(), false),
            ([route(0x10), end(0)].concat(), true),
            ([route(0), end(0x10)].concat(), true),
        ] {
            let mut desk = Desk::new(9, batch.sent());
            desk.take(&datagram).unwrap();
            assert_eq!((desk.open, desk.interrupted), (0, interrupted), "{datagram:?}");
            assert_eq!(Answers(desk.answers).routes().unwrap().len(), 1);
        }
    }

    #[test]
    fn an_end_of_a_list_that_nobody_asked_for() {
        let batch = two_messages();
        let mut done = verdict(5, 0);
        done[4] = 3;
        assert_eq!(Desk::new(5, batch.sent()).take(&done), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_datagrams(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..6)) {
            let batch = two_messages();
            let mut desk = Desk::new(0, batch.sent());
            for datagram in datagrams {
                let _ = desk.take(&datagram);
            }
            prop_assert!(desk.open <= 2);
        }

        /// The kernel's own, with damage.
        #[test]
        fn damaged_datagrams(damage in prop::collection::vec((0usize..72, any::<u8>()), 0..4), length in 0usize..=72) {
            let batch = two_messages();
            let mut datagram = [verdict(1, 0), verdict(2, 19)].concat();
            for (at, value) in damage {
                datagram[at] = value;
            }
            datagram.truncate(length);
            let mut desk = Desk::new(1, batch.sent());
            let _ = desk.take(&datagram);
            let given = desk.answers.iter().filter(|answer| answer.verdict.is_some()).count();
            prop_assert_eq!(desk.open, 2 - given);
        }
    }
}
