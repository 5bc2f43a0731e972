//! Says in the log what time alone brings about, for whoever reads nothing else: when it becomes so, then once a day.
//!
//! Must not know what ages: that is `status`'s, which says the same to the probes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::generation::Generations;
use crate::status;

/// How soon it is said; what ages does so in days.
const PERIOD: Duration = Duration::from_secs(1);

/// When each sentence was said last.
#[derive(Debug, Default)]
struct Reminders(HashMap<String, OffsetDateTime>);

impl Reminders {
    /// Those of `sentences` that are to be said at `now`; one that is not among them any more is new when it comes again.
    fn due(&mut self, sentences: Vec<String>, now: OffsetDateTime) -> Vec<String> {
        self.0.retain(|sentence, _| sentences.contains(sentence));
        let is_due = |said: Option<&OffsetDateTime>| said.is_none_or(|said| now - *said >= time::Duration::DAY);
        let due: Vec<String> = sentences.into_iter().filter(|sentence| is_due(self.0.get(sentence))).collect();
        self.0.extend(due.iter().map(|sentence| (sentence.clone(), now)));
        due
    }
}

/// Looks at the generation in force, at once and then every second, until `stop` turns true.
pub(crate) async fn run(generations: Arc<Generations>, mut stop: watch::Receiver<bool>) {
    let mut reminders = Reminders::default();
    loop {
        let now = OffsetDateTime::now_utc();
        for reason in reminders.due(status::aging(&generations.current(), now), now) {
            tracing::warn!(%reason, "something of this server's runs out");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn once_when_it_becomes_so_then_daily() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let mut reminders = Reminders::default();
        let mut said = |seconds, sentences: &[&str]| {
            let sentences = sentences.iter().map(ToString::to_string).collect();
            reminders.due(sentences, start + Duration::seconds(seconds)).join(" ")
        };
        assert_eq!(said(0, &[]), "");
        assert_eq!(said(1, &["a"]), "a");
        assert_eq!(said(2, &["a", "b"]), "b");
        assert_eq!(said(86_400, &["a", "b"]), "");
        assert_eq!(said(86_401, &["a", "b"]), "a");
        assert_eq!(said(86_402, &["a", "b"]), "b");
        assert_eq!(said(86_403, &["b"]), "", "a is over");
        assert_eq!(said(86_404, &["a", "b"]), "a", "and new again");
        assert_eq!(said(2 * 86_400 + 2, &["a", "b"]), "b");
    }
}
