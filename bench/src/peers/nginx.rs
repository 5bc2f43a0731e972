//! nginx with the same bytes as static files, tuned as its users would: what a server in C reaches that knows nothing of
//! repositories.

use std::fs;
use std::path::Path;

use super::{Data, Kind, NGINX, Peer, Site, free_address, portcullis, version};
use crate::content::Image;
use crate::cores::Share;
use crate::load::{REPOSITORY, TAG};

pub(super) fn start(site: &Site, program: &Path, image: &Image) -> anyhow::Result<Peer> {
    let (name, address) = (NGINX, free_address()?);
    let data = site.data(Data::Fresh(name))?;
    let (blobs, manifests) =
        (data.join(format!("v2/{REPOSITORY}/blobs")), data.join(format!("v2/{REPOSITORY}/manifests")));
    fs::create_dir_all(&blobs)?;
    fs::create_dir_all(&manifests)?;
    for blob in &image.blobs {
        fs::write(blobs.join(&blob.digest), &blob.bytes)?;
    }
    fs::write(manifests.join(TAG), &image.manifest.bytes)?;
    let home = portcullis::home(&site.directory);
    let (at, pki) = (data.display(), home.join("pki"));
    let pki = pki.display();
    let text = format!(
        "worker_processes 1; pid {at}/pid; error_log {at}/error.log; daemon off; user root;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         log_format ours '$remote_addr \"$ssl_client_s_dn\" \"$request\" $status $request_length $body_bytes_sent $request_time';\n\
         access_log {at}/access.log ours; keepalive_requests 1000000; output_buffers 2 512k;\n\
         open_file_cache max=10000 inactive=60s; tcp_nodelay on; default_type application/octet-stream;\n\
         client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3; uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
         server {{\n\
         listen {address} ssl http2; root {at}; ssl_protocols TLSv1.3;\n\
         ssl_certificate {pki}/server/server.crt; ssl_certificate_key {pki}/server/server.key;\n\
         ssl_client_certificate {pki}/client-ca/ca.crt; ssl_verify_client on;\n\
         location = /v2/ {{ default_type application/json; return 200 '{{}}'; }}\n\
         }} }}\n"
    );
    let config = site.directory.join("nginx.conf");
    fs::write(&config, text)?;
    let mut command = site.cores.command(Share::One, program);
    command.arg("-c").arg(&config).arg("-p").arg(&data);
    Ok(site.start(Kind::Nginx, name, &mut command, address)?.with(version(program, "-v"), data))
}
