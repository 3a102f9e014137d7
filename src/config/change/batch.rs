//! Many changes of one pool at once, each of which finds its backend in a table.

use std::collections::{HashMap, HashSet};

use super::{Backend, Change, ChangeError, Pool, Refused, unknown};

/// Makes these changes of a pool without validating the result. Answers with the errors of those
/// that can't be made, by their numbers.
pub(super) fn make(pool: &mut Pool, changes: &[(usize, &Change)]) -> Refused {
    let is_of_pool = |change: &Change| matches!(change, Change::SetPool { .. });
    let runs = changes.chunk_by(|(_, one), (_, other)| is_of_pool(one) == is_of_pool(other));
    let mut refused = Vec::new();
    for run in runs {
        if let [(_, Change::SetPool { .. }), ..] = run {
            for (_, change) in run {
                if let Change::SetPool { patch, .. } = change {
                    patch.apply(pool);
                }
            }
        } else {
            refused.extend(change_backends(pool, run));
        }
    }
    refused
}

fn change_backends(pool: &mut Pool, changes: &[(usize, &Change)]) -> Refused {
    let Pool {
        name,
        backends,
        sni_member,
        ..
    } = pool;
    let mut table = Table::new(backends);
    table.numbered = sni_member.as_ref().map(|_| 0);
    let made = changes.iter().map(|(place, change)| {
        let made = match change {
            Change::AddBackend { backend, .. } => table.add(name, backend),
            Change::RemoveBackend { backend, .. } => table.remove(backend),
            Change::SetBackend { backend, patch, .. } => {
                table.find(backend).map(|backend| patch.apply(backend))
            }
            Change::SetPool { .. }
            | Change::SetListener { .. }
            | Change::SetRoutes { .. }
            | Change::WeighRoute { .. }
            | Change::EditAccessList { .. }
            | Change::SetGlobal { .. } => Ok(()),
        };
        (*place, made)
    });
    let refused = made.filter_map(|(place, made)| Some((place, made.err()?)));
    let refused = refused.collect();
    table.close();
    refused
}

/// The backends of a pool by name.
struct Table<'a> {
    backends: &'a mut Vec<Backend>,
    by_name: HashMap<String, usize>,
    /// Backends that leave when the table is closed: the indices of others must stay.
    removed: HashSet<usize>,
    /// How many of them have numbers that stay, from the first on; `None`: the pool has none.
    numbered: Option<usize>,
}

impl<'a> Table<'a> {
    fn new(backends: &'a mut Vec<Backend>) -> Self {
        let all = backends.iter().enumerate();
        Self {
            by_name: all.map(|(at, its)| (its.name.clone(), at)).collect(),
            removed: HashSet::new(),
            numbered: None,
            backends,
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Backend, ChangeError> {
        match self.by_name.get(name) {
            Some(&at) => Ok(&mut self.backends[at]),
            None => Err(unknown("backend", name)),
        }
    }

    fn add(&mut self, pool: &str, backend: &Backend) -> Result<(), ChangeError> {
        if self.by_name.contains_key(&backend.name) {
            return Err(ChangeError::Exists {
                pool: pool.to_owned(),
                name: backend.name.clone(),
            });
        }
        self.by_name
            .insert(backend.name.clone(), self.backends.len());
        self.backends.push(backend.clone());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), ChangeError> {
        let at = self.by_name.remove(name);
        let at = at.ok_or_else(|| unknown("backend", name))?;
        self.fix_numbers();
        self.removed.insert(at);
        Ok(())
    }

    /// Backends keep the numbers that they have by their places: one that leaves is not to change
    /// those behind it.
    fn fix_numbers(&mut self) {
        let Some(numbered) = self.numbered else {
            return;
        };
        let first = u32::try_from(numbered - self.removed.len()).unwrap_or(u32::MAX);
        for (backend, place) in self.backends.iter_mut().skip(numbered).zip(first..) {
            backend.member.get_or_insert(place);
        }
        self.numbered = Some(self.backends.len());
    }

    fn close(self) {
        let mut at = 0..;
        self.backends
            .retain(|_| at.next().is_none_or(|at| !self.removed.contains(&at)));
    }
}
