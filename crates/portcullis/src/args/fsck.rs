//! The words of `fsck`.

use std::str::FromStr;

use clap::ValueEnum;

use super::HomeArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// Move damaged blobs aside, bring what is needed back from the trash, write missing links again
    #[arg(long, conflicts_with = "purpose")]
    pub(crate) repair: bool,
    /// Say instead what CNCF Distribution could not keep or serve, before the data goes back to it
    #[arg(long = "for", value_enum, value_name = "REGISTRY")]
    pub(crate) purpose: Option<ForWord>,
    /// Read no faster than this, such as 50MiB/s
    #[arg(long)]
    pub(crate) rate: Option<Rate>,
    /// Begin anew, though an earlier check was interrupted
    #[arg(long)]
    pub(crate) restart: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--for`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForWord {
    /// registry:2, registry:3
    Distribution,
}

/// `--rate`: bytes a second, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        let wrong = || format!("{text:?} is no rate: write 50MiB/s, 512KiB/s or 1GiB/s");
        let amount = text.strip_suffix("/s").unwrap_or(text);
        let (number, unit) =
            UNITS.into_iter().find_map(|(name, unit)| Some((amount.strip_suffix(name)?, unit))).ok_or_else(wrong)?;
        let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).filter(|rate| *rate > 0).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, rate) in [("50MiB/s", 50 << 20), ("512 KiB/s", 512 << 10), ("1GiB", 1 << 30), ("700B/s", 700)] {
            assert_eq!(text.parse(), Ok(Rate(rate)), "{text}");
        }
        for text in ["", "50", "MiB/s", "0MiB/s", "-1MiB/s", "50MB/s", "50MiB/m", "99999999999GiB/s"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("50MiB/s"), "{text}");
        }
    }
}
