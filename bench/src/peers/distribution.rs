//! CNCF Distribution, as Debian packages it, with the configuration of its documentation.

use std::fs;
use std::path::Path;

use super::{DISTRIBUTION, Data, Kind, Peer, Site, free_address, portcullis, version};
use crate::cores::Share;

pub(super) fn start(site: &Site, program: &Path, share: Share) -> anyhow::Result<Peer> {
    let (name, address) = (DISTRIBUTION, free_address()?);
    let data = site.data(Data::Fresh(if share == Share::One { "distribution" } else { "distribution-two-cores" }))?;
    let home = portcullis::home(&site.directory);
    let config = site.directory.join(format!("{name}.yml"));
    let text = format!(
        "version: 0.1\n\
         log: {{level: info}}\n\
         storage:\n  filesystem: {{rootdirectory: \"{data}\"}}\n  delete: {{enabled: true}}\n  cache: {{blobdescriptor: inmemory}}\n\
         http:\n  addr: \"{address}\"\n  secret: \"of the benchmark\"\n  tls:\n    certificate: \"{home}/pki/server/server.crt\"\n    \
         key: \"{home}/pki/server/server.key\"\n    clientcas: [\"{home}/pki/client-ca/ca.crt\"]\n",
        data = data.display(),
        home = home.display(),
    );
    fs::write(&config, text)?;
    let mut command = site.cores.command(share, program);
    command.arg("serve").arg(&config);
    Ok(site.start(Kind::Distribution, name, &mut command, address)?.with(version(program, "--version"), data))
}
