//! Why an archive is not taken. Names in it are whoever's who made it, and are shown escaped.

use std::io;

use portcullis_certs::Visible;

/// What is wrong with an image archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// It could not be read.
    #[error("it cannot be read: {source}")]
    Io {
        /// The cause.
        source: io::Error,
    },
    /// It is a pipe, a device or a directory: its files are read in another order than they stand in.
    #[error("it is no regular file")]
    NotAFile,
    /// A stream that ended before anything came.
    #[error("nothing came: what writes to it has failed, or has nothing to say")]
    Empty,
    /// A stream of more bytes than are taken.
    #[error("more than {limit} bytes came: write the archive to a file, and name that")]
    TooLong {
        /// The bound.
        limit: u64,
    },
    /// It is compressed as a whole.
    #[error("it is compressed with {program}: unpack it first ({program} -d)")]
    Compressed {
        /// What unpacks it.
        program: &'static str,
    },
    /// It ends in the middle of a header.
    #[error("it ends at byte {at}, in the middle of a header")]
    Truncated {
        /// Where.
        at: u64,
    },
    /// A header that no tar program writes.
    #[error("the header at byte {at} cannot be understood: {reason}")]
    Header {
        /// Where.
        at: u64,
        /// Why not.
        reason: &'static str,
    },
    /// A file is said to be longer than the archive.
    #[error("{} is said to have {size} bytes, and the archive ends before", Visible(name))]
    Beyond {
        /// Its name; empty for an extended header.
        name: String,
        /// The size stated.
        size: u64,
    },
    /// A name that leads out of the archive, or that is none.
    #[error("the name {} leads out of the archive or is none", Visible(name))]
    Name {
        /// The name, cut.
        name: String,
    },
    /// A link that leads out of the archive.
    #[error("{} is a link to {}, out of the archive", Visible(name), Visible(target))]
    Link {
        /// Its name.
        name: String,
        /// Its target, cut.
        target: String,
    },
    /// One name stands for two things.
    #[error("{} stands in it twice", Visible(name))]
    Twice {
        /// The name.
        name: String,
    },
    /// A device, a pipe, or something else that no image has.
    #[error("{} is of type {kind:?}, which no image archive holds", Visible(name))]
    Special {
        /// Its name.
        name: String,
        /// The type's letter in the header.
        kind: char,
    },
    /// More files than [`crate::MAX_ENTRIES`].
    #[error("it holds more than {limit} files")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// Neither a layout nor the list that `docker save` writes.
    #[error("it holds neither oci-layout nor manifest.json, so it is no image archive")]
    NoImages,
    /// A file that must be there is not.
    #[error("{} is missing in it", Visible(name))]
    Missing {
        /// Its name.
        name: String,
    },
    /// A file of JSON is too large.
    #[error("{} has {size} bytes, at most {limit} are taken", Visible(name))]
    TooLarge {
        /// Its name.
        name: String,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// A file cannot be understood.
    #[error("{} cannot be understood: {reason}", Visible(name))]
    Unreadable {
        /// Its name.
        name: String,
        /// Why not, escaped.
        reason: String,
    },
    /// Config and layers do not fit together.
    #[error("{} lists {diff_ids} layers, manifest.json {layers}", Visible(config))]
    Layers {
        /// The config's name.
        config: String,
        /// How many layers the config knows.
        diff_ids: usize,
        /// How many the archive has.
        layers: usize,
    },
}
