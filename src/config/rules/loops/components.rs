//! The strongly connected components of a directed graph (Tarjan, 1972), by a stack of its own
//! instead of recursion. Each node and each edge is looked at once.

use std::collections::HashMap;

/// The components of the nodes that some nodes lead to, and of those.
#[derive(Debug, Default)]
pub(super) struct Components {
    /// The component of each node.
    of: HashMap<usize, usize>,
    /// How many nodes each component has.
    sizes: Vec<usize>,
}

/// A node on the way from a root.
struct Step {
    node: usize,
    /// Edges that were not followed yet.
    edges: Vec<usize>,
    /// The number of the first node without a component that it leads to.
    low: usize,
}

/// A search under way.
#[derive(Default)]
struct Search {
    /// When each node was found.
    numbers: HashMap<usize, usize>,
    way: Vec<Step>,
    /// Nodes that have no component yet, in the order in which they were found.
    open: Vec<usize>,
    found: Components,
}

impl Components {
    /// Searches from these nodes. `edges`: where a node leads to; each is asked once.
    pub(super) fn reached_from(
        roots: impl Iterator<Item = usize>,
        edges: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        let mut search = Search::default();
        for root in roots {
            if !search.numbers.contains_key(&root) {
                search.enter(root, edges(root));
            }
            while let Some(step) = search.way.last_mut() {
                let Some(next) = step.edges.pop() else {
                    search.leave();
                    continue;
                };
                match search.numbers.get(&next) {
                    None => search.enter(next, edges(next)),
                    Some(number) if !search.found.of.contains_key(&next) => {
                        step.low = step.low.min(*number);
                    }
                    Some(_) => {}
                }
            }
        }
        search.found
    }

    /// Whether a node leads to another one and back.
    pub(super) fn is_in_loop(&self, node: usize) -> bool {
        self.of.get(&node).is_some_and(|its| self.sizes[*its] > 1)
    }

    /// Whether each of two nodes leads to the other.
    pub(super) fn are_one(&self, one: usize, other: usize) -> bool {
        let [one, other] = [one, other].map(|node| self.of.get(&node));
        one.is_some() && one == other
    }
}

impl Search {
    fn enter(&mut self, node: usize, edges: Vec<usize>) {
        let number = self.numbers.len();
        self.numbers.insert(node, number);
        self.open.push(node);
        self.way.push(Step {
            node,
            edges,
            low: number,
        });
    }

    /// All edges of the last node were followed: where it leads to no earlier node, it and the open
    /// ones behind it are a component.
    fn leave(&mut self) {
        let Some(Step { node, low, .. }) = self.way.pop() else {
            return;
        };
        if low < self.numbers[&node] {
            if let Some(before) = self.way.last_mut() {
                before.low = before.low.min(low);
            }
            return;
        }
        let component = self.found.sizes.len();
        let first = self.open.iter().rposition(|its| *its == node).unwrap_or(0);
        self.found.sizes.push(self.open.len() - first);
        let nodes = self.open.drain(first..);
        self.found.of.extend(nodes.map(|its| (its, component)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;

    use super::*;

    fn all_from(edges: &[Vec<usize>], from: usize) -> HashSet<usize> {
        let mut reached = HashSet::new();
        let mut next = vec![from];
        while let Some(node) = next.pop() {
            next.extend(edges[node].iter().filter(|its| reached.insert(**its)));
        }
        reached
    }

    #[test]
    fn nodes_of_a_component_lead_to_each_other_and_others_do_not() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            let nodes = random.usize(1..12);
            let mut edge_list = vec![Vec::new(); nodes];
            for _ in 0..random.usize(0..2 * nodes) {
                edge_list[random.usize(..nodes)].push(random.usize(..nodes));
            }
            let root = random.usize(..nodes);
            let components =
                Components::reached_from([root].into_iter(), |at| edge_list[at].clone());
            let reached: Vec<_> = (0..nodes).map(|at| all_from(&edge_list, at)).collect();
            let seen = |at: usize| at == root || reached[root].contains(&at);
            for one in 0..nodes {
                for other in (0..nodes).filter(|other| *other != one) {
                    let both = reached[one].contains(&other) && reached[other].contains(&one);
                    let want = both && seen(one);
                    assert_eq!(components.are_one(one, other), want, "{edge_list:?}");
                    assert!(!want || components.is_in_loop(one));
                }
            }
        }
    }

    #[test]
    fn a_long_way_round_costs_one_step_for_each_edge() {
        let nodes = 100_000;
        let asked = Cell::new(0);
        let components = Components::reached_from(0..nodes, |at| {
            asked.set(asked.get() + 1);
            vec![(at + 1) % nodes, 0, at]
        });
        assert_eq!(asked.get(), nodes);
        assert!(components.are_one(0, nodes - 1));
        assert_eq!(components.sizes, [nodes]);
    }
}
