//! Bringing the rules of a host to what is wanted. What that is stands in [`crate::firewall`].

use crate::firewall::{CHAINS, Element, RULES, Set, Stored, TABLE, TABLE_COMMENT};
use crate::netlink::{Batch, Connection, MESSAGES_PER_SEND, Transaction, by_bytes, is_to};
use crate::{Endpoint, Error, ErrorKind, Host, Operation, Protocol};
use std::collections::BTreeSet;

/// Of elements that are changed in one send: the kernel takes no more than its buffer's size, usually 208 KiB.
const BYTES_PER_SEND: usize = 64 << 10;
/// How often a change is tried again that somebody else's came before.
const ATTEMPTS: usize = 64;
/// So many ports are looked for one by one.
const PORTS_ASKED_FOR: usize = 8;
/// The kernel's answer to a transaction that was meant for an earlier generation of the rules.
const ERESTART: i32 = 85;

/// The elements that are to be there, and those that are not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ElementChanges {
    pub(crate) add: Vec<Element>,
    pub(crate) remove: Vec<Element>,
}

impl ElementChanges {
    /// What must be done so that of `found`, which is all that is ours, becomes `wanted`.
    pub(crate) fn between(found: &[(Set, Stored)], wanted: &[Element]) -> Self {
        let differs = |wanted: &&Element| !found.iter().any(|(set, found)| *set == wanted.set && wanted.is(found));
        let unwanted = |(set, found): &&(Set, Stored)| !wanted.iter().any(|w| *set == w.set && w.is(found));
        let remove = found.iter().filter(unwanted).map(|(set, found)| found.clone().into_element(*set));
        ElementChanges { add: wanted.iter().filter(differs).cloned().collect(), remove: remove.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// As much of it as fits into one send: what is to be removed comes first.
    fn first_send(&self) -> Self {
        let first = |elements: &[Element], most| by_bytes(elements, most).next().unwrap_or_default().to_vec();
        let remove = first(&self.remove, BYTES_PER_SEND);
        let add = if remove.len() == self.remove.len() { first(&self.add, BYTES_PER_SEND) } else { Vec::new() };
        ElementChanges { add, remove }
    }
}

/// How much is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Elements alone; nothing if none is to be changed.
    Elements,
    /// The table with its chains, rules and sets too, whatever is there of it.
    WholeTable,
}

fn write_table(t: &mut Transaction<'_>) {
    t.table(TABLE_COMMENT);
    for chain in CHAINS {
        t.empty_chain(chain);
    }
    for (number, set) in (1..).zip(Set::all()) {
        t.set(set, number);
    }
    for rule in RULES {
        t.rule(rule);
    }
}

fn change(transaction: &mut Transaction<'_>, changes: &ElementChanges) {
    transaction.remove(&changes.remove);
    transaction.add(&changes.add);
}

/// Refuses if there is a table of the name that is not ours. Tells whether there is one.
pub(crate) fn has_table(host: &Host, operation: Operation) -> Result<bool, Error> {
    let mut batch = Batch::new();
    batch.find_table(operation);
    let table = host.netfilter()?.run(batch)?.table();
    // So netfilter answers to messages for a part of it that is not there.
    let unsupported = |error: Error| match error.raw_os_error() {
        Some(libc::EINVAL) => error.with_kind(ErrorKind::Unsupported),
        _ => error,
    };
    match table.map_err(unsupported)? {
        None => Ok(false),
        Some(comment) if comment == TABLE_COMMENT => Ok(true),
        Some(_) => {
            let words = "the table belongs to somebody else, or to another version of this crate";
            Err(Error::words(ErrorKind::Foreign, operation, words).about(TABLE))
        }
    }
}

/// What is there under the keys of these elements.
pub(crate) fn find(host: &Host, operation: Operation, elements: &[Element]) -> Result<Vec<Option<Stored>>, Error> {
    let mut found = Vec::with_capacity(elements.len());
    for some in elements.chunks(MESSAGES_PER_SEND) {
        let mut batch = Batch::new();
        for element in some {
            batch.find_element(operation, element);
        }
        found.extend(host.netfilter()?.run(batch)?.elements()?);
    }
    Ok(found)
}

/// All elements of these sets, each once: the kernel lists one twice when it makes the set's table larger or smaller meanwhile.
pub(crate) fn list(host: &Host, operation: Operation, sets: &[Set]) -> Result<Vec<(Set, Stored)>, Error> {
    let mut found = Vec::new();
    for set in sets {
        let mut batch = Batch::new();
        batch.list_elements(operation, *set);
        let mut elements = host.netfilter()?.run(batch)?.element_list()?;
        elements.sort_by(|a, b| a.key.cmp(&b.key));
        elements.dedup_by(|a, b| a.key == b.key);
        found.extend(elements.into_iter().map(|element| (*set, element)));
    }
    Ok(found)
}

/// Adds elements, none of which may be there.
pub(crate) fn add(host: &Host, operation: Operation, elements: &[Element]) -> Result<(), Error> {
    for some in by_bytes(elements, BYTES_PER_SEND) {
        host.netfilter()?.run(Batch::transaction(operation, None, |t| t.add(some)))?.all().map_err(no_table)?;
    }
    Ok(())
}

/// Removes those of these elements that are there as they are here. What somebody else has put under the same key stays.
pub(crate) fn remove(host: &Host, operation: Operation, elements: &[Element]) -> Result<(), Error> {
    for some in by_bytes(elements, BYTES_PER_SEND) {
        unchanged(host, operation, Scope::Elements, || {
            let found = find(host, operation, some)?;
            let ours = some.iter().zip(found).filter(|(wanted, found)| found.as_ref().is_some_and(|f| wanted.is(f)));
            Ok(ElementChanges { remove: ours.map(|(element, _)| element.clone()).collect(), add: Vec::new() })
        })?;
    }
    Ok(())
}

/// Looks, decides, and changes, again and again until nobody has changed anything in between. What does not fit into one send is done in
/// several, with a look before each.
pub(crate) fn unchanged(
    host: &Host,
    operation: Operation,
    scope: Scope,
    look: impl Fn() -> Result<ElementChanges, Error>,
) -> Result<ElementChanges, Error> {
    let (mut done, mut failures) = (ElementChanges::default(), 0);
    while failures < ATTEMPTS {
        let generation = generation(host, operation)?;
        let wanted = look()?;
        if wanted.is_empty() && scope == Scope::Elements {
            return Ok(done);
        }
        let now = wanted.first_send();
        let batch = Batch::transaction(operation, generation, |t| {
            if scope == Scope::WholeTable {
                write_table(t);
            }
            change(t, &now);
        });
        match host.netfilter()?.run(batch)?.all() {
            Err(error) if error.raw_os_error() == Some(ERESTART) => failures += 1,
            result => {
                result.map_err(no_table)?;
                let is_all = now == wanted;
                done.add.extend(now.add);
                done.remove.extend(now.remove);
                if is_all {
                    return Ok(done);
                }
            }
        }
    }
    Err(Error::words(ErrorKind::Os, operation, "the rules change all the time").about(TABLE))
}

/// Removes the table if there is no network in it.
pub(crate) fn remove_table_unless_used(host: &Host, operation: Operation) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let generation = generation(host, operation)?;
        if !has_table(host, operation)? || !list(host, operation, &[Set::Networks])?.is_empty() {
            return Ok(());
        }
        let batch = Batch::transaction(operation, generation, |t: &mut Transaction<'_>| t.delete_table());
        match host.netfilter()?.run(batch)?.all() {
            Err(error) if error.raw_os_error() == Some(ERESTART) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            result => return result,
        }
    }
    // Others are busy with it: they will see to it.
    Ok(())
}

fn generation(host: &Host, operation: Operation) -> Result<Option<u32>, Error> {
    let mut batch = Batch::new();
    batch.find_generation(operation);
    host.netfilter()?.run(batch)?.generation()
}

fn no_table(error: Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT) => error.about(format!("table {TABLE}, which is gone, or without its sets")),
        _ => error,
    }
}

/// Forgets UDP connections to the host ports of an endpoint.
pub(crate) fn forget_connections_to(host: &Host, operation: Operation, endpoint: &Endpoint) -> Result<(), Error> {
    let udp = endpoint.ports().iter().flat_map(|ports| ports.each()).filter(|port| port.protocol == Protocol::Udp);
    forget_connections(host, operation, &udp.map(|port| port.host).collect(), |_| false)
}

/// Forgets UDP connections to these ports of the host, but for those that are as they should be: the kernel goes on doing with their packets what it
/// did with the first.
pub(crate) fn forget_connections(
    host: &Host,
    operation: Operation,
    ports: &BTreeSet<u16>,
    stays: impl Fn(&Connection) -> bool,
) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    // Of a few ports the kernel is asked for each; of more it would look at all that it has too often.
    let few = ports.len() <= PORTS_ASKED_FOR;
    let asked_for: Vec<_> = if few { ports.iter().copied().map(Some).collect() } else { vec![None] };
    let udp = Protocol::Udp.number();
    for (family, port) in [2, 10].into_iter().flat_map(|family| asked_for.iter().map(move |port| (family, *port))) {
        let mut batch = Batch::new();
        batch.list_connections(operation, family, udp, port);
        let answers = host.netfilter()?.run_keeping(batch, &|reply| is_to(reply, ports))?;
        let mut connections = answers.connections()?;
        connections.retain(|c| c.protocol == udp && ports.contains(&c.to_port) && !c.goes_out() && !stays(c));
        for some in connections.chunks(MESSAGES_PER_SEND) {
            let mut batch = Batch::new();
            for connection in some {
                batch.forget(operation, connection);
            }
            // One may have ended by itself.
            host.netfilter()?.run(batch)?.all_gone()?;
        }
    }
    Ok(())
}
