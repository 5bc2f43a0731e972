//! The one pattern language for names: of the deny list's matchers and of the policy.

/// Whether `text` fits `pattern`: `*` stands for any run of characters, none included; everything else for itself.
/// Linear in both.
///
/// ```
/// assert!(portcullis_certs::glob("ci-*", "ci-7"));
/// assert!(!portcullis_certs::glob("ci-?", "ci-7"));
/// ```
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("ci-7", "ci-7", true),
            ("ci-7", "ci-77", false),
            ("ci-*", "ci-7", true),
            ("*", "", true),
            ("*.test", "a.test", true),
            ("a*b*c", "axbxc", true),
            ("a*b*c", "axc", false),
            ("a*a", "a", false),
            ("", "a", false),
            ("ci-?", "ci-7", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
