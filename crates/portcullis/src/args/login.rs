//! Words of `login` and `logout`.

use portcullis_oci::RegistryHost;

use super::ClientArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The registry: HOST[:PORT]
    pub(crate) host: RegistryHost,
    /// The user name; without it, it is asked for
    #[arg(long, short)]
    pub(crate) username: Option<String>,
    /// Read the password from standard input; without it, it is asked for on the terminal
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry: HOST[:PORT]
    pub(crate) host: RegistryHost,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
