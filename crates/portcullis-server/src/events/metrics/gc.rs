//! What collections have done since the start, counted.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use time::OffsetDateTime;

use crate::gc::{GcCounts, GcReport, GcResult};

/// Dry runs are not counted.
#[derive(Debug, Default)]
pub(crate) struct GcCounters {
    runs: Family<ResultLabels, Counter>,
    removed_manifests: Counter,
    removed_links: Counter,
    removed_blobs: Counter,
    removed_bytes: Counter,
    freed_blobs: Counter,
    freed_bytes: Counter,
    last_duration: Gauge<f64, AtomicU64>,
    last_end: Gauge,
    last_held: Gauge,
    last_strangers: Gauge,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl GcCounters {
    /// A collection that has ended after `took`.
    pub(crate) fn ended(&self, report: &GcReport, took: Duration) {
        if report.dry_run {
            return;
        }
        let result = report.result.unwrap_or(GcResult::Failed).as_str();
        self.runs.get_or_create(&ResultLabels { result }).inc();
        let GcCounts { manifests, links, blobs, bytes } = report.removed;
        self.removed_manifests.inc_by(manifests);
        self.removed_links.inc_by(links);
        self.removed_blobs.inc_by(blobs);
        self.removed_bytes.inc_by(bytes);
        self.purged(report.purged);
        self.last_duration.set(took.as_secs_f64());
        self.last_end.set(OffsetDateTime::now_utc().unix_timestamp());
        self.last_held.set(i64::try_from(report.repositories_held).unwrap_or(i64::MAX));
        self.last_strangers.set(i64::try_from(report.strangers.len()).unwrap_or(i64::MAX));
    }

    /// What has left the trash for good.
    pub(crate) fn purged(&self, purged: GcCounts) {
        self.freed_blobs.inc_by(purged.blobs);
        self.freed_bytes.inc_by(purged.bytes);
    }

    pub(super) fn register(&self, page: &mut Registry) {
        page.register("gc_runs", "Garbage collections that ended, by how; dry runs are not counted", self.runs.clone());
        let counters = [
            ("gc_removed_untagged", "Untagged manifests that collections removed", &self.removed_manifests),
            ("gc_removed_links", "Layer links that collections removed", &self.removed_links),
            ("gc_removed_blobs", "Blobs that collections moved to the trash", &self.removed_blobs),
            ("gc_freed_blobs", "Blobs that left the trash for good", &self.freed_blobs),
        ];
        for (name, help, counter) in counters {
            page.register(name, help, counter.clone());
        }
        let removed = "The bytes of the blobs that collections moved to the trash";
        page.register_with_unit("gc_removed", removed, Unit::Bytes, self.removed_bytes.clone());
        let freed = "The bytes of the blobs that left the trash for good";
        page.register_with_unit("gc_freed", freed, Unit::Bytes, self.freed_bytes.clone());
        if self.last_end.get() == 0 {
            // Before the first has ended a zero would read as a collection in 1970.
            return;
        }
        let took = "How long the last collection took";
        page.register_with_unit("gc_last_duration", took, Unit::Seconds, self.last_duration.clone());
        page.register("gc_last_end_time_seconds", "When the last collection ended, Unix time", self.last_end.clone());
        let held = "Repositories that the last collection removed nothing from";
        page.register("gc_held_repositories", held, self.last_held.clone());
        let strangers = "Directories that are no repository and kept the last collection from removing blobs";
        page.register("gc_strangers", strangers, self.last_strangers.clone());
    }
}
