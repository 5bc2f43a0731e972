//! Words of `up` and `serve`, and of what asks a running server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use portcullis_pki::ServerName;

use super::HomeArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// Where the images are kept; a volume of registry:2 or registry:3 can be given here [default: HOME/data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen [default: [::]:5443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// A name or address that clients type; may be given again. On an existing home it is added to the certificate
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<ServerName>,
    /// First run: limit the new server CA to these names, with what lies below them, by critical name constraints. It may
    /// go into a system's store then; a name elsewhere can never be added
    #[arg(long)]
    pub(crate) constrain_names: bool,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check config, trust, policy and certificate, and do not serve
    #[arg(long)]
    pub(crate) check: bool,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MaintainArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// List the clients of the last 7 days instead, whose certificate ends next first
    #[arg(long)]
    pub(crate) clients: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// Remove nothing; say what would be removed, and what stops a removal
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the running server collect nothing for so long, such as 12h, while its data is copied
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    pub(crate) pause: Option<Pause>,
    /// End the pause
    #[arg(long, conflicts_with_all = ["dry_run", "pause"])]
    pub(crate) resume: bool,
}

/// `--pause`: from a second to a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause(pub(crate) Duration);

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let wrong = || format!("{text:?} is no pause: write 30m, 12h or 2d, at most 7d");
        let split = UNITS.into_iter().find_map(|(unit, length)| Some((text.strip_suffix(unit)?, length)));
        let (number, length) = split.ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = number.checked_mul(length).filter(|seconds| (1..=7 * 86_400).contains(seconds));
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        for (text, seconds) in [("1s", 1), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Pause(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "12", "h", "0s", "8d", "604801s", "-1h", "1w"] {
            assert!(text.parse::<Pause>().unwrap_err().contains("12h"), "{text}");
        }
    }
}
