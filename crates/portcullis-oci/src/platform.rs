//! Which image of an index is for which machine: containerd's names and its rules of what runs where
//! (`github.com/containerd/platforms`: `normalizeArch`, `platformVector`), since they are what engines do.

use std::fmt;
use std::str::FromStr;

use crate::manifest::Platform;

/// A machine that an image is wanted for, as typed: `linux/arm64`, `linux/arm/v7`, `arm64`, `linux`.
///
/// ```
/// use portcullis_oci::PlatformChoice;
///
/// let choice: PlatformChoice = "linux/x86_64".parse()?;
/// assert_eq!(choice.to_string(), "linux/amd64");
/// # Ok::<(), portcullis_oci::InvalidPlatform>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformChoice(Machine);

/// The text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no platform: write OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64 or linux/arm/v7")]
pub struct InvalidPlatform {
    /// What was given.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Machine {
    os: String,
    architecture: String,
    variant: String,
}

const SYSTEMS: [&str; 16] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
];

const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "sparc64", "wasm", "ppc",
];

impl PlatformChoice {
    /// This machine, with Linux for its operating system: images for others are asked for by name.
    pub fn here() -> Self {
        Self(Machine::new("linux", std::env::consts::ARCH, ""))
    }

    /// How well an image for `platform` does on the chosen machine: 0 is best, `None` does not run. An amd64 machine
    /// runs 386, an arm/v7 one arm/v6, as containerd has it.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        if !platform.os_features.is_empty() {
            return None;
        }
        let variant = platform.variant.as_deref().unwrap_or_default();
        let offered = Machine::new(&platform.os, &platform.architecture, variant);
        self.0.runs().iter().position(|machine| *machine == offered)
    }

    /// The best of several; of equals the first.
    pub fn best<'a, T>(&self, offered: impl IntoIterator<Item = (&'a Platform, T)>) -> Option<T> {
        let ranked = offered.into_iter().filter_map(|(platform, item)| Some((self.rank(platform)?, item)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, item)| item)
    }
}

impl FromStr for PlatformChoice {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPlatform { text: text.chars().take(100).collect() };
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !parts.iter().all(is_word) {
            return Err(invalid());
        }
        let here = Self::here().0;
        let machine = match parts[..] {
            [os] if SYSTEMS.contains(&Machine::new(os, "", "").os.as_str()) => Machine::new(os, &here.architecture, ""),
            [architecture] => {
                let machine = Machine::new("linux", architecture, "");
                if !ARCHITECTURES.contains(&machine.architecture.as_str()) {
                    return Err(invalid());
                }
                machine
            }
            [os, architecture] => Machine::new(os, architecture, ""),
            [os, architecture, variant] => Machine::new(os, architecture, variant),
            _ => return Err(invalid()),
        };
        Ok(Self(machine))
    }
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { os, architecture, variant } = &self.0;
        write!(f, "{os}/{architecture}")?;
        // The usual variant of arm goes without saying.
        if variant.is_empty() || (architecture == "arm" && variant == "v7") { Ok(()) } else { write!(f, "/{variant}") }
    }
}

impl fmt::Display for Platform {
    /// `linux/arm64/v8`, as the platform is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { os, architecture, variant, os_version, .. } = self;
        match os_version {
            Some(version) => write!(f, "{os}({version})/{architecture}")?,
            None => write!(f, "{os}/{architecture}")?,
        }
        variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Machine {
    /// In containerd's words; what goes without saying is not said.
    fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (os, architecture, variant) =
            (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            // The last two are Rust's own words for two of Go's.
            ("i386" | "x86", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            ("loongarch64", variant) => ("loong64", variant),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// What runs on this machine, the best first.
    fn runs(&self) -> Vec<Self> {
        let mut machines = vec![self.clone()];
        let mut also = |architecture: &str, variant: &str| machines.push(Self::new(&self.os, architecture, variant));
        match self.architecture.as_str() {
            "amd64" => {
                let version = number(&self.variant).unwrap_or(1);
                for version in (1..version).rev() {
                    also("amd64", &format!("v{version}"));
                }
                also("386", "");
            }
            "arm" => {
                let version = number(&self.variant).unwrap_or(5);
                for version in (5..version).rev() {
                    also("arm", &format!("v{version}"));
                }
            }
            "arm64" => {
                for variant in arm64_below(&self.variant) {
                    also("arm64", &variant);
                }
                for version in (5..=8).rev() {
                    also("arm", &format!("v{version}"));
                }
            }
            _ => {}
        }
        machines
    }
}

/// v9.x runs v9.0 to v9.x and v8.0 to v8.(x+5), v8.x all of v8 below it.
fn arm64_below(variant: &str) -> Vec<String> {
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    let minor = minor.parse::<u32>().unwrap_or(0).min(9);
    let below = |major: u32, minor: u32| {
        (0..minor).rev().map(move |minor| if minor == 0 { format!("v{major}") } else { format!("v{major}.{minor}") })
    };
    match number(major) {
        Some(9) => below(9, minor).chain(below(8, minor + 6)).collect(),
        Some(8) | None => below(8, minor).collect(),
        Some(_) => Vec::new(),
    }
}

/// `v7` is 7. No processor has a version of two digits.
fn number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v').unwrap_or(variant).parse().ok().filter(|number| *number < 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { architecture, os, variant: parts.next(), os_version: None, os_features: Vec::new() }
    }

    fn choose(choice: &str, offered: &[&str]) -> Option<String> {
        let choice: PlatformChoice = choice.parse().unwrap();
        let offered: Vec<Platform> = offered.iter().map(|text| platform(text)).collect();
        choice.best(offered.iter().map(|platform| (platform, platform.to_string())))
    }

    #[test]
    fn one_machine_has_many_spellings() {
        for (typed, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9.2", "linux/arm64/v9.2"),
            ("linux/arm", "linux/arm"),
            ("linux/arm/7", "linux/arm"),
            ("linux/armel", "linux/arm/v6"),
            ("macos/arm64", "darwin/arm64"),
            ("arm64", "linux/arm64"),
            ("i386", "linux/386"),
            ("windows/amd64", "windows/amd64"),
            ("linux/new-arch", "linux/new-arch"),
        ] {
            assert_eq!(
                typed.parse::<PlatformChoice>().map(|choice| choice.to_string()).as_deref(),
                Ok(shown),
                "{typed}"
            );
        }
        for bad in
            ["", "/", "linux/", "/amd64", "linux/amd64/v1/x", "linux/*", "linux amd64", "nonsense", "linux/am\u{e9}d"]
        {
            assert!(bad.parse::<PlatformChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_runs_where_and_what_is_better() {
        let all = [
            "linux/386",
            "linux/amd64",
            "linux/amd64/v2",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "windows/amd64",
        ];
        for (choice, best) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64/v2")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64/v9.1", Some("linux/arm64/v8")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("windows/amd64", Some("windows/amd64")),
            ("linux/s390x", None),
            ("darwin/amd64", None),
        ] {
            assert_eq!(choose(choice, &all).as_deref(), best, "{choice}");
        }
        assert_eq!(choose("linux/amd64", &["linux/386", "linux/arm64"]).as_deref(), Some("linux/386"));
        assert_eq!(choose("linux/386", &["linux/amd64"]), None);
        assert_eq!(choose("linux/arm64", &["linux/arm/v6"]).as_deref(), Some("linux/arm/v6"));
        assert_eq!(choose("linux/arm64/v8.5", &["linux/arm64/v9"]), None);
        assert_eq!(
            choose("linux/arm64/v9", &["linux/arm64/v8.5", "linux/arm64/v8.6"]).as_deref(),
            Some("linux/arm64/v8.5")
        );
        assert_eq!(choose("linux/arm/v5", &["linux/arm/v6"]), None);
    }

    #[test]
    fn what_wants_features_that_nobody_asked_for_does_not_run() {
        let mut offered = platform("windows/amd64");
        offered.os_features = vec!["win32k".to_owned()];
        assert_eq!("windows/amd64".parse::<PlatformChoice>().unwrap().rank(&offered), None);
    }

    #[test]
    fn an_attestation_runs_nowhere() {
        assert_eq!(choose("linux/amd64", &["unknown/unknown"]), None);
    }
}
