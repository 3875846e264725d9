//! Numbers of the kernel's API that several programs use. Must never hold one of ours.

/// include/linux/socket.h
pub const AF_INET: u32 = 2;
/// include/uapi/asm-generic/socket.h
pub const SOL_SOCKET: i32 = 1;
/// include/uapi/asm-generic/socket.h
pub const SO_MARK: i32 = 36;
