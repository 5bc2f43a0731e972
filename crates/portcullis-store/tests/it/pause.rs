//! A pause of collections outlives the process that was asked for it.

use std::fs;
use std::time::Duration;

use portcullis_store::Store;

use crate::{Fixture, write};

const FILE: &str = "portcullis/gc/pause";

fn seconds(store: &Store) -> Option<u64> {
    store.paused().map(|left| left.as_secs())
}

#[test]
fn it_holds_after_a_restart_until_it_is_ended() {
    let mut fixture = Fixture::new();
    assert_eq!(seconds(fixture.store()), None);
    fixture.store().pause(Duration::from_hours(1)).unwrap();
    for _ in 0..2 {
        assert!(seconds(fixture.store()).is_some_and(|left| (3000..=3600).contains(&left)));
        fixture.reopen();
    }
    fixture.store().resume().unwrap();
    assert_eq!(seconds(fixture.store()), None);
    fixture.reopen();
    assert_eq!((seconds(fixture.store()), fixture.path(FILE).exists()), (None, false));
    fixture.store().resume().unwrap();
}

#[test]
fn a_week_is_the_longest() {
    let mut fixture = Fixture::new();
    let week = Store::LONGEST_PAUSE.as_secs();
    fixture.store().pause(Duration::MAX).unwrap();
    assert!(seconds(fixture.store()).is_some_and(|left| (week - 600..=week).contains(&left)));
    // As a clock that was set back makes it look.
    fs::write(fixture.path(FILE), u64::MAX.to_string()).unwrap();
    fixture.reopen();
    assert!(seconds(fixture.store()).is_some_and(|left| (week - 600..=week).contains(&left)));
}

#[test]
fn it_ends_by_itself() {
    let mut fixture = Fixture::new();
    write(&fixture.path(FILE), "1764000000");
    fixture.reopen();
    assert_eq!(seconds(fixture.store()), None);
    fixture.store().pause(Duration::ZERO).unwrap();
    assert_eq!(seconds(fixture.store()), None);
}

/// What cannot be read never means that something may go.
#[test]
fn what_says_no_time_is_a_pause() {
    let mut fixture = Fixture::new();
    for text in ["", "soon", "-1", "176400000000000000000000"] {
        write(&fixture.path(FILE), text);
        fixture.reopen();
        assert!(seconds(fixture.store()).is_some_and(|left| left > 600_000), "{text:?}");
    }
    fixture.store().resume().unwrap();
    fixture.reopen();
    assert_eq!(seconds(fixture.store()), None);
}
