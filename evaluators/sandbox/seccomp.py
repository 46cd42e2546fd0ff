"""Takes system calls away from this process for good: no file, no socket, no process can be opened any more.

Linux only (seccomp in filter mode, x86-64 and arm64); works without privileges and holds for root. The filter is a list
of what is allowed: calls that nobody thought of are refused with EPERM.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import struct
import sys
from typing import Final

_ALLOWED: Final[dict[str, tuple[int, ...]]] = {
    # read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn mremap madvise
    # getpid exit sigaltstack gettid futex clock_gettime exit_group restart_syscall getrandom clock_nanosleep
    "x86_64": (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 25, 28, 39, 60, 131, 186, 202, 228, 231, 219, 318, 230),
    "aarch64": (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 216, 233, 172, 93, 132, 178, 98, 113, 94, 128, 278, 115),
}  # fmt: skip
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 1, 22, 38, 2


def supported() -> bool:
    """True where `lock_down` works: Linux on x86-64 or arm64."""
    return sys.platform == "linux" and platform.machine() in _ALLOWED


def lock_down() -> None:
    """Refuses all but a few harmless system calls from now on, in this process, which also ends with the thread that started it;
    cannot be undone.

    Raises:
        OSError: the kernel does not take the filter.
    """
    program = _program(platform.machine())
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL, 0),
        (_PR_SET_NO_NEW_PRIVS, 1, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, header),
    ):
        if libc.prctl(*arguments, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")


def _program(machine: str) -> bytes:
    """The filter: kill on a foreign architecture (other numbers), allow what is listed, refuse the rest."""
    allowed = _ALLOWED[machine]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(allowed) - place, 0, number) for place, number in enumerate(allowed)]
    steps += [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
