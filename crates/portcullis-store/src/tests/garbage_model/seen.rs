//! What the store shows of a world, held against what must be there: nothing alive is lost, and in the end all that is
//! dead is gone.

use super::*;

impl World {
    pub(super) fn sees_manifest(&self, repository: usize, number: usize) -> bool {
        let found = self.store.manifest(&name(repository), &by_digest(number)).unwrap();
        found.is_some_and(|found| found.bytes == manifest(number))
    }

    pub(super) fn sees_blob(&self, repository: usize, blob: usize) -> bool {
        let found = self.store.open_blob(&name(repository), &digest(&content(blob))).unwrap();
        found.is_some_and(|found| {
            let mut bytes = vec![0; usize::try_from(found.size()).unwrap()];
            found.read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, content(blob));
            true
        })
    }

    /// The manifests that must be there: all that were put or, where untagged ones go, what the tags lead to.
    pub(super) fn living(&self, repository: usize) -> BTreeSet<usize> {
        if !self.untagged {
            return self.manifests[repository].clone();
        }
        let mut rest: Vec<usize> = self.tags[repository].values().copied().collect();
        let mut living = BTreeSet::new();
        while let Some(number) = rest.pop() {
            if self.manifests[repository].contains(&number) && living.insert(number) {
                match number {
                    0 => rest.push(4),
                    2 => rest.extend([0, 1]),
                    3 => rest.push(2),
                    _ => {}
                }
            }
        }
        living
    }

    /// Nothing alive is lost. Looks through another store, whose questions promise nothing.
    pub(super) fn check(&self, after: &str) {
        let trap = self.bucket.disarm();
        for repository in 0..2 {
            for number in self.living(repository) {
                assert!(self.sees(repository, number), "after {after}: manifest {number} of {repository} is lost");
            }
            for number in (0..MANIFESTS).filter(|number| self.sees(repository, *number)) {
                for blob in blobs_of(number) {
                    assert!(self.sees_blob(repository, blob), "after {after}: manifest {number} has lost blob {blob}");
                }
            }
            for (tag, number) in &self.tags[repository] {
                let found = self.store.manifest(&name(repository), &ManifestReference::Tag(tag_name(*tag))).unwrap();
                let found = found.map(|found| found.digest);
                assert_eq!(found, Some(digest(&manifest(*number))), "after {after}: tag {tag}");
            }
        }
        for ((repository, blob), until) in &self.promised {
            if self.minutes < *until {
                assert!(self.sees_blob(*repository, *blob), "after {after}: blob {blob} of {repository} was promised");
            }
        }
        self.bucket.arm(trap);
    }

    /// Without asking for it by its digest, which would keep it where untagged manifests go.
    pub(super) fn sees(&self, repository: usize, number: usize) -> bool {
        let link = crate::layout::revision_link(&name(repository), &digest(&manifest(number)));
        self.store.inner.read_link(&link).unwrap().is_some_and(|target| {
            self.store.inner.manifest_data(&link, &target).unwrap().is_some_and(|bytes| bytes == manifest(number))
        })
    }

    /// When nobody asks for anything any more, one collection takes all that nothing leads to, and the trash goes too.
    pub(super) fn check_that_the_dead_go(&mut self) {
        self.restart();
        self.bucket.advance(GRACE * 2);
        self.collect(usize::MAX).unwrap();
        self.minutes += 120;
        self.check("the last collection");
        let mut expected = BTreeSet::new();
        for repository in 0..2 {
            let app = name(repository);
            for number in self.living(repository) {
                let found = digest(&manifest(number));
                expected.insert(crate::layout::revision_link(&app, &found).as_str().to_owned());
                expected.insert(crate::layout::blob_data(&found).as_str().to_owned());
                for child in Manifest::parse(&manifest(number), None).unwrap().children() {
                    // An index keeps the bytes of what it lists, also where that was deleted from the repository.
                    self.keep_if_there(&mut expected, &child.digest);
                }
                if number == 4 {
                    self.keep_if_there(&mut expected, &digest(&manifest(0)));
                }
                for blob in blobs_of(number).into_iter().map(|blob| digest(&content(blob))) {
                    expected.insert(crate::layout::layer_link(&app, &blob).as_str().to_owned());
                    expected.insert(crate::layout::blob_data(&blob).as_str().to_owned());
                }
            }
            for tag in self.tags[repository].keys() {
                expected.insert(crate::layout::tag_link(&app, &tag_name(*tag)).as_str().to_owned());
            }
        }
        let left: BTreeSet<String> = self.bucket.keys().into_iter().collect();
        assert_eq!(left, expected);
        self.bucket.advance(Duration::from_hours(25));
        self.collect(usize::MAX).unwrap();
        assert_eq!(self.bucket.retired(), 0, "blobs are left in the trash");
    }

    pub(super) fn keep_if_there(&self, expected: &mut BTreeSet<String>, digest: &Digest) {
        let data = crate::layout::blob_data(digest);
        if self.bucket.keys().iter().any(|key| key == data.as_str()) {
            expected.insert(data.as_str().to_owned());
        }
    }
}
