//! A fuzzer's target: whatever a datagram says, it is read or refused. A plain function, for `cargo fuzz` and for the test below.

use super::socket::read;
use super::{Answers, Batch};
use crate::firewall::{Element, Set};
use crate::{Operation, Protocol, name};

/// What can be asked of the kernel, one message each.
const QUESTIONS: u8 = 11;

fn question(which: u8) -> Batch {
    let (mut batch, operation) = (Batch::new(), Operation::Inspect);
    match which % QUESTIONS {
        0 => batch.find_link(operation, "br0"),
        1 => batch.list_ports((operation, "br0"), 7),
        2 => batch.list_routes(operation, true),
        3 => batch.list_addresses((operation, "br0"), 7),
        4 => batch.find_table(operation),
        5 => batch.find_element(operation, &Element::of_bridge(Set::Networks, "br0", String::new())),
        6 => batch.list_elements(operation, Set::Ports4),
        7 => batch.list_chains(operation),
        8 => batch.list_rules(operation),
        9 => batch.find_generation(operation),
        _ => batch.list_connections(operation, 2, Protocol::Udp.number(), None),
    }
    batch
}

/// Reads a datagram as the kernel's answer to the question that its first byte chooses, and does with it what is done with such an answer.
pub fn replies(data: &[u8]) {
    let Some((which, datagram)) = data.split_first() else { return };
    let Some(answers) = read(&question(*which), datagram) else { return };
    // No more than there can be in so many bytes.
    debug_assert!(understood(*which, answers) <= datagram.len() / 4 + 1);
}

/// How many things the answers are of.
fn understood(which: u8, answers: Answers) -> usize {
    let links =
        |links: Vec<super::Link>| links.iter().filter(|link| link.alias.as_deref().is_some_and(is_ours)).count();
    let stored = |set: Set, elements: Vec<crate::firewall::Stored>| {
        let mut bytes = 0;
        for element in elements {
            bytes += usize::from(element.tag.as_deref().is_some_and(|tag| name::EndpointTag::parse(tag).is_some()));
            bytes += usize::from(!element.into_element(set).to_string().is_empty());
        }
        bytes
    };
    let count = match which % QUESTIONS {
        0 => answers.link().map(|link| links(link.into_iter().collect())),
        1 => answers.links().map(links),
        2 => answers.routes().map(|routes| routes.iter().filter(|route| route.leads_to_a_subnet()).count()),
        3 => answers.addresses_of(7).map(|addresses| addresses.len()),
        4 => answers.table().map(|table| usize::from(table.is_some())),
        5 => answers.elements().map(|elements| stored(Set::Networks, elements.into_iter().flatten().collect())),
        6 => answers.element_list().map(|elements| stored(Set::Ports4, elements)),
        7 => answers.chains().map(|chains| chains.len()),
        8 => answers.rules().map(|rules| rules.len()),
        9 => answers.generation().map(|generation| usize::from(generation.is_some())),
        _ => answers.connections().map(|connections| connections.iter().filter(|c| c.goes_out()).count()),
    };
    count.unwrap_or_else(|error| usize::from(!error.to_string().is_empty()))
}

fn is_ours(alias: &str) -> bool {
    name::owner(alias).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{CHAINS, RULES};
    use crate::netlink::{Pair, PortFlags, Transaction};
    use std::os::fd::AsFd;

    /// How often the target is run in a test; with `COFFERDAM_TEST_LONG` a million times.
    const RUNS: u32 = 30_000;

    /// A question's number, and a datagram that answers it: those of the batch's messages of which its answer is, since what makes a thing is written
    /// as the kernel describes it.
    fn seed(which: u8, mut batch: Batch) -> Vec<u8> {
        let reply = question(which).sent()[0].reply;
        let bytes = batch.number(1).to_vec();
        let (mut rest, mut seed) = (bytes.as_slice(), vec![which]);
        while let Some((length, _)) = super::super::decode::take_u32(rest) {
            let (message, after) = rest.split_at(length.next_multiple_of(4) as usize);
            if message[4..6] == reply.to_ne_bytes() {
                seed.extend_from_slice(&message[..8]);
                seed.extend_from_slice(&1u32.to_ne_bytes());
                seed.extend_from_slice(&message[12..]);
            }
            rest = after;
        }
        seed
    }

    fn seeds_of_links() -> Vec<Vec<u8>> {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mac = crate::Mac::new([2, 0, 0, 0, 0, 9]);
        let (port, interface) = ("cd-web", "eth0");
        let pair = Pair { port, port_mac: mac, bridge: 7, group: 9, mtu: 1500, netns: file.as_fd(), interface, mac };
        let subnet: crate::Subnet = "10.88.0.1/16".parse().unwrap();
        let one = |which, fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            fill(&mut batch);
            seed(which, batch)
        };
        let flags = PortFlags { isolated: true, hairpin: true };
        let up = |batch: &mut Batch| batch.tag_and_up_port((Operation::Inspect, "x"), 7, "cofferdam:me", flags);
        vec![
            one(0, &|batch| batch.create_pair(&pair)),
            one(1, &|batch| batch.create_pair(&pair)),
            one(0, &up),
            one(1, &up),
            one(2, &|batch| batch.route_to(7, subnet, [10, 88, 0, 9].into())),
            one(3, &|batch| batch.add_address(Operation::Inspect, 7, subnet)),
        ]
    }

    fn seeds_of_rules() -> Vec<Vec<u8>> {
        let of = |which, fill: &dyn Fn(&mut Transaction<'_>)| {
            seed(which, Batch::transaction(Operation::Inspect, Some(3), |t| fill(t)))
        };
        let bridge = [Element::of_subnet("br0", "10.88.0.0/16".parse().unwrap(), "br0 me".into())];
        let tag = "cd-web 02:00:00:00:00:09 br0 me";
        let port = |n: u16| Element::of_port(None, (Protocol::Tcp, n), ([10, 88, 0, 2].into(), 80), tag.into());
        let ports: Vec<_> = (8000..8003).map(port).collect();
        let mut seeds = vec![of(4, &|t| t.table("a comment")), of(7, &|t| t.empty_chain(&CHAINS[0]))];
        for which in [5, 6] {
            seeds.extend([of(which, &|t| t.add(&ports)), of(which, &|t| t.add(&bridge))]);
        }
        seeds.extend(RULES.iter().map(|rule| of(8, &|t| t.rule(rule))));
        seeds
    }

    /// All kinds of answers, and to each question a refusal in the kernel's words.
    fn seeds() -> Vec<Vec<u8>> {
        let refusal = [
            &60u32.to_ne_bytes()[..],
            &[2, 0, 0, 3],
            &1u32.to_ne_bytes(),
            &[0; 4],
            &(-17i32).to_ne_bytes(),
            &[32, 0, 0, 0, 18, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0],
            &[16, 0, 1, 0],
            b"no such one\0",
            &[8, 0, 2, 0, 24, 0, 0, 0],
        ];
        let refusal = refusal.concat();
        let refusals = (0..QUESTIONS).map(|which| [&[which][..], &refusal].concat());
        seeds_of_links().into_iter().chain(seeds_of_rules()).chain(refusals).collect()
    }

    /// `SplitMix64`: the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
        }
    }

    /// Some of what happens to bytes: one changed, a length changed, some cut out, some doubled, the end cut off, another's put in.
    fn mutate(random: &mut Random, data: &mut Vec<u8>, others: &[Vec<u8>]) {
        const VALUES: [u8; 8] = [0, 1, 3, 4, 0x7f, 0x80, 0xfe, 0xff];
        if data.is_empty() {
            return;
        }
        let at = random.below(data.len());
        let end = (at + 1 + random.below(24)).min(data.len());
        match random.below(6) {
            0 => data[at] = VALUES[random.below(8)],
            1 => data[at] ^= 1 << random.below(8),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            4 => data.truncate(at + 1),
            _ => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                data.splice(at.., other[from..].iter().copied());
            }
        }
    }

    #[test]
    fn seeds_are_understood() {
        let mut questions = std::collections::BTreeSet::new();
        for seed in seeds() {
            let answers = read(&question(seed[0]), &seed[1..]).unwrap_or_else(|| panic!("{seed:?}"));
            understood(seed[0], answers);
            questions.insert(seed[0]);
        }
        assert_eq!(questions.len(), usize::from(QUESTIONS));
    }

    #[test]
    fn mutated_replies() {
        let (seeds, mut random) = (seeds(), Random(9));
        let runs = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { 1_000_000 } else { RUNS };
        for _ in 0..runs {
            let mut data = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut random, &mut data, &seeds);
            }
            replies(&data);
        }
    }
}
