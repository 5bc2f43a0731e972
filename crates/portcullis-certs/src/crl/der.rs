//! DER, walked element by element: definite lengths in their shortest form (X.690 §10.1), nothing past the end, nothing
//! copied. Knows no revocation lists.

use x509_parser::der_parser::Oid;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const EXPLICIT_0: u8 = 0xa0;
/// UTCTime and GeneralizedTime.
pub(super) const TIMES: [u8; 2] = [0x17, 0x18];
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
/// Lists have a handful. Each is compared with those before it, and all of that before the signature is looked at: a list
/// made of extensions would keep a reload busy for hours.
const MAX_EXTENSIONS: usize = 64;

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

/// One element: its content, and itself with tag and length.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) content: &'a [u8],
    pub(super) whole: &'a [u8],
}

/// One extension (RFC 5280 §4.2).
pub(super) struct Extension<'a> {
    /// The OID's content octets.
    pub(super) oid: &'a [u8],
    pub(super) critical: bool,
    /// What the OCTET STRING wraps.
    pub(super) value: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    /// The inside of the one element that the bytes are.
    pub(super) fn whole(bytes: &'a [u8], tag: u8) -> Result<Self, String> {
        Self::whole_element(bytes, tag).map(|element| Self(element.content))
    }

    /// The one element that the bytes are.
    pub(super) fn whole_element(bytes: &'a [u8], tag: u8) -> Result<Element<'a>, String> {
        let mut der = Self(bytes);
        let element = der.take(tag, "it")?;
        der.end("it").map(|()| element)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, tag: u8, what: &str) -> Result<Element<'a>, String> {
        self.take_one_of(&[tag], what)
    }

    pub(super) fn take_one_of(&mut self, tags: &[u8], what: &str) -> Result<Element<'a>, String> {
        self.take_if_one_of(tags)?.ok_or_else(|| format!("it is no DER of its kind: {what} is missing or malformed"))
    }

    pub(super) fn take_if(&mut self, tag: u8) -> Result<Option<Element<'a>>, String> {
        self.take_if_one_of(&[tag])
    }

    /// The next element if it has one of these tags. An error when it is cut short.
    pub(super) fn take_if_one_of(&mut self, tags: &[u8]) -> Result<Option<Element<'a>>, String> {
        if !self.0.first().is_some_and(|tag| tags.contains(tag)) {
            return Ok(None);
        }
        let element = first(self.0).ok_or("it is no DER: an element's length is wrong")?;
        self.0 = self.0.get(element.whole.len()..).unwrap_or_default();
        Ok(Some(element))
    }

    pub(super) fn end(&self, what: &str) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes follow {what}", self.0.len())) }
    }
}

impl Extension<'_> {
    /// Its OID in digits.
    pub(super) fn name(&self) -> String {
        Oid::new(self.oid.into()).to_id_string()
    }
}

/// The extensions of a SEQUENCE, each at most once.
pub(super) fn extensions(sequence: Element<'_>) -> Result<Vec<Extension<'_>>, String> {
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
pub(super) fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then_some(start)
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
