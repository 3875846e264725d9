//! The kernel side of capture: two connect hooks that choose what is captured, one socket lookup that captures it, and one socket
//! hook that knows the node's own connections to its pods.
//!
//! Must never touch a payload byte, a kernel structure (only the stable contexts are read), or a pod that is not in the maps.
#![no_std]
#![no_main]

mod connect;
mod lookup;
mod maps;
mod probes;
mod uapi;

/// Never reached: the programs hold no bounds check that can fail, and the linker drops this.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// No helper in use asks for a GPL-compatible program, so the kernel is told the true licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
