//! Names in order, a few at a time: what is below one prefix, and all repositories.
//!
//! A walk meets every repository that was there when it began and is still there; must not know what they hold.

use std::collections::VecDeque;

use portcullis_oci::RepositoryName;

use crate::error::StoreError;
use crate::layout::{self, Prefix};
use crate::store::Inner;

/// How many names are asked of the backend at once: a disk reads the whole directory for each page.
const PAGE: usize = 10_000;
/// How many names that are no repository's are told.
const MAX_STRANGERS: usize = 100;

/// The names below one prefix.
#[derive(Debug)]
pub(super) struct Names {
    prefix: Prefix,
    page: VecDeque<String>,
    after: Option<String>,
    /// The last page was read.
    last: bool,
}

/// A walk over all repositories, the ones above first.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// For each level that is being walked: its path, and the names that are left.
    levels: Vec<(String, Names)>,
    begun: bool,
}

/// What a step of a walk met.
pub(super) enum Next {
    Repository(RepositoryName),
    /// Something else: ask again.
    Later,
    End,
}

impl Names {
    pub(super) fn below(prefix: Prefix) -> Self {
        Self { prefix, page: VecDeque::new(), after: None, last: false }
    }

    pub(super) fn next(&mut self, inner: &Inner) -> Result<Option<String>, StoreError> {
        if self.page.is_empty() && !self.last {
            self.page = inner.backend.list(&self.prefix, self.after.as_deref(), PAGE)?.into();
            self.last = self.page.len() < PAGE;
            self.after = self.page.back().cloned();
        }
        Ok(self.page.pop_front())
    }
}

impl Walk {
    /// A name that could not be a repository's and has something below it is a stranger: perhaps a repository that
    /// somebody moved aside, with links that nobody can see.
    pub(super) fn next(&mut self, inner: &Inner, strangers: &mut Vec<String>) -> Result<Next, StoreError> {
        if !self.begun {
            self.begun = true;
            self.levels.push((String::new(), Names::below(layout::repositories_below(""))));
        }
        let Some((path, names)) = self.levels.last_mut() else { return Ok(Next::End) };
        let Some(name) = names.next(inner)? else {
            self.levels.pop();
            return Ok(Next::Later);
        };
        if !path.is_empty() && layout::is_part_of_repository(&name) {
            return Ok(Next::Later);
        }
        let below = if path.is_empty() { name } else { format!("{path}/{name}") };
        match below.parse::<RepositoryName>() {
            Ok(repository) => {
                self.levels.push((below, Names::below(layout::repositories_below(repository.as_str()))));
                Ok(Next::Repository(repository))
            }
            Err(_) => {
                // No path leads into what cannot be spelled, so that nobody knows what it holds.
                let holds_something = !layout::is_spelled(&below)
                    || !inner.backend.list(&layout::repositories_below(&below), None, 1)?.is_empty();
                if holds_something && strangers.len() < MAX_STRANGERS && !strangers.contains(&below) {
                    strangers.push(below);
                }
                Ok(Next::Later)
            }
        }
    }
}
