//! DER, walked element by element: definite lengths in their shortest form (X.690 §10.1), nothing past the end, nothing
//! copied. Knows no revocation lists.

use x509_parser::der_parser::Oid;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const EXPLICIT_0: u8 = 0xa0;
/// UTCTime and GeneralizedTime.
pub(crate) const TIMES: [u8; 2] = [0x17, 0x18];
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
/// Lists have a handful. Each is compared with those before it, and all of that before the signature is looked at: a list
/// made of extensions would keep a reload busy for hours.
const MAX_EXTENSIONS: usize = 64;

/// What is left to read.
#[derive(Clone, Copy)]
pub(crate) struct Der<'a>(&'a [u8]);

/// One element: its content, and itself with tag and length.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// One extension (RFC 5280 §4.2).
pub(crate) struct Extension<'a> {
    /// The OID's content octets.
    pub(crate) oid: &'a [u8],
    pub(crate) critical: bool,
    /// What the OCTET STRING wraps.
    pub(crate) value: &'a [u8],
}

impl<'a> Der<'a> {
    pub(crate) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    /// The inside of the one element that the bytes are.
    pub(crate) fn whole(bytes: &'a [u8], tag: u8) -> Result<Self, String> {
        Self::whole_element(bytes, tag).map(|element| Self(element.content))
    }

    /// The one element that the bytes are.
    pub(crate) fn whole_element(bytes: &'a [u8], tag: u8) -> Result<Element<'a>, String> {
        let mut der = Self(bytes);
        let element = der.take(tag, "it")?;
        der.end("it").map(|()| element)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, tag: u8, what: &str) -> Result<Element<'a>, String> {
        self.take_one_of(&[tag], what)
    }

    pub(crate) fn take_one_of(&mut self, tags: &[u8], what: &str) -> Result<Element<'a>, String> {
        self.take_if_one_of(tags)?.ok_or_else(|| format!("it is no DER of its kind: {what} is missing or malformed"))
    }

    pub(crate) fn take_if(&mut self, tag: u8) -> Result<Option<Element<'a>>, String> {
        self.take_if_one_of(&[tag])
    }

    /// The next element if it has one of these tags. An error when it is cut short.
    pub(crate) fn take_if_one_of(&mut self, tags: &[u8]) -> Result<Option<Element<'a>>, String> {
        if !self.0.first().is_some_and(|tag| tags.contains(tag)) {
            return Ok(None);
        }
        let element = first(self.0).ok_or("it is no DER: an element's length is wrong")?;
        self.0 = self.0.get(element.whole.len()..).unwrap_or_default();
        Ok(Some(element))
    }

    pub(crate) fn end(&self, what: &str) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes follow {what}", self.0.len())) }
    }
}

impl Extension<'_> {
    /// Its OID in digits.
    pub(crate) fn name(&self) -> String {
        Oid::new(self.oid.into()).to_id_string()
    }
}

/// The extensions of a SEQUENCE, each at most once.
pub(crate) fn extensions(sequence: Element<'_>) -> Result<Vec<Extension<'_>>, String> {
    let mut all: Vec<Extension<'_>> = Vec::new();
    let mut list = Der(sequence.content);
    while !list.is_empty() {
        let mut one = Der(list.take(SEQUENCE, "an extension")?.content);
        let oid = one.take(OID, "an extension's name")?.content;
        let critical = match one.take_if(BOOLEAN)?.map(|flag| flag.content) {
            None | Some([0]) => false,
            Some([0xff]) => true,
            Some(_) => return Err("an extension's critical flag is malformed".to_owned()),
        };
        let value = one.take(OCTET_STRING, "an extension's value")?.content;
        one.end("an extension")?;
        let extension = Extension { oid, critical, value };
        if all.len() == MAX_EXTENSIONS {
            return Err(format!("there are more than {MAX_EXTENSIONS} extensions"));
        }
        if all.iter().any(|other| other.oid == oid) {
            return Err(format!("the extension {} is there twice", extension.name()));
        }
        all.push(extension);
    }
    Ok(all)
}

/// Where a part lies in the whole, of which it is a slice.
pub(crate) fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then_some(start)
}

/// The element of these parts, with its length in the shortest form.
pub(crate) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let octets = length.to_be_bytes();
    let digits = octets.get(octets.iter().take_while(|&&octet| octet == 0).count()..).unwrap_or_default();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => element.push(short),
        _ => {
            element.extend(u8::try_from(digits.len()).map(|count| 0x80 | count));
            element.extend_from_slice(digits);
        }
    }
    for part in parts {
        element.extend_from_slice(part);
    }
    element
}

fn first(bytes: &[u8]) -> Option<Element<'_>> {
    let (&length, rest) = bytes.get(1..)?.split_first()?;
    let (length, header) = match length {
        0..=0x7f => (usize::from(length), 2),
        0x81..=0x84 => {
            let octets = rest.get(..usize::from(length & 0x7f))?;
            let value =
                octets.iter().try_fold(0_usize, |sum, &octet| Some(sum.checked_mul(256)? + usize::from(octet)))?;
            let is_shortest = octets.first() != Some(&0) && (value > 0x7f);
            (is_shortest.then_some(value)?, 2 + octets.len())
        }
        _ => return None,
    };
    let whole = bytes.get(..header.checked_add(length)?)?;
    Some(Element { content: whole.get(header..)?, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_bounded() {
        let count = |n: u8| {
            // OID 1.2.n, an empty value.
            let all: Vec<u8> = (0..n).flat_map(|n| [SEQUENCE, 6, OID, 2, 0x2a, n, OCTET_STRING, 0]).collect();
            extensions(Element { content: &all, whole: &all }).map(|all| all.len())
        };
        assert_eq!(count(64), Ok(64));
        assert!(count(65).unwrap_err().contains("64"));
    }

    #[test]
    fn what_is_written_reads_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let content = vec![7; length];
            let written = write(SEQUENCE, &[&content[..length / 2], &content[length / 2..]]);
            assert_eq!(Der::whole_element(&written, SEQUENCE).map(|element| element.content), Ok(content.as_slice()));
        }
    }

    #[test]
    fn lengths_are_definite_and_shortest() {
        let length = |bytes: &[u8]| first(bytes).map(|element| element.content.len());
        assert_eq!(length(&[0x30, 0]), Some(0));
        assert_eq!(length(&[0x30, 1, 7, 9]), Some(1));
        assert_eq!(length(&[&[0x30, 0x81, 0x80], [0; 0x80].as_slice()].concat()), Some(0x80));
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 1, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x85, 1, 0, 0, 0, 0],
        ] {
            assert_eq!(length(wrong), None, "{wrong:?}");
        }
    }
}
