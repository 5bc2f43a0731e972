//! Docker Hub, the one registry whose images are called otherwise than the host that has them: `docker.io/library/alpine` is
//! asked for at `registry-1.docker.io`. The rule is Docker's own and every engine's (distribution/reference
//! `splitDockerDomain`, docker/cli `registry.DefaultV2Registry`, containers/image `docker_client.go`). Its certificate
//! directory is called `docker.io`.

use crate::RegistryHost;

/// What its images are called after.
pub const NAME: &str = "docker.io";

/// What they were called after before; also where its logins are kept.
pub const FORMER_NAME: &str = "index.docker.io";

/// The host that has the distribution API.
pub const REGISTRY: &str = "registry-1.docker.io";

/// Where an image is whose name has one part only.
pub(crate) const LIBRARY: &str = "library/";

impl RegistryHost {
    /// Whether it is Docker Hub, by the name that its images have.
    pub fn is_docker_hub(&self) -> bool {
        [NAME, FORMER_NAME].contains(&self.as_str())
    }

    /// Host and port at which the registry is spoken to: its own, but for Docker Hub.
    ///
    /// ```
    /// use portcullis_oci::RegistryHost;
    ///
    /// let asked = |host: &str| host.parse::<RegistryHost>().map(|host| host.api_authority().to_owned());
    /// assert_eq!(asked("docker.io")?, "registry-1.docker.io");
    /// assert_eq!(asked("docker.io:5000")?, "docker.io:5000");
    /// # Ok::<(), portcullis_oci::InvalidReference>(())
    /// ```
    pub fn api_authority(&self) -> &str {
        if self.is_docker_hub() { REGISTRY } else { self.as_str() }
    }
}
