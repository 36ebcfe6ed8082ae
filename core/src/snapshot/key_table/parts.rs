//! An immutable array of 4,096 parts in 64 groups: a change copies one part and the pointers of its group and of the root.

use std::sync::Arc;

use super::shard::SHARDS;

/// Parts in a group, and groups.
const FANOUT: usize = 64;

type Group<T> = Arc<[Arc<T>]>;

/// Cloning shares every part.
pub(super) struct Parts<T> {
    groups: Arc<[Group<T>]>,
}

impl<T> Clone for Parts<T> {
    fn clone(&self) -> Self {
        Self {
            groups: Arc::clone(&self.groups),
        }
    }
}

impl<T: Default> Default for Parts<T> {
    fn default() -> Self {
        let part: Arc<T> = Arc::default();
        let group: Group<T> = std::iter::repeat_n(part, FANOUT).collect();
        Self {
            groups: std::iter::repeat_n(group, FANOUT).collect(),
        }
    }
}

impl<T: Default> Parts<T> {
    /// Takes [`SHARDS`] parts; further ones are left out, and empty ones, which are `None`, are one and the same.
    pub(super) fn of(parts: impl Iterator<Item = Option<T>>) -> Self {
        let empty: Arc<T> = Arc::default();
        let part = |part: Option<T>| part.map_or_else(|| Arc::clone(&empty), Arc::new);
        let parts: Vec<Arc<T>> = parts.take(SHARDS).map(part).collect();
        Self {
            groups: parts.chunks(FANOUT).map(Group::from).collect(),
        }
    }
}

impl<T> Parts<T> {
    pub(super) fn get(&self, number: usize) -> Option<&T> {
        let group = self.groups.get(number / FANOUT)?;
        group.get(number % FANOUT).map(Arc::as_ref)
    }

    pub(super) fn set(&mut self, number: usize, part: T) {
        let groups = Arc::make_mut(&mut self.groups);
        if let Some(group) = groups.get_mut(number / FANOUT)
            && let Some(place) = Arc::make_mut(group).get_mut(number % FANOUT)
        {
            *place = Arc::new(part);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.groups
            .iter()
            .flat_map(|group| group.iter())
            .map(Arc::as_ref)
    }

    /// How many parts differ from those of another one.
    #[cfg(test)]
    pub(super) fn copied(&self, other: &Self) -> usize {
        let pointers = |parts: &Self| -> Vec<Arc<T>> {
            parts
                .groups
                .iter()
                .flat_map(|group| group.iter())
                .map(Arc::clone)
                .collect()
        };
        pointers(self)
            .iter()
            .zip(&pointers(other))
            .filter(|(a, b)| !Arc::ptr_eq(a, b))
            .count()
    }
}
