//! What cluster.conf says against what corosync and the configuration say.
//!
//! The file is not needed. Where it is there the classic tools read it, so it must not lie:
//!
//! | difference | is |
//! |---|---|
//! | it knows clusters, but none of this name | an error |
//! | heartbeat mode | an error |
//! | a node (known by its address): number, port | an error |
//! | its name, beyond case and domain | an error |
//! | a node (known by its name): address | an error |
//! | a number that it gives to somebody else | an error |
//! | a node that only corosync has | a heads-up: the tools do not know it yet |
//! | a node that only the file has | a heads-up: run by the classic tools it would not be seen here |
//! | the count of nodes, global regions, unknown lines | a heads-up |
//!
//! A set of nodes that differs is no error, because nodes come and go at run time and the file
//! comes behind. If the kernel's table agrees with corosync and is in use, every error is a
//! heads-up too: nothing would be written, and a refusal would only take a working node down.

use crate::cluster_conf::{ClusterConf, NodeStanza};
use crate::error::Difference;
use crate::slots::SlotMap;
use crate::wanted::{Mode, Node, Wanted};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) errors: Vec<Difference>,
    pub(crate) heads_up: Vec<String>,
}

/// Gives nodes without a name one: that of the file, or `node` and the id.
pub(crate) fn name_nodes(wanted: &mut Wanted, file: &[&NodeStanza]) {
    for node in wanted.nodes.iter_mut().filter(|node| node.name.is_empty()) {
        let stanza = file.iter().find(|stanza| stanza.address == node.address);
        node.name = stanza.map_or_else(|| format!("node{}", node.id), |it| it.name.clone());
    }
}

/// Compares, by the table of the module documentation.
pub(crate) fn compare(conf: &ClusterConf, wanted: &Wanted, slots: &SlotMap) -> Compared {
    let mut result = Compared::default();
    for (line, text) in &conf.unknown {
        result.heads_up.push(format!("cluster.conf, line {line}: '{text}' is not known"));
    }
    let Some(cluster) = conf.cluster(&wanted.cluster) else {
        if conf.clusters.is_empty() {
            result.heads_up.push("cluster.conf names no cluster: not used".into());
        } else {
            let names: Vec<&str> = conf.clusters.iter().map(|it| it.name.as_str()).collect();
            result.error("cluster", "name", names.join(", "), &wanted.cluster);
        }
        return result;
    };
    if cluster.mode != wanted.mode {
        let subject = format!("cluster '{}'", cluster.name);
        result.error(&subject, "heartbeat_mode", cluster.mode, wanted.mode);
    }
    let file = conf.nodes_of(&wanted.cluster);
    if let Some(count) = cluster.node_count.filter(|&count| count as usize != file.len()) {
        let found = file.len();
        result.heads_up.push(format!("cluster.conf: node_count is {count}, nodes are {found}"));
    }
    let regions = conf.heartbeats.iter().filter(|it| it.cluster == wanted.cluster).count();
    if regions > 0 && wanted.mode == Mode::Global {
        result.heads_up.push(format!(
            "cluster.conf has {regions} global regions: they are not started, o2bridge has its own"
        ));
    }
    for node in &wanted.nodes {
        result.node(node, wanted.port, &file, slots);
    }
    result.only_in_file(&file, wanted);
    result
}

impl Compared {
    fn error(
        &mut self,
        subject: &str,
        key: &'static str,
        there: impl ToString,
        wanted: impl ToString,
    ) {
        let (there, wanted) = (there.to_string(), wanted.to_string());
        self.errors.push(Difference { subject: subject.to_owned(), key, there, wanted });
    }

    fn node(&mut self, node: &Node, port: u16, file: &[&NodeStanza], slots: &SlotMap) {
        let subject = format!("node '{}'", node.name);
        let slot = slots.slot(node.id);
        let with_slot = file.iter().find(|it| Some(it.number) == slot);
        let Some(stanza) = file.iter().find(|it| it.address == node.address) else {
            if let Some(other) = file.iter().find(|it| is_same_name(&it.name, &node.name)) {
                self.error(&subject, "ip_address", other.address, node.address);
            } else if let Some(other) = with_slot {
                let there = format!("that of node '{}'", other.name);
                self.error(&subject, "number", there, other.number);
            } else {
                self.heads_up.push(format!(
                    "{subject} ({}) is not in cluster.conf: o2cb's tools do not know it",
                    node.address
                ));
            }
            return;
        };
        if Some(stanza.number) != slot {
            let wanted = slot.map_or_else(|| "none".to_owned(), |slot| slot.to_string());
            self.error(&subject, "number", stanza.number, wanted);
        }
        if stanza.port != port {
            self.error(&subject, "ip_port", stanza.port, port);
        }
        if !is_same_name(&stanza.name, &node.name) {
            self.error(&subject, "name", format!("'{}'", stanza.name), format!("'{}'", node.name));
        }
    }

    fn only_in_file(&mut self, file: &[&NodeStanza], wanted: &Wanted) {
        for stanza in file {
            let is_known = |node: &Node| {
                node.address == stanza.address || is_same_name(&node.name, &stanza.name)
            };
            if !wanted.nodes.iter().any(is_known) {
                self.heads_up.push(format!(
                    "node '{}' ({}) of cluster.conf is not in corosync's nodelist: it must not \
                     mount volumes that this cluster uses",
                    stanza.name, stanza.address
                ));
            }
        }
    }
}

/// The classic tools know a node by its host name, up to a dot.
fn is_same_name(one: &str, other: &str) -> bool {
    let host = |name: &'_ str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    host(one) == host(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_conf::parse;
    use crate::wanted::tests::wanted;

    const HEAD: &str = "cluster:\n name = lab\n node_count = 2\n";

    fn node(name: &str, number: u8, host: u8, port: u16) -> String {
        format!(
            "node:\n name = {name}\n number = {number}\n ip_address = 10.0.0.{host}\n ip_port = \
             {port}\n cluster = lab\n"
        )
    }

    fn compared(text: &str, wanted: &Wanted) -> Compared {
        let conf = parse(text).unwrap();
        let slots = SlotMap::assign(wanted, &conf.nodes_of(&wanted.cluster)).unwrap();
        compare(&conf, wanted, &slots)
    }

    fn errors(text: &str, wanted: &Wanted) -> Vec<String> {
        compared(text, wanted).errors.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn a_file_that_agrees_is_silent() {
        let text =
            format!("{HEAD}{}{}", node("N1.example.org", 7, 1, 7777), node("n2", 0, 2, 7777));
        assert_eq!(compared(&text, &wanted(2)), Compared::default());
    }

    #[test]
    fn each_contradiction_shows_both_values() {
        let (one, two) = (node("n1", 1, 1, 7777), node("n2", 2, 2, 7777));
        let other = "cluster:\n name = old\ncluster:\n name = older\n";
        assert_eq!(errors(other, &wanted(2)), ["cluster: name is old, older there, lab is wanted"]);
        let global = format!("cluster:\n name = lab\n heartbeat_mode = global\n{one}{two}");
        assert_eq!(
            errors(&global, &wanted(2)),
            ["cluster 'lab': heartbeat_mode is global there, local is wanted"]
        );
        let port = format!("{HEAD}{one}{}", node("n2", 2, 2, 7778));
        assert_eq!(errors(&port, &wanted(2)), ["node 'n2': ip_port is 7778 there, 7777 is wanted"]);
        let name = format!("{HEAD}{one}{}", node("b", 2, 2, 7777));
        assert_eq!(errors(&name, &wanted(2)), ["node 'n2': name is 'b' there, 'n2' is wanted"]);
        let address = format!("{HEAD}{one}{}", node("n2", 2, 9, 7777));
        assert_eq!(
            errors(&address, &wanted(2)),
            ["node 'n2': ip_address is 10.0.0.9 there, 10.0.0.2 is wanted"]
        );
        let number = format!("{HEAD}{one}{}", node("third", 2, 9, 7777));
        assert_eq!(
            errors(&number, &wanted(2)),
            ["node 'n2': number is that of node 'third' there, 2 is wanted"]
        );
        let mut explicit = wanted(2);
        explicit.slots.insert(2, 20);
        assert_eq!(
            errors(&format!("{HEAD}{one}{two}"), &explicit),
            ["node 'n2': number is 2 there, 20 is wanted"]
        );
    }

    #[test]
    fn a_set_that_differs_is_a_heads_up() {
        let text = format!("{HEAD}{}{}", node("n1", 1, 1, 7777), node("gone", 9, 9, 7777));
        let result = compared(&text, &wanted(2));
        assert_eq!(result.errors, []);
        assert_eq!(result.heads_up.len(), 2);
        assert!(result.heads_up[0].starts_with("node 'n2' (10.0.0.2) is not in cluster.conf"));
        assert!(result.heads_up[1].starts_with("node 'gone' (10.0.0.9) of cluster.conf is not"));
    }

    #[test]
    fn other_heads_ups() {
        let region = "heartbeat:\n region = 0123456789ABCDEF0123456789ABCDEF\n cluster = lab\n";
        let text = format!(
            "cluster:\n name = lab\n heartbeat_mode = global\n node_count = 3\n odd = 1\n\
             {}{}{region}",
            node("n1", 1, 1, 7777),
            node("n2", 2, 2, 7777)
        );
        let mut wanted = wanted(2);
        wanted.mode = Mode::Global;
        let result = compared(&text, &wanted);
        assert_eq!(result.errors, []);
        assert_eq!(result.heads_up.len(), 3, "{:?}", result.heads_up);
        let empty = compared("", &wanted);
        assert_eq!((empty.errors.len(), empty.heads_up.len()), (0, 1));
    }

    #[test]
    fn names_from_the_file_or_the_id() {
        let conf = parse(&format!("{HEAD}{}", node("n1.example.org", 1, 1, 7777))).unwrap();
        let mut wanted = wanted(2);
        wanted.nodes.iter_mut().for_each(|node| node.name.clear());
        name_nodes(&mut wanted, &conf.nodes_of("lab"));
        assert_eq!(wanted.nodes[0].name, "n1.example.org");
        assert_eq!(wanted.nodes[1].name, "node2");
    }
}
