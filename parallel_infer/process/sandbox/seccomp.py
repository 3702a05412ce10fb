"""An allow-list of system calls (seccomp): what a process that decodes strangers' pictures needs, and nothing else.

Everything that is not listed fails with EPERM and is written to the kernel's log. Some calls are allowed for some
arguments only: new threads but no processes, Unix sockets but no network, signals to oneself but to nobody else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

# name: (number on x86-64, number on aarch64), -1 where the processor has none
_ALLOWED = {
    # files that are open, or that Landlock lets be opened
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "stat": (4, -1),
    "lstat": (6, -1),
    "open": (2, -1),
    "openat": (257, 56),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "fcntl": (72, 25),
    "dup": (32, 23),
    "dup3": (292, 24),
    "fadvise64": (221, 223),
    # waiting, and the sockets of the run
    "pipe2": (293, 59),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, -1),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "poll": (7, -1),
    "ppoll": (271, 73),
    "select": (23, -1),
    "pselect6": (270, 72),
    "connect": (42, 203),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # signals to oneself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    # threads
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_setaffinity": (203, 122),
    "getcpu": (309, 168),
    "set_tid_address": (218, 96),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_setscheduler": (144, 119),
    "arch_prctl": (158, -1),
    # time, and who and where one is
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, -1),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getrlimit": (97, 163),
    "getrandom": (318, 278),
    "restart_syscall": (219, 128),
    # the end
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # column, AUDIT_ARCH, seccomp's number
_SOCKET, _CLONE, _CLONE3, _TGKILL, _PRCTL = (41, 198), (56, 220), (435, 435), (234, 131), (157, 167)
_PRLIMIT, _IOCTL = (302, 261), (16, 29)
_CLONE_THREAD = 0x10000
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FILTER_MODE, _ALL_THREADS, _LOG = 1, 1, 2
# Classic BPF: load a word, jump if equal, jump if a bit is set, return. The offsets are those of struct seccomp_data.
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000  # numbers of x86-64's second table begin here

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def restrict_calls() -> str:
    """Forbid everything that is not listed, in all threads and for good. Returns "" or why it cannot be done."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"no list of system calls for {platform.machine()}"
    column, architecture, seccomp = machine
    instructions = b"".join(struct.pack("=HBBI", *each) for each in _instructions(column, architecture, os.getpid()))
    memory = ctypes.create_string_buffer(instructions, len(instructions))
    program = _Program(len(instructions) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(seccomp, _FILTER_MODE, _ALL_THREADS | _LOG, ctypes.byref(program)):
        return f"seccomp: {os.strerror(ctypes.get_errno())}"
    return ""


def _instructions(column: int, architecture: int, pid: int) -> Iterator[Instruction]:
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _EQUAL, 1, 0, architecture
    yield _RETURN, 0, 0, _KILL  # another machine's numbers mean other calls
    yield _LOAD, 0, 0, _NUMBER
    yield _AT_LEAST, 0, 1, _X32
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    for numbers in _ALLOWED.values():
        if numbers[column] >= 0:
            yield _EQUAL, 0, 1, numbers[column]
            yield _RETURN, 0, 0, _ALLOW
    yield from _where(_SOCKET[column], 0, (1,))  # AF_UNIX
    yield from _where(_TGKILL[column], 0, (pid,))
    yield from _where(_PRCTL[column], 0, (_PR_SET_NAME,))
    yield from _where(_PRLIMIT[column], 0, (0,))  # its own limits, which cannot be raised
    yield from _where(_IOCTL[column], 1, _IOCTLS)
    yield _EQUAL, 0, 4, _CLONE[column]
    yield _LOAD, 0, 0, _ARGUMENTS
    yield _ANY_BIT, 0, 1, _CLONE_THREAD
    yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _EQUAL, 0, 1, _CLONE3[column]
    yield _RETURN, 0, 0, _ERROR | errno.ENOSYS  # its flags lie in memory, where no filter can read them: use clone
    yield _RETURN, 0, 0, _ERROR | errno.EPERM


def _where(number: int, argument: int, values: tuple[int, ...]) -> Iterator[Instruction]:
    """Allow a call if an argument has one of these values."""
    yield _EQUAL, 0, 2 + 2 * len(values), number
    yield _LOAD, 0, 0, _ARGUMENTS + 8 * argument  # its lower half; the kernel takes no more of these arguments
    for value in values:
        yield _EQUAL, 0, 1, value
        yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
