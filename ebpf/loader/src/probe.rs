//! Asks the kernel what it can do, by trying it. Must never look at a version number.

use std::{io, path::Path};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_helper_supported, is_map_supported, is_program_supported},
};

/// One thing that capture needs or likes.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Stable name.
    pub name: &'static str,
    /// Whether capture works at all without it.
    pub required: bool,
    /// Whether it is there.
    pub present: bool,
    /// What it is for, or why it could not be determined.
    pub detail: String,
}

/// Tries everything that capture stands on. Takes some milliseconds; needs CAP_BPF.
pub fn probe() -> Vec<Feature> {
    let connect = ProgramType::CgroupSockAddr;
    let mut features = vec![
        asked("program_connect", true, "marks what is captured (Linux 4.17)", is_program_supported(connect)),
        asked(
            "program_sk_lookup",
            true,
            "gives connections to the proxy (Linux 5.9)",
            is_program_supported(ProgramType::SkLookup),
        ),
        asked("map_sockmap", true, "holds the listeners (Linux 4.14)", is_map_supported(MapType::SockMap)),
        asked(
            "helper_netns_cookie",
            true,
            "tells pods apart (Linux 5.7)",
            is_helper_supported(connect, aya::sys::BpfHelper::BPF_FUNC_get_netns_cookie),
        ),
        asked(
            "probes_of_kubelet",
            false,
            "lets kubelet's probes through where policy denies (Linux 5.15)",
            is_helper_supported(ProgramType::SockOps, aya::sys::BpfHelper::BPF_FUNC_get_netns_cookie),
        ),
        asked(
            "helper_set_retval",
            false,
            "refused connections say ECONNREFUSED, else EPERM (Linux 5.18)",
            is_helper_supported(connect, aya::sys::BpfHelper::BPF_FUNC_set_retval),
        ),
    ];
    features.push(socket_option(
        "socket_netns_cookie",
        "finds a pod's cookie (Linux 5.14)",
        crate::sockopt::netns_cookie,
    ));
    for (name, path, detail) in [
        ("sysctl_tcp_fwmark_accept", "/proc/sys/net/ipv4/tcp_fwmark_accept", "replies of applications find the proxy"),
        ("sysctl_fwmark_reflect", "/proc/sys/net/ipv4/fwmark_reflect", "refusals of applications find the proxy"),
    ] {
        features.push(Feature { name, required: true, present: Path::new(path).exists(), detail: detail.to_owned() });
    }
    features
}

/// Whether the connect hook may choose its errno.
pub(crate) fn can_set_errno() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, aya::sys::BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Whether connections of the node itself can be told from others.
pub(crate) fn can_know_probes() -> bool {
    is_helper_supported(ProgramType::SockOps, aya::sys::BpfHelper::BPF_FUNC_get_netns_cookie).unwrap_or(false)
}

fn asked<E: std::fmt::Display>(name: &'static str, required: bool, detail: &str, answer: Result<bool, E>) -> Feature {
    match answer {
        Ok(present) => Feature { name, required, present, detail: detail.to_owned() },
        Err(error) => Feature { name, required, present: false, detail: format!("{detail}; cannot tell: {error}") },
    }
}

fn socket_option(name: &'static str, detail: &str, get: fn(std::os::fd::BorrowedFd<'_>) -> io::Result<u64>) -> Feature {
    use std::os::fd::AsFd as _;
    let answer = std::net::UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| get(socket.as_fd()));
    let answer = match answer {
        Ok(_value) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(error) => Err(error),
    };
    asked(name, true, detail, answer)
}
