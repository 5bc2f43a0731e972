//! The words for what a check finds.

use std::time::Duration;

use portcullis_certs::Visible;
use portcullis_store::fsck::{By, Damage, Fact, Finding, Fsck, Missing, Progress, Purpose, Repaired, Unfit, User};

use super::approximate;
use crate::home::Home;

/// How many users of a thing are shown; `--json` has them all.
const SHOWN: usize = 8;

/// One finding: what is wrong and where, who is concerned, what was done.
pub(super) fn finding(finding: &Finding) -> Vec<String> {
    let severity = if finding.is_note() { "note: " } else { "" };
    let mut lines = vec![format!("{}: {severity}{}", Visible(&finding.path), fact(&finding.fact))];
    for user in finding.users.iter().take(SHOWN) {
        lines.push(format!("  used by {}", used_by(user)));
    }
    if finding.users.len() > SHOWN {
        lines.push(format!("  used by {} more", finding.users.len() - SHOWN));
    }
    lines.extend(finding.repaired.as_ref().map(|done| format!("  {}", repaired(done))));
    lines
}

fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Damage(damage) => self::damage(damage),
        Fact::Unfit(unfit) => self::unfit(unfit),
    }
}

fn damage(damage: &Damage) -> String {
    match damage {
        Damage::BlobCorrupt { digest, actual, size } => {
            format!("the bytes of {digest} are not its own: {size} bytes with the digest {actual}")
        }
        Damage::BlobUnreadable { digest, reason } => format!("{digest} cannot be read: {}", Visible(reason)),
        Damage::LinkUnreadable { reason } => format!("the link cannot be read: {}", Visible(reason)),
        Damage::LinkEmpty => "the link is empty".to_owned(),
        Damage::LinkGarbled { text } => format!("the link holds no digest but {:?}", Visible(text).to_string()),
        Damage::LinkMismatched { digest, target } => format!("the link of {digest} leads to {target}"),
        Damage::LinkDangling { target } => format!("the manifest's link leads to {target}, whose data is not there"),
        Damage::TagWithoutLink { tag } => format!("the tag {tag} leads nowhere: it has no current link"),
        Damage::TagDangling { tag, target } => {
            format!("the tag {tag} leads to {target}, which this repository does not have")
        }
        Damage::ManifestUnreadable { manifest, reason } => {
            format!("{manifest} is no manifest that can be read: {}", Visible(reason))
        }
        Damage::BlobMissing { manifest, blob, missing: Missing::Data } => {
            format!("the manifest {manifest} names {blob}, whose data is not there")
        }
        Damage::BlobMissing { manifest, blob, missing: Missing::Link } => {
            format!("the manifest {manifest} names {blob}, to which the repository has no link")
        }
        Damage::ChildMissing { manifest, child } => {
            format!("the index {manifest} lists {child}, which this repository does not have")
        }
        Damage::UnknownAlgorithm { algorithm, names } => {
            format!("{names} names under the digest algorithm {}, which is not known here", Visible(algorithm))
        }
    }
}

fn unfit(unfit: &Unfit) -> String {
    match unfit {
        Unfit::MediaType { manifest, media_type } => format!(
            "{manifest} has the media type {}: Distribution answers 500, and its collector stops here",
            Visible(media_type)
        ),
        Unfit::Schema1 { manifest } => format!(
            "{manifest} is of schema 1: only 2.x with compatibility.schema1.enabled reads it, else Distribution answers 500 and its collector stops here"
        ),
        Unfit::Json { manifest, field } => format!(
            "{manifest} has a value in {} that Distribution cannot read: it answers 500, and its collector stops here",
            Visible(field)
        ),
        Unfit::Alias { manifest, blob, target } => format!(
            "the manifest {manifest} names {}, whose data lies under {target}: Distribution's collector removes it",
            Visible(blob)
        ),
        Unfit::UntaggedReferrer { manifest, subject } => format!(
            "{manifest} refers to {} and has no tag: garbage-collect --delete-untagged removes it",
            Visible(subject)
        ),
    }
}

fn used_by(user: &User) -> String {
    match &user.by {
        By::Tag(tag) => format!("{}:{tag}", user.repository),
        By::Manifest(digest) => format!("{}, manifest {digest}", user.repository),
        By::Link(_) => format!("{}, a link", user.repository),
    }
}

fn repaired(repaired: &Repaired) -> String {
    match repaired {
        Repaired::MovedAside { to } => format!("moved aside to {}: a push brings it back", Visible(to)),
        Repaired::BroughtBack => "brought back from the trash".to_owned(),
        Repaired::Linked => "the link is written again".to_owned(),
    }
}

/// One line in the end.
pub(super) fn summary(run: &Fsck) -> String {
    let damaged = run.findings().iter().filter(|finding| !finding.is_note()).count() as u64 + run.omitted();
    let found = match (run.purpose(), damaged) {
        (Purpose::ForDistribution, 0) => "Distribution can keep and serve all of it".to_owned(),
        (Purpose::ForDistribution, found) => format!("{found} things that Distribution cannot keep or serve"),
        (_, 0) => "all is well".to_owned(),
        (_, found) => format!("{found} things are damaged"),
    };
    let leftovers = match run.counts().leftovers {
        0 => String::new(),
        some => format!("; {some} layer links lead to nothing and are missed by no manifest"),
    };
    let omitted = if run.omitted() > 0 { format!("; {} of them not listed", run.omitted()) } else { String::new() };
    format!("{}: {found}{omitted}{leftovers}", counts(run))
}

/// What was looked at.
pub(super) fn counts(run: &Fsck) -> String {
    let counts = run.counts();
    let hashed = format!("{} blobs ({}), ", counts.blobs, size(counts.bytes));
    let hashed = if run.purpose() == Purpose::ForDistribution { String::new() } else { hashed };
    format!("{hashed}{} repositories, {} manifests, {} tags", counts.repositories, counts.manifests, counts.tags)
}

/// What to type next.
pub(super) fn verdict(run: &Fsck, home: &Home) -> String {
    match run.purpose() {
        Purpose::Check => format!(
            "damage was found, and is treated as absent; to repair what can be repaired: {}",
            home.command(&["fsck", "--repair"])
        ),
        Purpose::Repair => format!("damage was found; to see what is left of it: {}", home.command(&["fsck"])),
        Purpose::ForDistribution => {
            "not all of it can go back to Distribution; copy it elsewhere, or give untagged referrers a tag".to_owned()
        }
    }
}

/// A bar for the blobs, whose part that is done is known; counts for the repositories.
pub(super) fn progress(run: &Fsck, read: u64, elapsed: Duration) -> String {
    const WIDTH: usize = 20;
    match run.progress() {
        Progress::Blobs(part) => {
            let filled =
                (0..WIDTH).filter(|at| (f64::from(u8::try_from(*at).unwrap_or(0)) + 1.0) / 20.0 <= part).count();
            let pace = approximate(read) / elapsed.as_secs_f64().max(0.001);
            format!(
                "blobs [{}{}] {:3.0} %  {}  {}/s",
                "#".repeat(filled),
                " ".repeat(WIDTH - filled),
                part * 100.0,
                size(run.counts().bytes),
                in_units(pace)
            )
        }
        Progress::Repositories | Progress::Done => counts(run),
    }
}

fn size(bytes: u64) -> String {
    in_units(approximate(bytes))
}

fn in_units(bytes: f64) -> String {
    let mut amount = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{amount:.0} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_read_them() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 41, "2.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn text_from_the_disk_is_made_visible() {
        let text = "sha256:\u{1b}[2J\n".to_owned();
        let finding = Finding {
            path: "a/link".to_owned(),
            repository: None,
            fact: Damage::LinkGarbled { text }.into(),
            users: Vec::new(),
            repaired: None,
        };
        let lines = self::finding(&finding);
        assert!(!lines[0].contains('\u{1b}') && !lines[0].contains('\n'), "{lines:?}");
    }
}
