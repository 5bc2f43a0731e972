//! PEM framing (RFC 7468, RFC 1421): where blocks begin and end. It knows nothing of what is inside.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const BOM: &[u8] = b"\xef\xbb\xbf";
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// One block as it stands in the text.
pub(super) struct Block<'a> {
    /// What stands between `-----BEGIN ` and `-----`, lossily decoded.
    pub(super) label: String,
    /// The line of BEGIN, counted from 1.
    pub(super) line: u32,
    /// The lines between BEGIN and END.
    body: &'a [u8],
    /// What is wrong with its frame.
    pub(super) broken: Option<&'static str>,
    /// RFC 1421 header lines (`Name: value`).
    pub(super) has_headers: bool,
    /// The header `Proc-Type: 4,ENCRYPTED`.
    pub(super) is_encrypted: bool,
}

/// What a text holds.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) blocks: Vec<Block<'a>>,
    /// Lines of BEGINs that do not start in the first column: no engine sees them.
    pub(super) indented: Vec<u32>,
    /// The text starts with a byte order mark and its first line would be a BEGIN.
    pub(super) bom_hides_a_block: bool,
}

impl Block<'_> {
    /// The block alone, with framing lines that every decoder accepts: Go allows white space after them, pki-types not all of it.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let frame = |word: &str| format!("-----{word} {}-----\n", self.label);
        [frame("BEGIN").as_bytes(), self.body, b"\n", frame("END").as_bytes()].concat()
    }

    /// Whether frame and base64 are whole, whatever is inside.
    pub(super) fn decodes(&self) -> bool {
        let relabelled = [b"-----BEGIN CERTIFICATE-----\n", self.body, b"\n-----END CERTIFICATE-----\n"].concat();
        self.broken.is_none() && CertificateDer::from_pem_slice(&relabelled).is_ok()
    }

    /// Whether the label is that of a private key of any kind, as Go decides it.
    pub(super) fn is_key(&self) -> bool {
        self.label == "PRIVATE KEY" || self.label.ends_with(" PRIVATE KEY")
    }
}

pub(super) fn scan(bytes: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    let mut open: Option<(Block<'_>, usize)> = None;
    let mut offset = 0;
    for (number, line) in (1_u32..).zip(bytes.split_inclusive(|&b| b == b'\n')) {
        let start = offset;
        offset += line.len();
        let line = line.trim_ascii_end();
        if number == 1 && line.strip_prefix(BOM).and_then(begin_label).is_some() {
            found.bom_hides_a_block = true;
        }
        if let Some(label) = begin_label(line) {
            found
                .blocks
                .extend(open.take().map(|(block, from)| cut(block, bytes, from, start, Some("it has no END line"))));
            open = Some((new_block(label, number), offset));
        } else if let Some((block, from)) = open.take() {
            match end_label(line) {
                Some(label) => {
                    let broken = (label != block.label).then_some("its END line has another label than its BEGIN line");
                    found.blocks.push(cut(block, bytes, from, start, broken));
                }
                None => open = Some((with_line(block, line), from)),
            }
        } else if begin_label(line.trim_ascii_start()).is_some() {
            found.indented.push(number);
        }
    }
    found.blocks.extend(open.map(|(block, from)| cut(block, bytes, from, offset, Some("it has no END line"))));
    found
}

fn new_block<'a>(label: String, line: u32) -> Block<'a> {
    Block { label, line, body: &[], broken: None, has_headers: false, is_encrypted: false }
}

/// Base64 has no colon, so a line with one is a header.
fn with_line<'a>(mut block: Block<'a>, line: &[u8]) -> Block<'a> {
    if let Some(colon) = line.iter().position(|&b| b == b':') {
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        block.has_headers = true;
        block.is_encrypted |= name == b"Proc-Type" && value.ends_with(b"ENCRYPTED");
    }
    block
}

fn cut<'a>(mut block: Block<'a>, bytes: &'a [u8], from: usize, to: usize, broken: Option<&'static str>) -> Block<'a> {
    block.body = bytes.get(from..to).unwrap_or_default();
    block.broken = broken;
    block
}

fn begin_label(line: &[u8]) -> Option<String> {
    label(line, BEGIN)
}

fn end_label(line: &[u8]) -> Option<String> {
    label(line, END)
}

fn label(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &[u8]) -> Vec<(String, u32, Option<&'static str>)> {
        scan(text).blocks.into_iter().map(|block| (block.label, block.line, block.broken)).collect()
    }

    #[test]
    fn blocks_are_found_with_their_lines() {
        let text = b"Certificate:\r\n  Data\r\n-----BEGIN A-----\r\nMA==\r\n-----END A-----\r\n\n-----BEGIN B C----- \nMA==\n-----END B C-----";
        assert_eq!(labels(text), [("A".into(), 3, None), ("B C".into(), 7, None)]);
        let canonical = b"-----BEGIN B C-----\nMA==\n\n-----END B C-----\n";
        assert_eq!(scan(text).blocks[1].canonical(), canonical);
    }

    #[test]
    fn a_broken_frame_does_not_swallow_the_next_block() {
        let text = b"-----BEGIN A-----\nMA==\n-----BEGIN B-----\nMA==\n-----END B-----\n-----BEGIN C-----\nMA==\n-----END D-----\n-----BEGIN E-----\n";
        let reasons: Vec<_> =
            labels(text).into_iter().map(|(label, line, broken)| (label, line, broken.is_some())).collect();
        assert_eq!(
            reasons,
            [("A".into(), 1, true), ("B".into(), 3, false), ("C".into(), 6, true), ("E".into(), 9, true)]
        );
    }

    #[test]
    fn headers_are_seen() {
        let found = scan(b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMA==\n-----END RSA PRIVATE KEY-----\n");
        let block = &found.blocks[0];
        assert!(block.is_key() && block.has_headers && block.is_encrypted);
    }

    #[test]
    fn what_no_engine_sees_is_noticed() {
        let found = scan(b"\xef\xbb\xbf-----BEGIN A-----\nMA==\n-----END A-----\n  -----BEGIN B-----\n");
        assert!(found.blocks.is_empty() && found.bom_hides_a_block);
        assert_eq!(found.indented, [4]);
        let harmless = scan(b"\xef\xbb\xbftext\n-----BEGIN A-----\n-----END A-----\n");
        assert!(harmless.blocks.len() == 1 && !harmless.bom_hides_a_block);
    }
}
