//! What `nft -j` shows, and what is found and mended when somebody has been at it.

use crate::support::{addresses, clean_up, container, ip, links, network, nft, run_ip, spec, within};
use cofferdam_netlink_bridge::{Change, Endpoint, EndpointSpec, ErrorKind, Finding, Host, NetNs, Network, NetworkSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

fn ruleset() -> Value {
    let text = nft("-j list table inet cofferdam");
    let mut all: Value = serde_json::from_str(&text).unwrap();
    let mut all = all["nftables"].take();
    all.as_array_mut().unwrap().retain(|object| object.get("metainfo").is_none());
    strip(&mut all);
    all
}

/// Without what is the kernel's or the program's to say.
fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            object.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// The elements of each set that has some, in the words of a golden file.
fn elements(ruleset: &mut Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for object in ruleset.as_array_mut().unwrap() {
        for kind in ["set", "map"] {
            if let Some(mut elements) = object.get_mut(kind).and_then(|set| set.as_object_mut()?.remove("elem")) {
                let name = object[kind]["name"].as_str().unwrap().to_owned();
                elements.as_array_mut().unwrap().sort_by_key(ToString::to_string);
                found.insert(name, elements.to_string());
            }
        }
    }
    found
}

/// Hairpin x internal x between containers x masquerade x family: the rules are always the same, and the elements as in the golden files.
pub(crate) fn golden_rulesets() {
    let host = Host::current().unwrap();
    let rules: Value = serde_json::from_str(include_str!("golden/rules.json")).unwrap();
    let mut table = String::new();
    for bits in 0..16u8 {
        let [hairpin, internal, icc, masquerade] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        for families in [&["10.88.0.0/16"][..], &["fd00:88::/64"], &["10.88.0.0/16", "fd00:88::/64"]] {
            let spec = NetworkSpec::new("br0").owner("me").hairpin(hairpin).internal(internal);
            let spec = spec.between_containers(icc).masquerade(masquerade);
            let spec = families.iter().fold(spec, |spec, subnet| spec.subnet(subnet.parse().unwrap()));
            let network = Network::create(&host, &spec).unwrap();
            let netns = NetNs::new().unwrap();
            let mut wanted = families.iter().fold(EndpointSpec::new(), |wanted, subnet| {
                wanted.address(if subnet.contains("::") { crate::support::v6(2) } else { crate::support::v4(2) })
            });
            if !internal {
                let ports = ["8080:80", "53-54:53-54/udp", "3868:9899/sctp"];
                wanted = ports.iter().fold(wanted, |wanted, port| wanted.publish(port.parse().unwrap()));
            }
            let endpoint = network.attach(&netns, &wanted.id("web")).unwrap();
            let mut shown = ruleset();
            let mac = nft("list map inet cofferdam ports4") + &nft("list map inet cofferdam ports6");
            // The port's MAC address is random.
            let mac = mac.split("cd-web ").nth(1).map(|rest| rest[..17].to_owned()).unwrap_or_default();
            let words: Vec<_> =
                [(hairpin, "hairpin"), (internal, "internal"), (icc, "icc"), (masquerade, "masquerade")]
                    .iter()
                    .filter(|(on, _)| *on)
                    .map(|(_, word)| *word)
                    .collect();
            writeln!(table, "## {} {}", families.join(" "), words.join(" ")).unwrap();
            for (set, elements) in elements(&mut shown) {
                let elements = if mac.is_empty() { elements } else { elements.replace(&mac, "MAC") };
                writeln!(table, "{set}: {elements}").unwrap();
            }
            assert_eq!(shown, rules, "{}", serde_json::to_string_pretty(&shown).unwrap());
            clean_up(&host, &network, &[endpoint]);
        }
    }
    assert_eq!(table, include_str!("golden/elements.txt"), "{table}");
}

fn published(network: &Network, number: u8) -> (NetNs, Endpoint) {
    let netns = NetNs::new().unwrap();
    let port = format!("80{number:02}:80");
    let endpoint = network
        .attach(&netns, &addresses(number).owner(format!("job {number}")).publish(port.parse().unwrap()))
        .unwrap();
    (netns, endpoint)
}

/// Flushed, changed, deleted: found, told, mended; and nobody else's rules are touched.
pub(crate) fn mended() {
    nft("add table inet other");
    nft("add chain inet other input { type filter hook input priority 0; }");
    nft("add rule inet other input tcp dport 1 drop");
    let others = || nft("list table inet other");
    let before = others();
    let spec = spec().enable_forwarding(true);
    let host = Host::current().unwrap();
    assert!(matches!(Network::plan(&host, &spec, &[]).unwrap()[0], Change::CreateBridge { .. }));
    assert_eq!(
        (links(), nft("list tables")),
        (vec!["lo".to_owned()], "table inet other\n".into()),
        "a plan changes nothing"
    );
    let network = Network::create(&host, &spec).unwrap();
    let all = [published(&network, 2), published(&network, 3)];
    let endpoints = all.clone_endpoints();
    assert_eq!(network.check(&endpoints).unwrap(), []);
    let golden = ruleset();
    let damages: [(&str, &dyn Fn()); 10] = [
        ("forwarding off", &|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap()),
        ("flushed", &|| drop(nft("flush table inet cofferdam"))),
        ("deleted", &|| drop(nft("delete table inet cofferdam"))),
        ("a rule less", &|| drop(nft("flush chain inet cofferdam postrouting"))),
        ("a rule more", &|| drop(nft("insert rule inet cofferdam forward drop"))),
        ("a port less", &|| drop(nft("delete element inet cofferdam ports4 { tcp . 8002 }"))),
        ("internal", &|| drop(nft("add element inet cofferdam internal { br-test }"))),
        ("an address less", &|| run_ip("address del 10.88.0.1/16 dev br-test")),
        ("down", &|| run_ip("link set br-test down")),
        ("no bridge", &|| run_ip("link del br-test")),
    ];
    for (what, damage) in damages {
        damage();
        let planned = Network::plan(&host, &spec, &endpoints).unwrap();
        assert!(!planned.is_empty(), "{what}");
        let (network, done) = Network::reapply(&host, &spec, &endpoints).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(planned.iter().all(|change| done.contains(change)), "{what}: {planned:?} {done:?}");
        assert_eq!(network.check(&endpoints).unwrap(), [], "{what}");
        let (mut now, mut wanted) = (ruleset(), golden.clone());
        assert_eq!((elements(&mut now), now), (elements(&mut wanted), wanted), "{what}");
        crate::traffic::reach(&all[0].0, &all[1].0, 3);
    }
    // What nothing brings back is told, each time.
    endpoints[0].detach(&host).unwrap();
    let lost = Change::LostEndpoint { id: endpoints[0].id().into() };
    let found = network.check(&endpoints).unwrap();
    assert!(found.contains(&Finding::Missing(lost.clone())), "{found:?}");
    for _ in 0..2 {
        let (network, done) = Network::reapply(&host, &spec, &endpoints).unwrap();
        assert!(done.contains(&lost), "{done:?}");
        assert_eq!(network.check(&endpoints).unwrap(), [Finding::Missing(lost.clone())]);
    }
    assert_eq!(others(), before);
    nft("delete table inet other");
    clean_up(&host, &Network::open(&host, &spec).unwrap(), &endpoints);
}

trait Endpoints {
    fn clone_endpoints(&self) -> Vec<Endpoint>;
}

impl<const N: usize> Endpoints for [(NetNs, Endpoint); N] {
    fn clone_endpoints(&self) -> Vec<Endpoint> {
        self.iter().map(|(_, endpoint)| endpoint.clone()).collect()
    }
}

/// What nothing of ours can overrule, and settings that nobody asked to have changed, are found.
pub(crate) fn others_in_the_way() {
    let (host, network) = network();
    let setting =
        |path: &str| Finding::Setting(Change::SetSysctl { path: path.into(), from: "0".into(), to: "1".into() });
    let off = [setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")];
    assert_eq!(network.check(&[]).unwrap(), off);
    for (rules, expected) in [
        (
            &[
                "add table ip filter",
                "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
            ][..],
            true,
        ),
        (
            &[
                "add table ip6 filter",
                "add chain ip6 filter x { type filter hook forward priority 9; }",
                "add rule ip6 filter x counter drop",
            ],
            true,
        ),
        (
            &[
                "add table inet x",
                "add chain inet x y { type filter hook forward priority 9; }",
                "add rule inet x y counter reject",
            ],
            true,
        ),
        (
            &[
                "add table inet x",
                "add chain inet x y { type filter hook forward priority 9; }",
                "add rule inet x y tcp dport 1 drop",
            ],
            false,
        ),
        (&["add table inet x", "add chain inet x y { type filter hook input priority 9; policy drop; }"], false),
    ] {
        for rule in rules {
            nft(rule);
        }
        let found = network.check(&[]).unwrap();
        assert_eq!(found.len(), 2 + usize::from(expected), "{found:?}");
        assert_eq!(found.iter().any(|finding| matches!(finding, Finding::Blocked { .. })), expected);
        let table = rules[0].replace("add", "delete");
        nft(&table);
    }
    // Another's table of our name is left as it is.
    clean_up(&host, &network, &[]);
    nft("add table inet cofferdam");
    let before = nft("list ruleset");
    let error = Network::create(&host, &spec()).unwrap_err();
    assert_eq!((error.kind(), error.object()), (ErrorKind::Foreign, Some("cofferdam")), "{error}");
    assert_eq!((nft("list ruleset"), links()), (before, vec!["lo".to_owned()]));
    nft("delete table inet cofferdam");
}

/// Dead owners' endpoints and ports go, those of the living stay, and whatever is not ours.
pub(crate) fn left_by_the_dead() {
    let (host, network) = network();
    let all = [published(&network, 2), published(&network, 3), published(&network, 4)];
    // On the bridge too: somebody else's, and one of ours that its maker has not come to tag.
    run_ip("link add theirs type veth peer name their-end");
    run_ip("link set theirs master br-test");
    run_ip(&format!("link set {} alias ", all[2].1.port()));
    // One whose namespace has gone, and its published port has stayed.
    let (gone, record) = published(&network, 5);
    // In this order: the kernel would delete the link by itself a while after its namespace.
    run_ip(&format!("link del {}", record.port()));
    drop(gone);
    let removed = network.gc(|owner| owner != Some("job 2")).unwrap();
    let words: Vec<_> = removed.iter().map(ToString::to_string).collect();
    assert!(words.contains(&format!("remove link {}", all[0].1.port())), "{words:?}");
    assert!(words.iter().any(|line| line.contains("10.88.0.2 . 80")) && words.iter().any(|line| line.contains("8005")));
    assert_eq!(words.iter().filter(|line| line.starts_with("remove link")).count(), 1, "{words:?}");
    assert_eq!(within(&all[0].0, links), ["lo"]);
    assert_eq!(within(&all[1].0, links), ["eth0", "lo"]);
    assert_eq!(network.gc(|owner| owner != Some("job 2")).unwrap(), [], "nothing is left");
    let untagged = network.gc(|owner| owner.is_some()).unwrap();
    assert!(untagged.contains(&Change::RemoveLink { link: all[2].1.port().into() }), "{untagged:?}");
    assert!(links().contains(&"theirs".into()));
    run_ip("link del theirs");
    clean_up(&host, &network, &all.clone_endpoints());
    assert_eq!(nft("list tables"), "");
}

/// Somebody attaches while the dead are looked for: nothing of the living is taken.
pub(crate) fn looked_for_while_attaching() {
    let (host, network) = network();
    let (netns, done) = (NetNs::new().unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let collect = || {
            let network = Network::open(&Host::current().unwrap(), network.spec()).unwrap();
            let mut removed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                removed.extend(network.gc(|_| true).unwrap());
            }
            removed
        };
        let collector = scope.spawn(collect);
        for _ in 0..60 {
            let wanted = addresses(2).id("web").publish("8000-8009:80-89".parse().unwrap());
            let endpoint = network.attach(&netns, &wanted).unwrap();
            let wrong = network.check(std::slice::from_ref(&endpoint)).unwrap();
            assert!(wrong.iter().all(|finding| matches!(finding, Finding::Setting(_))), "{wrong:?}");
            endpoint.detach(&host).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(collector.join().unwrap(), []);
    });
    clean_up(&host, &network, &[]);
}

/// All at once, and nothing but this network's.
pub(crate) fn all_at_once() {
    let (host, network) = network();
    let other = NetworkSpec::new("br-other").owner("kernel tests").subnet("10.99.0.0/24".parse().unwrap());
    let other = Network::create(&host, &other).unwrap();
    let all: Vec<_> = (2..40).map(|number| published(&network, number)).collect();
    let netns = NetNs::new().unwrap();
    let wanted = EndpointSpec::new().address([10, 99, 0, 2]).publish("9000:90".parse().unwrap());
    let endpoint = other.attach(&netns, &wanted).unwrap();
    network.detach_all().unwrap();
    network.detach_all().unwrap();
    assert!(all.iter().all(|(netns, _)| within(netns, links) == ["lo"]));
    assert_eq!(within(&netns, links), ["eth0", "lo"]);
    let left = nft("list map inet cofferdam ports4");
    assert!(left.contains("tcp . 9000") && !left.contains("br-test"), "{left}");
    endpoint.detach(&host).unwrap();
    other.delete().unwrap();
    clean_up(&host, &network, &[]);
}

/// A network where the host already has a route is refused, before anything is up.
pub(crate) fn a_subnet_that_is_taken() {
    run_ip("link add up0 type veth peer name up1");
    run_ip("link set up0 up");
    run_ip("link set up1 up");
    run_ip("address add 10.88.7.1/24 dev up0");
    let host = Host::current().unwrap();
    let error = Network::create(&host, &spec()).unwrap_err();
    assert_eq!(
        (error.kind(), error.object()),
        (ErrorKind::AlreadyExists, Some("10.88.0.0/16, by 10.88.7.0/24")),
        "{error}"
    );
    assert_eq!((links(), nft("list tables")), (vec!["lo".into(), "up0".into(), "up1".into()], String::new()));
    run_ip("link del up0");
    clean_up(&host, &Network::create(&host, &spec()).unwrap(), &[]);
}

/// The same for a subnet that is added to a network that is there, which stays as it was; and a route that comes later is in nobody's way.
pub(crate) fn a_subnet_that_is_taken_later() {
    run_ip("link add up0 type veth peer name up1");
    run_ip("link set up0 up");
    run_ip("link set up1 up");
    let route = |what: &str, to: &str| run_ip(&format!("route {what} {to} dev up0"));
    let (host, network) = network();
    let (_netns, endpoint) = container(&network, 2);
    let endpoints = [endpoint];
    let seen = || {
        let mut port = ip(&format!("link show {}", endpoints[0].port()))[0]["linkinfo"]["info_slave_data"].take();
        let addresses = ip("address show dev br-test scope global")[0]["addr_info"].take();
        (nft("list ruleset"), addresses, port["isolated"].take())
    };
    for (subnet, to) in [("10.99.0.0/16", "10.99.7.0/24"), ("fd00:99::/64", "fd00:99::/80")] {
        let before = seen();
        route("add", to);
        let more = spec().subnet(subnet.parse().unwrap());
        // Of all that this asks for nothing is done.
        let error = Network::create(&host, &more.clone().between_containers(false)).unwrap_err();
        let object = format!("{subnet}, by {to}");
        assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some(object.as_str())), "{error}");
        assert_eq!(seen(), before);
        route("del", to);
        Network::create(&host, &more).unwrap();
        // Now it is the bridge's.
        route("add", to);
        Network::create(&host, &more).unwrap();
        Network::reapply(&host, &more, &endpoints).unwrap();
        route("del", to);
    }
    endpoints[0].detach(&host).unwrap();
    for bridge_is_there in [true, false] {
        let network = Network::create(&host, &spec()).unwrap();
        let (_netns, endpoint) = container(&network, 3);
        let both = |what: &str| ["10.88.7.0/24", "fd00:88::/80"].iter().for_each(|to| route(what, to));
        both("add");
        if !bridge_is_there {
            run_ip("link del br-test");
        }
        endpoint.detach(&host).unwrap();
        for _ in 0..2 {
            Network::remove(&host, &spec()).unwrap();
            assert_eq!((links().len(), nft("list tables")), (3, String::new()), "bridge: {bridge_is_there}");
        }
        both("del");
    }
    run_ip("link del up0");
    clean_up(&host, &network, &[]);
}

/// What is stored says the same when it is read, ports and routes too.
pub(crate) fn routes_and_mtu() {
    run_ip("link add up0 mtu 1400 type veth peer name up1");
    run_ip("link set up0 up");
    run_ip("link set up1 up");
    run_ip("address add 192.0.2.1/24 dev up0");
    run_ip("route add default via 192.0.2.2");
    let (host, network) = network();
    assert_eq!(ip("link show br-test")[0]["mtu"], json!(1400), "that of the way out");
    let netns = NetNs::new().unwrap();
    let wanted = addresses(2).route("10.200.0.0/16".parse().unwrap(), crate::support::v4(9));
    let endpoint = network.attach(&netns, &wanted.route("fd99::/64".parse().unwrap(), crate::support::v6(9))).unwrap();
    within(&netns, || {
        assert_eq!(ip("link show eth0")[0]["mtu"], json!(1400));
        assert_eq!(ip("route get 10.200.1.1")[0]["gateway"], "10.88.0.9");
        assert_eq!(ip("-6 route get fd99::1")[0]["gateway"], "fd00:88::9");
    });
    run_ip("link del up0");
    drop(container(&network, 3));
    network.detach_all().unwrap();
    clean_up(&host, &network, &[endpoint]);
}
