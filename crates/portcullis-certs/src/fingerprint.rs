//! The two short names of a certificate: the SHA-256 of its DER, and its serial number.

use crate::error::CertsError;
use crate::visible::Visible;
use aws_lc_rs::digest;
use std::fmt;
use std::str::FromStr;

/// A SHA-256 digest: of a certificate's DER, or of a SubjectPublicKeyInfo's DER.
///
/// Shown as `sha256:` and 64 lower-case hexadecimal digits; read also as bare hexadecimal and in the form that
/// `openssl x509 -fingerprint -sha256` prints (`sha256 Fingerprint=AA:BB:…`, or only the part after `=`).
///
/// ```
/// use portcullis_certs::Fingerprint;
/// let print: Fingerprint = format!("sha256:{}", "ab".repeat(32)).parse()?;
/// assert_eq!(print, ["AB"; 32].join(":").parse()?);
/// # Ok::<(), portcullis_certs::CertsError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The SHA-256 of these bytes.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        let lower = text.to_ascii_lowercase();
        let hex =
            ["sha256 fingerprint=", "sha256:"].iter().find_map(|prefix| lower.strip_prefix(prefix)).unwrap_or(&lower);
        parse_hex(hex)
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| CertsError::Fingerprint { text: excerpt(text) })
    }
}

/// A certificate's serial number: its octets, big-endian, without leading zero octets.
///
/// Shown in lower-case hexadecimal, two digits per octet; read with or without colons, in either case, so that what
/// `openssl x509 -serial` prints can be pasted.
///
/// ```
/// use portcullis_certs::Serial;
/// assert_eq!("00:0A:ff".parse::<Serial>()?.to_string(), "0aff");
/// # Ok::<(), portcullis_certs::CertsError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From the content octets of the INTEGER. Zero keeps one octet.
    ///
    /// A negative number, which RFC 5280 forbids, is shown by its octets as they stand.
    pub fn from_octets(octets: &[u8]) -> Self {
        let zeros = octets.iter().take_while(|&&octet| octet == 0).count();
        match octets.get(zeros..) {
            Some(rest) if !rest.is_empty() => Self(rest.to_vec()),
            _ => Self(vec![0]),
        }
    }

    /// The octets, big-endian, at least one.
    pub fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        let padded = if text.len() % 2 == 1 && !text.contains(':') { format!("0{text}") } else { text.to_owned() };
        parse_hex(&padded)
            .filter(|octets| (1..=64).contains(&octets.len()))
            .map(|octets| Self::from_octets(&octets))
            .ok_or_else(|| CertsError::Serial { text: excerpt(text) })
    }
}

pub(crate) fn write_hex(f: &mut impl fmt::Write, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// Pairs of hexadecimal digits, all joined by colons or none.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let pairs: Vec<&[u8]> = if text.contains(':') {
        text.as_bytes().split(|&b| b == b':').collect()
    } else {
        text.as_bytes().chunks(2).collect()
    };
    pairs.into_iter().map(parse_pair).collect()
}

fn parse_pair(pair: &[u8]) -> Option<u8> {
    let &[high, low] = pair else { return None };
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// As much of a wrong text as a person needs to find it.
pub(crate) fn excerpt(text: &str) -> String {
    Visible(&text.chars().take(120).collect::<String>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_all_their_spellings() {
        let expected = Fingerprint::of(b"x");
        let hex = expected.to_string().replace("sha256:", "");
        let pairs: Vec<String> = hex.as_bytes().chunks(2).map(|p| String::from_utf8_lossy(p).to_uppercase()).collect();
        for text in [
            hex.clone(),
            hex.to_uppercase(),
            format!("sha256:{hex}"),
            pairs.join(":"),
            format!("sha256 Fingerprint={}", pairs.join(":")),
        ] {
            assert_eq!(text.parse::<Fingerprint>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_fingerprints() {
        let hex = "a".repeat(64);
        for text in [
            String::new(),
            "a".repeat(63),
            "a".repeat(65),
            "a".repeat(66),
            format!("sha512:{hex}"),
            format!("sha256: {hex}"),
            "é".repeat(32),
            format!("+{}", "a".repeat(63)),
            format!("{}:{}", "a".repeat(32), "a".repeat(31)),
        ] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn serials_have_one_spelling() {
        for (text, shown) in
            [("0", "00"), ("00", "00"), ("1", "01"), ("0001", "01"), ("FF:00", "ff00"), ("abc", "0abc")]
        {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), shown);
        }
        for text in ["", "0x1", "-1", "1:2", "zz", &"a".repeat(200)] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
        assert_eq!(Serial::from_octets(&[0, 0xff]), Serial::from_octets(&[0xff]));
        assert_eq!(Serial::from_octets(&[]).to_string(), "00");
    }
}
