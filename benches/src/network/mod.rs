//! A container's network: from a namespace that is there to an interface on a bridge with address, routes and published ports, and until
//! that is gone again.
//!
//! All of it in network namespaces that the bench makes: one plays the host, the others are containers. Every attach is followed by a look
//! into the container (it has a default route by the interface) and, where ports were published in cofferdam's map, at the last of them; both untimed.
//! What is not timed is done by the same code for cofferdam and the floor, so that their system calls differ by what is compared.

mod by_hand;
mod messages;
#[cfg(feature = "peers")]
mod peers;
mod place;

use crate::Result;
use crate::area::{Area, Case, Contender, Plot, Ready, Role, Sample};
use crate::floor::netlink::{ROUTE, Socket};
use by_hand::Floor;
use cofferdam_netlink_bridge::NetNs;
use place::{Place, Target};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

const BY_ENDPOINTS: &str = "network-endpoints";
const BY_PORTS: &str = "network-ports";

/// See the module.
pub const AREA: Area = Area {
    name: "network",
    cases,
    plots: &[
        Plot { name: BY_ENDPOINTS, title: "Attach", x: "containers that are there", log_x: true },
        Plot { name: BY_PORTS, title: "Attach with 4 published ports", x: "ports that are published", log_x: true },
    ],
    counted: true,
};

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Attach,
    Detach,
    DetachAll,
    OpenNamespace,
}

/// What a case is about.
#[derive(Debug, Clone, Copy)]
struct Variant {
    task: Task,
    /// How many containers are there.
    there: usize,
    /// How many ports are published, by those.
    ports_there: u16,
    /// How many ports the one that is attached publishes.
    ports: u16,
}

impl Variant {
    fn name(self) -> String {
        let with = if self.ports > 0 { format!(" + {} ports", self.ports) } else { String::new() };
        match (self.task, self.ports_there) {
            (Task::Attach, 0) => format!("attach{with}, {} there", self.there),
            (Task::Attach, ports) => format!("attach{with}, {ports} ports there"),
            (Task::Detach, _) => format!("detach{with}, {} there", self.there),
            (Task::DetachAll, _) => format!("all {} detached", self.there),
            (Task::OpenNamespace, _) => "open a namespace".to_owned(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn point(self) -> Option<(&'static str, f64)> {
        match (self.task, self.ports, self.ports_there) {
            (Task::Attach, 0, _) => Some((BY_ENDPOINTS, self.there as f64)),
            (Task::Attach, _, ports) if ports > 0 => Some((BY_PORTS, f64::from(ports))),
            _ => None,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as other areas")]
fn cases(quick: bool) -> Result<Vec<Case>> {
    let counts: &[usize] = if quick { &[1, 100] } else { &[1, 100, 1000] };
    let ports: &[u16] = if quick { &[1, 5000] } else { &[1, 100, 1000, 5000] };
    let base = Variant { task: Task::Attach, there: 1, ports_there: 0, ports: 0 };
    let mut variants: Vec<Variant> = Vec::new();
    for (task, ports) in
        [(Task::Attach, 0), (Task::Attach, 4), (Task::Detach, 0), (Task::Detach, 4), (Task::DetachAll, 0)]
    {
        variants.extend(counts.iter().map(|there| Variant { task, there: *there, ports, ..base }));
    }
    variants.extend(ports.iter().map(|ports_there| Variant { ports: 4, ports_there: *ports_there, ..base }));
    variants.push(Variant { task: Task::OpenNamespace, ..base });
    Ok(variants.into_iter().map(case).collect())
}

fn case(variant: Variant) -> Case {
    Case {
        name: variant.name(),
        threads: 1,
        point: variant.point(),
        ready: Box::new(move || {
            let place = Arc::new(Place::new(variant.there, variant.ports_there)?);
            let contenders = contenders(variant, &place)?;
            Ok(Ready { contenders, held: Box::new(place) })
        }),
    }
}

fn contenders(variant: Variant, place: &Arc<Place>) -> Result<Vec<Contender>> {
    let ours = Arc::new(Target::new(0, "ours", variant.ports)?);
    let floor = Arc::new(Target::new(1, "floor", variant.ports)?);
    if variant.task == Task::DetachAll {
        // Each run attaches them anew.
        place.network.detach_all()?;
    }
    #[cfg_attr(not(feature = "peers"), expect(unused_mut, reason = "peers are added"))]
    let mut contenders: Vec<Contender> = [(Role::Cofferdam, ours), (Role::Floor, floor)]
        .iter()
        .map(|(role, target)| match variant.task {
            Task::Attach => attach(place, target, *role),
            Task::Detach => detach(place, target, *role),
            Task::DetachAll => detach_all(place, target, *role),
            Task::OpenNamespace => open(target, *role),
        })
        .collect();
    #[cfg(feature = "peers")]
    contenders.extend(peers::of(variant, place)?);
    Ok(contenders)
}

fn title(role: Role) -> &'static str {
    if role == Role::Cofferdam { "cofferdam" } else { "floor" }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let start = Instant::now();
    work()?;
    let whole = start.elapsed();
    Ok(Sample { whole, returned: whole })
}

/// Both are detached by the floor.
fn attach(place: &Arc<Place>, target: &Arc<Target>, role: Role) -> Contender {
    let (place, target) = (Arc::clone(place), Arc::clone(target));
    Contender::new(title(role), role, move || {
        let (place, target) = (Arc::clone(&place), Arc::clone(&target));
        let floor = Floor::new(&place, &target);
        move || {
            let sample = timed(|| match role {
                Role::Cofferdam => Ok(place.network.attach(&target.netns, &target.spec).map(drop)?),
                _ => floor.attach(),
            })?;
            target.check()?;
            target.check_ports()?;
            floor.detach()?;
            Ok(sample)
        }
    })
}

/// Both are attached by cofferdam.
fn detach(place: &Arc<Place>, target: &Arc<Target>, role: Role) -> Contender {
    let (place, target) = (Arc::clone(place), Arc::clone(target));
    Contender::new(title(role), role, move || {
        let (place, target) = (Arc::clone(&place), Arc::clone(&target));
        let floor = Floor::new(&place, &target);
        move || {
            let endpoint = place.network.attach(&target.netns, &target.spec)?;
            target.check()?;
            timed(|| match role {
                Role::Cofferdam => Ok(endpoint.detach(&place.host)?),
                _ => floor.detach(),
            })
        }
    })
}

/// That none is left, the next run shows: their ids are the same.
fn detach_all(place: &Arc<Place>, target: &Arc<Target>, role: Role) -> Contender {
    let (place, target) = (Arc::clone(place), Arc::clone(target));
    Contender::new(title(role), role, move || {
        let (place, target) = (Arc::clone(&place), Arc::clone(&target));
        move || {
            place.fill(0)?;
            timed(|| match role {
                Role::Cofferdam => Ok(place.network.detach_all()?),
                _ => by_hand::detach_all(&target, place.group),
            })
        }
    })
}

/// A socket in a namespace that is given as a descriptor: what comes before the attach, if the caller did not make the namespace.
fn open(target: &Arc<Target>, role: Role) -> Contender {
    let target = Arc::clone(target);
    Contender::new(title(role), role, move || {
        let target = Arc::clone(&target);
        move || {
            let namespace = target.netns.as_fd().try_clone_to_owned()?;
            timed(|| match role {
                Role::Cofferdam => Ok(NetNs::from_fd(namespace).map(drop)?),
                _ => Ok(Socket::open_in(namespace.as_fd(), ROUTE).map(drop)?),
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_plots_have_every_number() {
        let all = cases(false).unwrap();
        let mut names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let xs = |plot| {
            all.iter().filter_map(|case| case.point).filter(|point| point.0 == plot).map(|p| p.1).collect::<Vec<_>>()
        };
        assert_eq!(xs(BY_ENDPOINTS), [1.0, 100.0, 1000.0]);
        assert_eq!(xs(BY_PORTS), [1.0, 100.0, 1000.0, 5000.0]);
    }
}
