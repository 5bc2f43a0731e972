//! Which user is at the other end of a connection on this machine. Knows nothing of HTTP, nor of who may do what.
//!
//! A Unix socket says so itself. For TCP the kernel is asked for the one socket with the connection's two addresses
//! turned round (`sock_diag(7)`), whose owner is whoever made it. What could be mistaken for an answer is none:
//! - A socket that its program has closed already is shown as root's by older kernels (`sock_i_uid`), and one in TIME_WAIT
//!   by all (`inet_diag.c`): it must be established and have an inode, which the kernel reads after the owner.
//! - Where no such connection is left, the kernel looks for a listener on the port: the addresses must be the same.
//! - The addresses could be used again by another program, but not while our own end is open: it is looked at afterwards.
//! - A user who has no number in our user namespace is shown with one that many have (`overflowuid`).

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixStream};

/// A user's number, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User(u32);

/// Why it is not known whose a connection is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the kernel does not say whose the connection is: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the program at the other end has closed its socket already")]
    Closed,
    #[error("the other end is on another machine, or in another network namespace")]
    Elsewhere,
    #[error("the other end belongs to a user that has no number here")]
    Unmapped,
    #[error("it does not know a connection of our own (is `tcp_diag` missing?)")]
    Unsupported,
    #[cfg(not(target_os = "linux"))]
    #[error("only Linux says whose a TCP connection is")]
    NotLinux,
}

impl User {
    /// Whom this process runs as.
    pub(super) fn ours() -> Self {
        Self(rustix::process::geteuid().as_raw())
    }

    /// The one who may do everything anyway.
    pub(super) const ROOT: Self = Self(0);

    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

pub(super) fn of_unix(stream: &UnixStream) -> Result<User, Unknown> {
    mapped(stream.peer_cred()?.uid())
}

#[cfg(target_os = "linux")]
pub(super) fn of_tcp(stream: &TcpStream) -> Result<User, Unknown> {
    let user = owner(stream.peer_addr()?, stream.local_addr()?)?;
    // Fails once our end is reset: until now its addresses were nobody else's.
    stream.peer_addr()?;
    Ok(user)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn of_tcp(_: &TcpStream) -> Result<User, Unknown> {
    Err(Unknown::NotLinux)
}

/// Whether the kernel says whose a connection is, by one of our own; without that, every connection would be refused.
#[cfg(target_os = "linux")]
pub(super) fn check_tcp() -> Result<(), Unknown> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let ours = std::net::TcpStream::connect(listener.local_addr()?)?;
    // A kernel without the part that would know says of every socket that there is none.
    match owner(ours.local_addr()?, ours.peer_addr()?) {
        Ok(user) if user == User::ours() => Ok(()),
        Ok(_) | Err(Unknown::Elsewhere) => Err(Unknown::Unsupported),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn check_tcp() -> Result<(), Unknown> {
    Err(Unknown::NotLinux)
}

#[cfg(target_os = "linux")]
fn owner(peer: SocketAddr, local: SocketAddr) -> Result<User, Unknown> {
    let found = diag::find(canonical(peer), canonical(local))?;
    mapped(found.ok_or(Unknown::Elsewhere)?.owner()?)
}

fn mapped(number: u32) -> Result<User, Unknown> {
    if number == overflow_user() && !all_are_mapped() { Err(Unknown::Unmapped) } else { Ok(User(number)) }
}

/// The number shown for all who have none (`user_namespaces(7)`).
fn overflow_user() -> u32 {
    let number = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(65534)
}

/// In the first user namespace every user is its own.
fn all_are_mapped() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// An IPv4 connection is the same whatever kind of socket it was made with.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        _ => address,
    }
}

/// `sock_diag(7)`, as `linux/inet_diag.h` lays it out.
#[cfg(target_os = "linux")]
mod diag {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

    use super::Unknown;

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLMSG_ERROR: u16 = 2;
    const NLM_F_REQUEST: u16 = 1;
    const TCP: u8 = 6;
    const ESTABLISHED: u8 = 1;
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    const SEQUENCE: u32 = 1;
    /// `struct nlmsghdr`, and `struct inet_diag_msg` after it.
    const HEADER: usize = 16;
    const ANSWER: usize = HEADER + 72;

    /// What the kernel says of a socket.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Found {
        state: u8,
        user: u32,
        inode: u32,
    }

    impl Found {
        pub(super) fn owner(&self) -> Result<u32, Unknown> {
            if self.state == ESTABLISHED && self.inode != 0 { Ok(self.user) } else { Err(Unknown::Closed) }
        }
    }

    /// The socket here whose own address is `own`, connected to `other`; `None`: there is none.
    pub(super) fn find(own: SocketAddr, other: SocketAddr) -> io::Result<Option<Found>> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
        sendto(&socket, &question(own, other), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        // The kernel has answered by the time that the question is sent.
        let mut buffer = [0; 1024];
        let (_, length) = recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT)?;
        read(buffer.get(..length).unwrap_or_default(), own, other)
    }

    fn question(own: SocketAddr, other: SocketAddr) -> Vec<u8> {
        let (family, interface) = match own {
            SocketAddr::V4(_) => (AddressFamily::INET, 0),
            SocketAddr::V6(v6) => (AddressFamily::INET6, v6.scope_id()),
        };
        let family = u8::try_from(family.as_raw()).unwrap_or_default();
        let mut body = vec![family, TCP, 0, 0];
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(own.port().to_be_bytes());
        body.extend(other.port().to_be_bytes());
        body.extend(octets(own.ip()));
        body.extend(octets(other.ip()));
        body.extend(interface.to_ne_bytes());
        body.extend(NO_COOKIE);
        let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend(SEQUENCE.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        message
    }

    /// Sixteen octets; an IPv4 address takes the first four.
    fn octets(address: IpAddr) -> [u8; 16] {
        let mut octets = [0; 16];
        match address {
            IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => octets = v6.octets(),
        }
        octets
    }

    pub(super) fn read(message: &[u8], own: SocketAddr, other: SocketAddr) -> io::Result<Option<Found>> {
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "an answer that cannot be understood");
        let word = |at: usize| -> io::Result<[u8; 4]> {
            message.get(at..at + 4).and_then(|four| four.try_into().ok()).ok_or_else(garbled)
        };
        let number = |at: usize| word(at).map(u32::from_ne_bytes);
        let half = word(4)?;
        if number(8)? != SEQUENCE {
            return Err(garbled());
        }
        match u16::from_ne_bytes([half[0], half[1]]) {
            NLMSG_ERROR => {
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(word(HEADER)?).saturating_neg());
                if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
            }
            SOCK_DIAG_BY_FAMILY if message.len() >= ANSWER => {
                let [family, state, ..] = word(HEADER)?;
                let [p, q, r, s] = word(HEADER + 4)?;
                let ports = (u16::from_be_bytes([p, q]), u16::from_be_bytes([r, s]));
                let address = |at: usize| address(family, message.get(at..at + 16)).ok_or_else(garbled);
                let addresses = (address(HEADER + 8)?, address(HEADER + 24)?);
                let same = ports == (own.port(), other.port()) && addresses == (own.ip(), other.ip());
                let found = Found { state, user: number(HEADER + 64)?, inode: number(HEADER + 68)? };
                Ok(same.then_some(found))
            }
            _ => Err(garbled()),
        }
    }

    fn address(family: u8, octets: Option<&[u8]>) -> Option<IpAddr> {
        let octets: [u8; 16] = octets?.try_into().ok()?;
        let family = AddressFamily::from_raw(u16::from(family));
        if family == AddressFamily::INET {
            let [a, b, c, d, ..] = octets;
            return Some(Ipv4Addr::new(a, b, c, d).into());
        }
        (family == AddressFamily::INET6).then(|| IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
    }

    #[cfg(test)]
    pub(super) mod tests {
        use super::*;

        /// As the kernel would answer a question about these two.
        pub(in super::super) fn answer(own: SocketAddr, other: SocketAddr, state: u8, inode: u32) -> Vec<u8> {
            let mut message = question(own, other);
            message[HEADER + 1] = state;
            // Question and answer have the addresses in the same order, four octets apart.
            message.drain(HEADER + 4..HEADER + 8);
            message.resize(HEADER + 64, 0);
            message.extend(1000_u32.to_ne_bytes());
            message.extend(inode.to_ne_bytes());
            message
        }

        #[test]
        fn what_is_no_answer() {
            let (own, other): (SocketAddr, SocketAddr) =
                ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:5000".parse().unwrap());
            let owner = |message: &[u8]| read(message, own, other).unwrap().unwrap().owner();
            assert_eq!(owner(&answer(own, other, ESTABLISHED, 7)).unwrap(), 1000);
            // Closed by its program: the kernel would say root.
            assert!(owner(&answer(own, other, ESTABLISHED, 0)).is_err());
            for state in [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
                assert!(owner(&answer(own, other, state, 7)).is_err(), "{state}");
            }
            // A listener on the same port.
            let listener = answer(own, "0.0.0.0:0".parse().unwrap(), ESTABLISHED, 7);
            assert_eq!(read(&listener, own, other).unwrap(), None);
            for length in [0, 3, HEADER, ANSWER - 1] {
                assert!(read(&answer(own, other, ESTABLISHED, 7)[..length], own, other).is_err(), "{length}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn both_ends(listen: &str, connect: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let socket = if connect == "127.0.0.1" { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        let address = SocketAddr::new(connect.parse().unwrap(), listener.local_addr().unwrap().port());
        let (accepted, connected) = tokio::join!(listener.accept(), socket.connect(address));
        (accepted.unwrap().0, connected.unwrap())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn our_own_connections() {
        // The last: an IPv6 socket with an IPv4 address in it, which Java makes.
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let (accepted, _connected) = both_ends(listen, connect).await;
            assert_eq!(of_tcp(&accepted).unwrap(), User::ours(), "{listen} {connect}");
        }
    }

    /// Older kernels show a socket that was closed, with its connection still there, as root's.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_has_left_is_nobody() {
        let (accepted, connected) = both_ends("127.0.0.1:0", "127.0.0.1").await;
        drop(connected);
        assert!(matches!(of_tcp(&accepted), Err(Unknown::Closed)), "{:?}", of_tcp(&accepted));
    }

    #[tokio::test]
    async fn a_unix_socket_says_it_itself() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(of_unix(&one).unwrap(), User::ours());
    }
}
