//! Tags, and the list of repositories: the names that are listed in pages.

use portcullis_oci::{RepositoryName, Tag};

use crate::error::StoreError;
use crate::layout;
use crate::store::{Inner, Store};
use crate::tag_names::Effect;

/// How many names are asked of the backend at once.
const PAGE: usize = 1000;

impl Store {
    /// At most `limit` tags that sort after `after`, in byte order. `None`: no such repository.
    pub fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        let mut tags = Vec::new();
        self.inner.each_tag(repository, after, |tag| {
            // A name without a link is what Distribution, or a power cut, left of a tag.
            if tags.len() < limit && self.inner.backend.stat(&layout::tag_link(repository, &tag))?.is_some() {
                tags.push(tag);
            }
            Ok(tags.len() < limit)
        })?;
        let exists = !tags.is_empty() || self.inner.repository_exists(repository)?;
        Ok(exists.then_some(tags))
    }

    /// Removes a tag; the manifest stays. `false`: it was not there.
    ///
    /// # Errors
    /// [`StoreError::TagImmutable`].
    pub fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        let _repository = self.inner.lock_repository(repository);
        self.check_tag_may_change(repository, tag, None)?;
        self.inner.remove_tag(repository, tag)
    }

    /// At most `limit` repositories after `after`, ordered component by component, as Distribution orders its catalog:
    /// `a`, `a/b`, `a-b`.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<RepositoryName>, StoreError> {
        self.repositories_where(after, limit, &|_| true)
    }

    /// The same, without those below a repository or directory of which `enter` says `false`. What lies there is not
    /// looked at.
    pub fn repositories_where(
        &self,
        after: Option<&str>,
        limit: usize,
        enter: &dyn Fn(&RepositoryName) -> bool,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let after: Vec<&str> = after.map(|after| after.split('/').collect()).unwrap_or_default();
        let mut walk = Walk { inner: &self.inner, limit, enter, found: Vec::new() };
        walk.below("", &after)?;
        Ok(walk.found)
    }
}

/// A walk through the directories of repositories, in the catalog's order.
struct Walk<'a> {
    inner: &'a Inner,
    limit: usize,
    enter: &'a dyn Fn(&RepositoryName) -> bool,
    found: Vec<RepositoryName>,
}

impl Inner {
    /// Calls `each` with the tags after `after`, in byte order, until it returns `false`. Whether they have a link is
    /// not looked at.
    pub(crate) fn each_tag(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        mut each: impl FnMut(Tag) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(names) = self.tag_names(repository)? else { return self.each_tag_in_pages(repository, after, each) };
        for tag in names.after(after).filter_map(|name| name.parse().ok()) {
            if !each(tag)? {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` with all tags, in no order, until it returns `false`. Whether they have a link is not looked at. For
    /// whoever reads all of them: no name is held, and the directory is read once.
    pub(crate) fn scan_tags(
        &self,
        repository: &RepositoryName,
        mut each: impl FnMut(Tag) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.backend.scan(&layout::tags(repository), &mut |name| match name.parse() {
            Ok(tag) => each(tag),
            Err(_) => Ok(true),
        })
    }

    /// The caller holds the repository's lock.
    pub(crate) fn remove_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        let remove = || self.backend.delete_below(&layout::tag(repository, tag));
        self.following(repository, tag, Effect::Removes, remove)
    }

    fn each_tag_in_pages(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        mut each: impl FnMut(Tag) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = after.map(str::to_owned);
        loop {
            let names = self.backend.list(&layout::tags(repository), after.as_deref(), PAGE)?;
            for name in &names {
                if let Ok(tag) = name.parse()
                    && !each(tag)?
                {
                    return Ok(());
                }
            }
            if names.len() < PAGE {
                return Ok(());
            }
            after = names.into_iter().next_back();
        }
    }

    fn repository_exists(&self, repository: &RepositoryName) -> Result<bool, StoreError> {
        for mark in layout::marks_of_repository(repository) {
            if !self.backend.list(&mark, None, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Walk<'_> {
    /// Adds what lies below `path` and sorts after the components `after`.
    fn below(&mut self, path: &str, after: &[&str]) -> Result<(), StoreError> {
        if let Some((first, rest)) = after.split_first() {
            // What lies below `first` sorts after it. `after` is a client's text: only a name may become a path.
            if let Some(repository) = repository_below(path, first)
                && (self.enter)(&repository)
            {
                self.below(repository.as_str(), rest)?;
            }
        }
        let mut after = after.first().map(|first| (*first).to_owned());
        while self.found.len() < self.limit {
            let names = self.inner.backend.list(&layout::repositories_below(path), after.as_deref(), PAGE)?;
            for repository in names.iter().filter_map(|name| repository_below(path, name)) {
                self.visit(&repository)?;
            }
            if names.len() < PAGE {
                break;
            }
            after = names.into_iter().next_back();
        }
        Ok(())
    }

    fn visit(&mut self, repository: &RepositoryName) -> Result<(), StoreError> {
        if self.found.len() < self.limit && self.inner.repository_exists(repository)? {
            self.found.push(repository.clone());
        }
        if self.found.len() < self.limit && (self.enter)(repository) {
            self.below(repository.as_str(), &[])?;
        }
        Ok(())
    }
}

/// `None` for what cannot be part of a repository's name, such as `_layers`.
fn repository_below(path: &str, name: &str) -> Option<RepositoryName> {
    if path.is_empty() { name.parse().ok() } else { format!("{path}/{name}").parse().ok() }
}
