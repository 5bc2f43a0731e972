//! Headers that say more about the next one: pax (POSIX.1-2001) and GNU's long names. Strict, as far as names and sizes
//! go; times and owners are nobody's business here.

use tar::EntryType;

/// What was said about the next entry.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

impl Extended {
    /// Whether a header of this kind is about another one.
    #[expect(clippy::unused_self, reason = "reads as a question to what gathers them")]
    pub(super) fn takes(&self, kind: EntryType) -> bool {
        matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink)
    }

    pub(super) fn add(&mut self, kind: EntryType, text: &[u8]) -> Result<(), &'static str> {
        let field = match kind {
            EntryType::GNULongName => &mut self.path,
            EntryType::GNULongLink => &mut self.link,
            EntryType::XHeader => return self.records(text),
            // Comments of git and the like. Go hands it to the caller and applies it to nothing.
            _ => return Ok(()),
        };
        let text = text.strip_suffix(b"\0").unwrap_or(text).to_vec();
        if field.replace(text).is_some() { Err("a name is stated twice") } else { Ok(()) }
    }

    /// `LENGTH KEY=VALUE\n` each, where the length is that of the whole record: a value may hold newlines.
    fn records(&mut self, mut text: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "its pax header cannot be understood";
        while !text.is_empty() {
            let digits = text.iter().position(|byte| *byte == b' ').ok_or(BAD)?;
            let number = std::str::from_utf8(&text[..digits]).map_err(|_| BAD)?;
            let length: usize = number.parse().map_err(|_| BAD)?;
            let record = text.get(digits + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(BAD)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => set(&mut self.path, value.to_vec())?,
                b"linkpath" => set(&mut self.link, value.to_vec())?,
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).ok_or(BAD)?;
                    set(&mut self.size, size)?;
                }
                key if key.starts_with(b"GNU.sparse.") => return Err("it is sparse: write it without --sparse"),
                _ => {}
            }
            text = &text[length..];
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), &'static str> {
    if field.replace(value).is_some() { Err("a name or size is stated twice") } else { Ok(()) }
}
