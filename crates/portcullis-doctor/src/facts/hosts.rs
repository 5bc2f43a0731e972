//! The hosts file: what a name leads to before any server is asked. Reads one file, resolves nothing.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::config::read_text;

/// A line of the hosts file about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsLine {
    /// The address it gives.
    pub address: IpAddr,
    /// The file.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: u32,
}

/// The lines that `<root>/etc/hosts` has for a name. Names are compared without case, as resolvers do.
pub(super) fn lookup(root: &Path, name: &str) -> Vec<HostsLine> {
    let Some(file) = read_text(&root.join("etc/hosts")) else { return Vec::new() };
    let numbered = file.text.lines().zip(1..);
    let about = numbered
        .filter_map(|(text, line)| Some(HostsLine { address: line_for(text, name)?, path: file.path.clone(), line }));
    about.collect()
}

fn line_for(line: &str, name: &str) -> Option<IpAddr> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address = words.next()?.parse().ok()?;
    words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_own_line_is_found() {
        let address = |line| line_for(line, "build.test").map(|address| address.to_string());
        assert_eq!(address("127.0.1.1\tbuild.test build").as_deref(), Some("127.0.1.1"));
        assert_eq!(address("10.0.0.1 Build.TEST # 127.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(address("# 127.0.1.1 build.test"), None);
        assert_eq!(address("10.0.0.1 build.test.example"), None);
        assert_eq!(address("nonsense build.test"), None);
    }
}
