//! Names of system errors in labels. Must never name one by a number that another system gives it.

/// What a socket's end is usually about.
pub(super) fn name(errno: i32) -> Option<&'static str> {
    use rustix::io::Errno;
    let names = [
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::PIPE, "EPIPE"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NOTCONN, "ENOTCONN"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::INVAL, "EINVAL"),
        (Errno::PERM, "EPERM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PROTO, "EPROTO"),
    ];
    names.into_iter().find(|(known, _)| known.raw_os_error() == errno).map(|(_, name)| name)
}
