# Connects in one of the ways that exist, and prints what the other side said, or "errno N".
# Arguments: flavour, address, port, and an option of the flavour. A child process, because some ways need raw system calls.
import ctypes, errno, mmap, os, select, socket, struct, sys

flavour, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
option = sys.argv[4] if len(sys.argv) > 4 else ""
family = socket.AF_INET6 if ":" in address else socket.AF_INET
libc = ctypes.CDLL(None, use_errno=True)


def uring_connect(sock):
    params = (ctypes.c_uint32 * 30)()
    ring = libc.syscall(425, 4, params)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    sq_offsets, cq_offsets = params[10:20], params[20:30]
    sq = mmap.mmap(ring, sq_offsets[6] + 4 * params[0], offset=0)
    cq = mmap.mmap(ring, cq_offsets[5] + 16 * params[1], offset=0x8000000)
    sqes = mmap.mmap(ring, 64 * params[0], offset=0x10000000)
    if family == socket.AF_INET:
        name = struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_pton(family, address) + bytes(8)
    else:
        name = struct.pack("=H", family) + struct.pack("!HI", port, 0) + socket.inet_pton(family, address) + bytes(4)
    buffer = ctypes.create_string_buffer(name, len(name))
    # IORING_OP_CONNECT: the length of the address lies where other operations have the offset.
    sqes[0:64] = struct.pack("=BBHiQQ", 16, 0, 0, sock.fileno(), len(name), ctypes.addressof(buffer)).ljust(64, b"\0")
    sq[sq_offsets[6] : sq_offsets[6] + 4] = struct.pack("=I", 0)
    sq[sq_offsets[1] : sq_offsets[1] + 4] = struct.pack("=I", 1)
    if libc.syscall(426, ring, 1, 1, 1, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    result = struct.unpack("=i", cq[cq_offsets[5] + 8 : cq_offsets[5] + 12])[0]
    if result < 0:
        raise OSError(-result, "io_uring connect")


def connected():
    sock = socket.socket(family, socket.SOCK_STREAM, 262 if flavour == "mptcp" else 0)
    sock.settimeout(5)
    if flavour == "nonblocking":
        sock.setblocking(False)
        started = sock.connect_ex((address, port))
        if started not in (0, errno.EINPROGRESS):
            raise OSError(started, "connect")
        select.select([], [sock], [], 5)
        ended = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if ended:
            raise OSError(ended, "connect")
        sock.settimeout(5)
    elif flavour == "fastopen":
        sock.setblocking(True)
        sock.sendto(b"in the SYN", 0x20000000, (address, port))
    elif flavour == "uring":
        sock.setblocking(True)
        uring_connect(sock)
    else:
        if flavour == "device":
            sock.setsockopt(socket.SOL_SOCKET, 25, option.encode())
        elif flavour == "mark":
            sock.setsockopt(socket.SOL_SOCKET, 36, int(option))
        elif flavour == "bound":
            sock.bind((option, 0))
        sock.connect((address, port))
    return sock


try:
    sock = connected()
    said = b""
    while piece := sock.recv(4096):
        said += piece
    print(said.decode(), end="")
except socket.timeout:
    print("errno %d" % errno.ETIMEDOUT, end="")
except OSError as error:
    print("errno %d" % error.errno, end="")
