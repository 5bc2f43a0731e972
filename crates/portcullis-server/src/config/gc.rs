//! The table `[gc]`.

use std::time::Duration;

use super::set;
use crate::document::{Problems, Table, parse_duration};

/// When garbage is collected, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gc {
    /// From one collection to the next; `None`: only when somebody asks for one.
    pub interval: Option<Duration>,
    /// Nothing younger is collected.
    pub grace: Duration,
    /// How long collected blobs stay in the trash.
    pub trash: Duration,
    /// Whether untagged manifests go.
    pub untagged: bool,
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_hours(24)),
            grace: Duration::from_hours(1),
            trash: Duration::from_hours(24),
            untagged: false,
        }
    }
}

impl Gc {
    pub(super) fn read(&mut self, mut table: Table<'_>, problems: &mut Problems<'_>) {
        const SHORTEST: Duration = Duration::from_mins(1);
        let interval = table.parsed(problems, "interval", "a time from \"1m\" on, or \"off\"", |text| match text {
            "off" => Some(None),
            text => parse_duration(text).filter(|interval| *interval >= SHORTEST).map(Some),
        });
        set(&mut self.interval, interval);
        // With less the collector would race every push that is not instant.
        let grace = table.parsed(problems, "grace", "a time from \"1m\" on", |text| {
            parse_duration(text).filter(|grace| *grace >= SHORTEST)
        });
        set(&mut self.grace, grace);
        set(&mut self.trash, table.duration(problems, "trash"));
        set(&mut self.untagged, table.boolean(problems, "untagged").map(|untagged| untagged.value));
        table.finish(problems, &["interval", "grace", "trash", "untagged"]);
    }
}
