//! What is in a tar archive, and where: its headers are read one after the other, its contents are not. Archives come
//! from anywhere, so what two readers could take for different things is refused, and so is all that leads out of the
//! archive. Must not know what the files are for.
//!
//! The walk is ours because that of the `tar` crate reads extended headers of any length into memory; headers are the
//! crate's.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use tar::{EntryType, Header};

use super::fault::ArchiveFault;

mod extended;

use extended::Extended;

/// The most files, links and directories of one archive. `docker save` writes three for each layer.
pub const MAX_ENTRIES: usize = 65_536;

/// The longest name of a file in an archive, and the longest target of a link, in bytes.
pub const MAX_NAME: usize = 1024;

/// The longest extended header (pax, or GNU's long name), in bytes.
pub const MAX_EXTENDED: u64 = 64 * 1024;

/// How many links in a row are followed.
const MAX_LINKS: usize = 8;

const BLOCK: u64 = 512;

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) size: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File(Span),
    /// To another name in the archive, made whole.
    Link(String),
    Directory,
}

/// All names of an archive.
#[derive(Debug, Default)]
pub(super) struct Entries(HashMap<String, Entry>);

impl Entries {
    /// Reads the headers of an archive of `length` bytes.
    pub(super) fn read(file: &File, length: u64) -> Result<Self, ArchiveFault> {
        let mut entries = Self::default();
        let mut walk = Walk { file, length, at: 0 };
        let mut extended = Extended::default();
        while let Some(header) = walk.header()? {
            let kind = header.entry_type();
            let stated = header.entry_size().map_err(|_| walk.unreadable("its size is no number"))?;
            if extended.takes(kind) {
                let text = walk.small(stated)?;
                extended.add(kind, &text).map_err(|reason| walk.unreadable(reason))?;
                continue;
            }
            let extended = std::mem::take(&mut extended);
            let name = name_of(&header, extended.path.as_deref())?;
            let entry = match kind {
                EntryType::Regular | EntryType::Continuous if !name.is_directory => {
                    Entry::File(walk.content(extended.size.unwrap_or(stated), &name.text)?)
                }
                EntryType::Regular | EntryType::Directory => Entry::Directory,
                EntryType::Symlink => Entry::Link(link_of(&header, extended.link.as_deref(), &name.text, true)?),
                EntryType::Link => Entry::Link(link_of(&header, extended.link.as_deref(), &name.text, false)?),
                other => return Err(ArchiveFault::Special { name: name.text, kind: char::from(other.as_byte()) }),
            };
            entries.add(name.text, entry)?;
        }
        Ok(entries)
    }

    /// The file of this name, links followed.
    pub(super) fn file(&self, name: &str) -> Option<Span> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            match self.0.get(name)? {
                Entry::File(span) => return Some(*span),
                Entry::Link(target) => name = target,
                Entry::Directory => return None,
            }
        }
        None
    }

    fn add(&mut self, name: String, entry: Entry) -> Result<(), ArchiveFault> {
        if self.0.len() == MAX_ENTRIES {
            return Err(ArchiveFault::TooMany { limit: MAX_ENTRIES });
        }
        match self.0.get(&name) {
            // Whoever adds to an archive names the directories again.
            Some(Entry::Directory) if entry == Entry::Directory => Ok(()),
            Some(_) => Err(ArchiveFault::Twice { name }),
            None => {
                self.0.insert(name, entry);
                Ok(())
            }
        }
    }
}

/// A place in the archive.
struct Walk<'a> {
    file: &'a File,
    length: u64,
    at: u64,
}

impl Walk<'_> {
    /// The next header; `None` at the end, which GNU tar and Go take with its two empty blocks or without.
    fn header(&mut self) -> Result<Option<Header>, ArchiveFault> {
        if self.at >= self.length {
            return Ok(None);
        }
        let block = self.block()?;
        if block == [0; 512] {
            let last = self.at >= self.length || self.block()? == [0; 512];
            return if last { Ok(None) } else { Err(self.unreadable("an empty block stands in the middle")) };
        }
        let header = Header::from_byte_slice(&block).clone();
        match header.cksum() {
            Ok(stated) if stated == checksum(&block) => Ok(Some(header)),
            _ => Err(self.unreadable("its checksum is wrong")),
        }
    }

    fn block(&mut self) -> Result<[u8; 512], ArchiveFault> {
        let mut block = [0; 512];
        self.file.read_exact_at(&mut block, self.at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveFault::Truncated { at: self.at },
            _ => ArchiveFault::Io { source: error },
        })?;
        self.at += BLOCK;
        Ok(block)
    }

    /// The content of an extended header.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, ArchiveFault> {
        if size > MAX_EXTENDED {
            return Err(self.unreadable("its extended header is too long"));
        }
        let span = self.content(size, "")?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, span.offset).map_err(|source| ArchiveFault::Io { source })?;
        Ok(bytes)
    }

    /// Steps over a content, which must all be there.
    fn content(&mut self, size: u64, name: &str) -> Result<Span, ArchiveFault> {
        let span = Span { offset: self.at, size };
        let too_long = || ArchiveFault::Beyond { name: name.to_owned(), size };
        if size > self.length.saturating_sub(self.at) {
            return Err(too_long());
        }
        // The padding of the last file may be missing.
        self.at += size.checked_next_multiple_of(BLOCK).ok_or_else(too_long)?;
        Ok(span)
    }

    fn unreadable(&self, reason: &'static str) -> ArchiveFault {
        ArchiveFault::Header { at: self.at.saturating_sub(BLOCK), reason }
    }
}

struct Name {
    text: String,
    is_directory: bool,
}

/// Relative, with `/` between plain words.
fn name_of(header: &Header, extended: Option<&[u8]>) -> Result<Name, ArchiveFault> {
    let bytes = extended.map_or_else(|| header.path_bytes().into_owned(), <[u8]>::to_vec);
    let unsafe_name = || ArchiveFault::Name { name: String::from_utf8_lossy(&bytes).chars().take(200).collect() };
    let text = std::str::from_utf8(&bytes).map_err(|_| unsafe_name())?;
    let parts = within(&[], text).ok_or_else(unsafe_name)?;
    Ok(Name { text: parts.join("/"), is_directory: text.ends_with('/') || parts.is_empty() })
}

/// The target of a link, as a name in the archive: a symbolic link's is relative to where it stands.
fn link_of(header: &Header, extended: Option<&[u8]>, name: &str, is_relative: bool) -> Result<String, ArchiveFault> {
    let stated = header.link_name_bytes().unwrap_or_default().into_owned();
    let bytes = extended.unwrap_or(&stated);
    let leads_out = || {
        let target = String::from_utf8_lossy(bytes).chars().take(200).collect();
        ArchiveFault::Link { name: name.to_owned(), target }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| leads_out())?;
    let mut start: Vec<&str> = if is_relative { name.split('/').collect() } else { Vec::new() };
    start.pop();
    let parts = within(&start, text).filter(|parts| !parts.is_empty());
    parts.map(|parts| parts.join("/")).ok_or_else(leads_out)
}

/// The path from a directory of the archive; `None` when it leads out, on the way or in the end. Where no link is, only
/// a link has a reason to say `..`.
fn within<'a>(start: &[&'a str], path: &'a str) -> Option<Vec<&'a str>> {
    if path.len() > MAX_NAME || path.starts_with('/') || path.contains('\0') || path.is_empty() {
        return None;
    }
    let may_climb = !start.is_empty();
    let mut parts = start.to_vec();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if may_climb => {
                parts.pop()?;
            }
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// The sum of all bytes, those of the checksum itself taken for blanks (POSIX ustar).
fn checksum(block: &[u8; 512]) -> u32 {
    let own = 148..156;
    let byte = |(place, byte): (usize, &u8)| if own.contains(&place) { u32::from(b' ') } else { u32::from(*byte) };
    block.iter().enumerate().map(byte).sum()
}

#[cfg(test)]
mod tests;
