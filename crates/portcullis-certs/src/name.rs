//! Distinguished names: compared by their DER, shown in the manner of RFC 4514.

use crate::fingerprint::write_hex;
use crate::visible::Visible;
use std::fmt::{self, Write};
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A subject or issuer.
///
/// Two names are equal when their DER is, as Go and rustls compare them. [`fmt::Display`] is the RFC 4514 form, most
/// specific first (`CN=alice,O=Example`), with what cannot be seen made visible; an empty name shows as `(empty)`.
#[derive(Clone)]
pub struct DistinguishedName {
    der: Vec<u8>,
    /// In the order of the DER; the attributes of one multi-valued RDN together.
    rdns: Vec<Vec<Attribute>>,
}

#[derive(Clone)]
struct Attribute {
    /// The short name, or the OID in digits.
    kind: String,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Text(String),
    /// Of a type that is no string, or not valid in its own encoding: the whole DER.
    Raw(Vec<u8>),
}

impl DistinguishedName {
    pub(crate) fn new(name: &X509Name<'_>) -> Self {
        let rdns = name.iter_rdn().map(|rdn| rdn.iter().map(Attribute::new).collect()).collect();
        Self { der: name.as_raw().to_vec(), rdns }
    }

    /// A Name by itself, such as a CertificateRequest lists; `None` when it is none or bytes follow.
    ///
    /// ```
    /// use portcullis_certs::DistinguishedName;
    /// assert_eq!(DistinguishedName::from_der(&[0x30, 0]).map(|name| name.to_string()).as_deref(), Some("(empty)"));
    /// assert!(DistinguishedName::from_der(b"CN=x").is_none());
    /// ```
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, name) = X509Name::from_der(der).ok()?;
        rest.is_empty().then(|| Self::new(&name))
    }

    /// The Name, as in the certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether there is no attribute at all.
    pub fn is_empty(&self) -> bool {
        self.rdns.iter().all(Vec::is_empty)
    }

    /// The last common name, which is the one Go and OpenSSL show when there are several.
    pub fn common_name(&self) -> Option<&str> {
        self.texts("CN").last()
    }

    /// All common names, in the order of the DER. Several are suspicious: which one is meant?
    pub fn common_names(&self) -> impl Iterator<Item = &str> {
        self.texts("CN")
    }

    /// The common name where there is exactly one and it can be read: the only one that may stand for somebody.
    ///
    /// One that is no text in its own encoding counts as one too: next to it, the other is not the only one.
    pub fn only_common_name(&self) -> Option<&str> {
        if self.count("CN") == 1 { self.common_name() } else { None }
    }

    /// How many attributes of a kind there are, readable or not. `kind` is the short name of RFC 4514, such as `OU`.
    pub fn count(&self, kind: &str) -> usize {
        self.rdns.iter().flatten().filter(|attribute| attribute.kind == kind).count()
    }

    /// The organizations, in the order of the DER.
    pub fn organizations(&self) -> impl Iterator<Item = &str> {
        self.texts("O")
    }

    /// The organizational units, in the order of the DER.
    pub fn organizational_units(&self) -> impl Iterator<Item = &str> {
        self.texts("OU")
    }

    fn texts(&self, kind: &'static str) -> impl Iterator<Item = &str> {
        self.rdns.iter().flatten().filter_map(move |attribute| match &attribute.value {
            Value::Text(text) if attribute.kind == kind => Some(text.as_str()),
            _ => None,
        })
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for DistinguishedName {}

impl std::hash::Hash for DistinguishedName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("(empty)");
        }
        for (i, rdn) in self.rdns.iter().rev().enumerate() {
            if i > 0 {
                f.write_char(',')?;
            }
            for (j, attribute) in rdn.iter().enumerate() {
                if j > 0 {
                    f.write_char('+')?;
                }
                write!(f, "{attribute}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.kind)?;
        match &self.value {
            Value::Text(text) => write_value(f, text),
            Value::Raw(der) => {
                f.write_char('#')?;
                write_hex(f, der)
            }
        }
    }
}

impl Attribute {
    fn new(attribute: &AttributeTypeAndValue<'_>) -> Self {
        let oid = attribute.attr_type().to_id_string();
        let value = decode(attribute).map_or_else(|| Value::Raw(attribute.as_slice().to_vec()), Value::Text);
        Self { kind: short_name(&oid).map_or(oid, str::to_owned), value }
    }
}

/// Every string type of X.520's DirectoryString, and IA5String; `None` for what is not one or not valid in its encoding.
fn decode(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    let octets = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(octets).ok().map(str::to_owned)
        }
        // Latin-1 is what everybody puts into a T61String.
        Tag::T61String => Some(octets.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units: Option<Vec<u16>> =
                octets.chunks(2).map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?))).collect();
            String::from_utf16(&units?).ok()
        }
        Tag::UniversalString => {
            octets.chunks(4).map(|four| char::from_u32(u32::from_be_bytes(four.try_into().ok()?))).collect()
        }
        _ => None,
    }
}

/// RFC 4514 §2.4: the special characters get a backslash; the rest is made visible.
fn write_value(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        let at_an_end = (i == 0 && matches!(c, ' ' | '#')) || (i == last && c == ' ');
        if at_an_end || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            f.write_char('\\')?;
        }
        write!(f, "{}", Visible(c.encode_utf8(&mut [0; 4])))?;
    }
    Ok(())
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rdn<'a> = &'a [(&'a [u8], u8, &'a [u8])];

    /// A Name of RDNs of (OID octets, string tag, octets); all lengths below 128.
    fn name(rdns: &[Rdn<'_>]) -> DistinguishedName {
        fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
            let mut out = vec![tag, u8::try_from(content.len()).unwrap()];
            out.extend(content);
            out
        }
        let attribute =
            |(oid, tag, octets): &(&[u8], u8, &[u8])| wrap(0x30, &[wrap(0x06, oid), wrap(*tag, octets)].concat());
        let sets: Vec<u8> =
            rdns.iter().flat_map(|rdn| wrap(0x31, &rdn.iter().flat_map(attribute).collect::<Vec<u8>>())).collect();
        let der = wrap(0x30, &sets);
        let (rest, parsed) = X509Name::from_der(&der).unwrap();
        assert!(rest.is_empty());
        DistinguishedName::new(&parsed)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const OU: &[u8] = &[0x55, 4, 11];

    #[test]
    fn shown_most_specific_first() {
        let name = name(&[&[(O, 0x0c, b"Example")], &[(OU, 0x13, b"A"), (OU, 0x13, b"B")], &[(CN, 0x0c, b"alice")]]);
        assert_eq!(name.to_string(), "CN=alice,OU=A+OU=B,O=Example");
        assert_eq!(name.common_name(), Some("alice"));
        assert_eq!(name.organizations().collect::<Vec<_>>(), ["Example"]);
        assert_eq!(name.organizational_units().collect::<Vec<_>>(), ["A", "B"]);
    }

    #[test]
    fn a_value_cannot_pretend_to_be_several() {
        let shown = name(&[&[(CN, 0x0c, b"a,O=Root+CN=b\\")]]).to_string();
        assert_eq!(shown, r"CN=a\,O=Root\+CN=b\\");
        assert_eq!(name(&[&[(CN, 0x0c, b" #x ")]]).to_string(), r"CN=\ #x\ ");
        assert_eq!(name(&[&[(CN, 0x0c, "\u{202e}\u{1b}[0m".as_bytes())]]).to_string(), r"CN=\u{202e}\u{1b}[0m");
    }

    #[test]
    fn every_string_type_is_read_and_garbage_is_shown_in_hex() {
        assert_eq!(name(&[&[(CN, 0x1e, b"\0Z\0\xfc")]]).common_name(), Some("Zü"));
        assert_eq!(name(&[&[(CN, 0x1c, b"\0\0\0Z")]]).common_name(), Some("Z"));
        assert_eq!(name(&[&[(CN, 0x14, b"\xfc")]]).common_name(), Some("ü"));
        let broken = name(&[&[(CN, 0x0c, b"\xff")]]);
        assert_eq!((broken.common_name(), broken.to_string()), (None, "CN=#ff".to_owned()));
        assert_eq!(name(&[&[(CN, 0x1e, b"odd")]]).common_name(), None);
        assert_eq!(name(&[&[(&[0x2a, 3], 0x0c, b"x")]]).to_string(), "1.2.3=x");
        assert_eq!(name(&[]).to_string(), "(empty)");
    }

    #[test]
    fn the_only_common_name() {
        assert_eq!(name(&[&[(O, 0x0c, b"x")], &[(CN, 0x0c, b"a")]]).only_common_name(), Some("a"));
        for twice in [&[(CN, 0x0c, &b"b"[..])][..], &[(CN, 0x0c, b"a")], &[(CN, 0x0c, b"\xff")]] {
            assert_eq!(name(&[&[(CN, 0x0c, b"a")], twice]).only_common_name(), None);
        }
        assert_eq!(name(&[&[(CN, 0x0c, b"a"), (CN, 0x0c, b"b")]]).only_common_name(), None, "one RDN of two");
        assert_eq!(name(&[&[(CN, 0x0c, b"\xff")]]).only_common_name(), None);
        assert_eq!(name(&[]).only_common_name(), None);
    }

    #[test]
    fn the_last_of_several_common_names_counts() {
        let name = name(&[&[(CN, 0x0c, b"first")], &[(CN, 0x0c, b"last")]]);
        assert_eq!(name.common_name(), Some("last"));
        assert_eq!(name.common_names().count(), 2);
    }
}
