//! What is known of repositories, the least recently used of it forgotten when it takes more than its share of memory.
//!
//! Must not know what it holds; whoever holds something here says how large it is, and reads it again when it is gone.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use portcullis_oci::RepositoryName;

use crate::layout::Key;

/// What an entry takes beside its value and its name, roughly.
const ENTRY_BYTES: usize = 256;

/// Values by repository, or by another name, of a bounded size in all.
#[derive(Debug)]
pub(crate) struct Lru<V, K = RepositoryName> {
    entries: HashMap<K, Entry<V>>,
    /// By the time of the last use.
    order: BTreeMap<u64, K>,
    uses: u64,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

/// What values are kept by.
pub(crate) trait Name: Clone + Eq + Hash {
    /// Bytes that it takes in memory, roughly.
    fn length(&self) -> usize;
}

impl Name for RepositoryName {
    fn length(&self) -> usize {
        self.as_str().len()
    }
}

impl Name for Key {
    fn length(&self) -> usize {
        self.as_str().len()
    }
}

impl<V, K: Name> Lru<V, K> {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), uses: 0, bytes: 0, most_bytes }
    }

    /// What one value may have at most to be kept.
    pub(crate) fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    pub(crate) fn get(&mut self, name: &K) -> Option<&V> {
        let entry = self.entries.get_mut(name)?;
        self.uses += 1;
        if let Some(same) = self.order.remove(&entry.used) {
            self.order.insert(self.uses, same);
        }
        entry.used = self.uses;
        Some(&entry.value)
    }

    /// Keeps a value of so many bytes in place of the one before; what is larger than all there is room for is not kept.
    pub(crate) fn put(&mut self, name: &K, value: V, bytes: usize) {
        self.remove(name);
        let bytes = bytes + ENTRY_BYTES + 2 * name.length();
        if bytes > self.most_bytes {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        self.order.insert(self.uses, name.clone());
        self.entries.insert(name.clone(), Entry { value, bytes, used: self.uses });
        while self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.bytes -= self.entries.remove(&oldest).map_or(0, |entry| entry.bytes);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    pub(crate) fn remove(&mut self, name: &K) -> Option<V> {
        let entry = self.entries.remove(name)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> RepositoryName {
        format!("a{number:03}").parse().unwrap()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let each = 1000 + ENTRY_BYTES + 8;
        let mut lru = Lru::new(3 * each);
        for number in 0..3 {
            lru.put(&name(number), number, 1000);
        }
        assert_eq!(lru.get(&name(0)), Some(&0), "three fit");
        lru.put(&name(3), 3, 1000);
        assert_eq!([0, 1, 2, 3].map(|number| lru.get(&name(number)).copied()), [Some(0), None, Some(2), Some(3)]);
        assert_eq!(lru.bytes, 3 * each);
    }

    #[test]
    fn one_at_the_limit_and_one_past_it() {
        let mut lru = Lru::new(2000);
        lru.put(&name(0), (), 2000 - ENTRY_BYTES - 8);
        assert!(lru.get(&name(0)).is_some());
        lru.put(&name(0), (), 2001 - ENTRY_BYTES - 8);
        assert!(lru.get(&name(0)).is_none(), "and the one before is not there either");
        assert_eq!((lru.bytes, lru.order.len(), lru.entries.len()), (0, 0, 0));
    }
}
