//! Which manifests of a repository keep which: an index what it lists, a subject what refers to it.
//!
//! Knows manifests by the first eight bytes of their digests. Two that share them are taken for one, which keeps both
//! when either is kept.

use std::collections::HashMap;

use portcullis_oci::Digest;

use super::super::marks::short;

/// The manifests of one repository.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    /// The children of all nodes, one after the other.
    children: Vec<u64>,
}

#[derive(Debug)]
struct Node {
    name: u64,
    subject: Option<u64>,
    /// Where its children end; they begin where those of the one before end.
    children_end: usize,
    /// What remembering it as dead costs.
    weight: usize,
    is_root: bool,
}

/// What goes, and in which order. An index goes before what it lists and a subject before what refers to it: when
/// somebody asks for one of them meanwhile, it is not yet without its parts.
#[derive(Debug, Default)]
pub(super) struct Going {
    /// By the first bytes of the name: its turn.
    turns: HashMap<u64, usize>,
    /// There was no room for all of them.
    pub(super) more: bool,
}

/// A walk over the manifests, depth first without recursion: who pushes decides how deep indexes are nested.
struct Walk<'a> {
    graph: &'a Graph,
    /// Nodes in the order of their names, and those with a subject in the order of that.
    by_name: Vec<usize>,
    by_subject: Vec<usize>,
}

enum Visit {
    Enter(u64),
    Leave(usize),
}

impl Graph {
    pub(super) fn add<'a>(
        &mut self,
        name: &Digest,
        subject: Option<&Digest>,
        children: impl IntoIterator<Item = &'a Digest>,
        weight: usize,
        is_root: bool,
    ) {
        self.children.extend(children.into_iter().map(short));
        let (name, subject, children_end) = (short(name), subject.map(short), self.children.len());
        self.nodes.push(Node { name, subject, children_end, weight, is_root });
    }

    /// How many numbers are remembered.
    pub(super) fn len(&self) -> usize {
        size_of::<Node>() / size_of::<u64>() * self.nodes.len() + self.children.len()
    }

    /// What no root keeps, as far as its weight fits into `room`.
    pub(super) fn going(&self, mut room: usize) -> Going {
        let walk = Walk::new(self);
        let mut living = vec![false; self.nodes.len()];
        walk.visit(|node| node.is_root, &mut living);
        let mut going = Going::default();
        if living.iter().all(|lives| *lives) {
            return going;
        }
        let order = walk.visit(|_| true, &mut vec![false; self.nodes.len()]);
        for node in order.into_iter().rev().filter(|node| !living[*node]).map(|node| &self.nodes[node]) {
            if node.weight > room {
                going.more = true;
                break;
            }
            room -= node.weight;
            let turn = going.turns.len();
            going.turns.insert(node.name, turn);
        }
        going
    }

    fn children(&self, node: usize) -> &[u64] {
        let begin = node.checked_sub(1).map_or(0, |before| self.nodes[before].children_end);
        &self.children[begin..self.nodes[node].children_end]
    }
}

impl Going {
    /// When it is the manifest's turn, if it goes.
    pub(super) fn turn(&self, name: &Digest) -> Option<usize> {
        self.turns.get(&short(name)).copied()
    }
}

impl<'a> Walk<'a> {
    fn new(graph: &'a Graph) -> Self {
        let nodes = &graph.nodes;
        let mut by_name: Vec<usize> = (0..nodes.len()).collect();
        by_name.sort_unstable_by_key(|node| nodes[*node].name);
        let mut by_subject: Vec<usize> = (0..nodes.len()).filter(|node| nodes[*node].subject.is_some()).collect();
        by_subject.sort_unstable_by_key(|node| nodes[*node].subject);
        Self { graph, by_name, by_subject }
    }

    /// Notes in `met` what is reached from the roots, and returns it: whatever is reached through another before it.
    fn visit(&self, is_root: impl Fn(&Node) -> bool, met: &mut [bool]) -> Vec<usize> {
        let nodes = &self.graph.nodes;
        let mut reached = Vec::new();
        for root in nodes.iter().filter(|node| is_root(node)) {
            let mut rest = vec![Visit::Enter(root.name)];
            while let Some(visit) = rest.pop() {
                let name = match visit {
                    Visit::Leave(node) => {
                        reached.push(node);
                        continue;
                    }
                    Visit::Enter(name) => name,
                };
                let named = span(&self.by_name, |node| nodes[node].name.cmp(&name));
                for node in named.iter().copied().filter(|node| !std::mem::replace(&mut met[*node], true)) {
                    rest.push(Visit::Leave(node));
                    rest.extend(self.graph.children(node).iter().copied().map(Visit::Enter));
                    let referrers = span(&self.by_subject, |node| nodes[node].subject.cmp(&Some(name)));
                    rest.extend(referrers.iter().map(|node| Visit::Enter(nodes[*node].name)));
                }
            }
        }
        reached
    }
}

/// The part of sorted nodes that compares as equal.
fn span(sorted: &[usize], compare: impl Fn(usize) -> std::cmp::Ordering) -> &[usize] {
    let begin = sorted.partition_point(|node| compare(*node).is_lt());
    let end = begin + sorted[begin..].partition_point(|node| compare(*node).is_eq());
    &sorted[begin..end]
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    /// Manifests by number: subject, children, and whether it is a root.
    fn check(manifests: &[(Option<usize>, &[usize], bool)], room: usize) -> (Vec<usize>, bool) {
        let mut graph = Graph::default();
        for (number, (subject, children, is_root)) in manifests.iter().enumerate() {
            let subject = subject.map(digest);
            let children: Vec<Digest> = children.iter().copied().map(digest).collect();
            graph.add(&digest(number), subject.as_ref(), &children, 1, *is_root);
        }
        let going = graph.going(room);
        let mut turns: Vec<_> =
            (0..manifests.len()).filter_map(|number| Some((going.turn(&digest(number))?, number))).collect();
        turns.sort_unstable();
        (turns.into_iter().map(|(_, number)| number).collect(), going.more)
    }

    #[test]
    fn roots_keep_children_and_referrers_at_any_depth() {
        // 0 is a root, lists 1, which 2 refers to, which lists 3; nobody keeps 4, 5 refers to 4, and 6 to what is absent.
        let manifests: [(Option<usize>, &[usize], bool); 7] = [
            (None, &[1], true),
            (None, &[], false),
            (Some(1), &[3], false),
            (None, &[], false),
            (None, &[], false),
            (Some(4), &[], false),
            (Some(99), &[], false),
        ];
        let (going, more) = check(&manifests, 10);
        assert_eq!((going.len(), more), (3, false));
        let turn = |number| going.iter().position(|goes| *goes == number).unwrap();
        assert!(turn(4) < turn(5), "a subject goes before what refers to it: {going:?}");
        assert_eq!(check(&manifests, 3).0.len(), 3);
        assert_eq!((check(&manifests, 2).0.len(), check(&manifests, 2).1), (2, true));
        assert_eq!(check(&manifests, 0), (vec![], true));
    }

    #[test]
    fn a_ring_is_walked_once() {
        assert_eq!(check(&[(Some(1), &[1], false), (None, &[0], false)], 10).0.len(), 2);
        assert_eq!(check(&[(Some(1), &[1], true), (None, &[0], false)], 10), (vec![], false));
    }
}
