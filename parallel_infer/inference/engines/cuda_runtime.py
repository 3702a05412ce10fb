"""The few calls of NVIDIA's CUDA runtime that ONNX Runtime does not make for us."""

from __future__ import annotations

import ctypes

from parallel_infer.errors import ConfigError, InferError
from parallel_infer.inference.ort import ort

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking
_PORTABLE = 1  # cudaHostRegisterPortable
_SLEEPING = 1 | 2  # cudaEventBlockingSync, cudaEventDisableTiming: who waits leaves its core to others


class CudaRuntime:
    """The CUDA runtime on one device. Addresses and streams are plain numbers. `InferError` with CUDA's own words."""

    kind = "cuda"  # what ONNX Runtime calls the device

    def __init__(self, device: int) -> None:
        self._library = _loaded()
        self._device = ctypes.c_int(device)
        self._check(self._library.cudaSetDevice(self._device))

    def stream(self) -> int:
        """A new stream."""
        handle = ctypes.c_void_p()
        self._check(self._library.cudaStreamCreateWithFlags(ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING)))
        return handle.value or 0

    def event(self) -> int:
        """A new event, which counts as reached until it is recorded."""
        handle = ctypes.c_void_p()
        self._check(self._library.cudaEventCreateWithFlags(ctypes.byref(handle), ctypes.c_uint(_SLEEPING)))
        return handle.value or 0

    def record(self, event: int, stream: int) -> None:
        """The event is reached when all that is in the stream by now is done."""
        self._check(self._library.cudaEventRecord(ctypes.c_void_p(event), ctypes.c_void_p(stream)))

    def follow(self, stream: int, event: int) -> None:
        """Nothing put into the stream from now on begins before the event, as it was recorded last, is reached."""
        result = self._library.cudaStreamWaitEvent(ctypes.c_void_p(stream), ctypes.c_void_p(event), ctypes.c_uint(0))
        self._check(result)

    def wait_event(self, event: int) -> None:
        """Sleep until the event is reached, in any thread."""
        self._check(self._library.cudaSetDevice(self._device))  # else a thread's first call opens GPU 0
        self._check(self._library.cudaEventSynchronize(ctypes.c_void_p(event)))

    def is_lost(self) -> bool:
        """Whether the device answers nothing but errors from now on: CUDA's own end, that of a process, mends it."""
        self._library.cudaSetDevice(self._device)
        lost: bool = self._library.cudaDeviceSynchronize() != 0
        self._library.cudaGetLastError()
        return lost

    def copy_to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy `size` bytes from the host; pageable memory is copied aside first, before this returns."""
        self._copy(target, source, size, _TO_DEVICE, stream)

    def copy_to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Begin to copy `size` bytes to the host."""
        self._copy(target, source, size, _TO_HOST, stream)

    def wait(self, stream: int) -> None:
        """Wait until everything in the stream is done."""
        self._check(self._library.cudaStreamSynchronize(ctypes.c_void_p(stream)))

    def lock_pages(self, address: int, size: int) -> None:
        """Page-lock memory of the host."""
        result = self._library.cudaHostRegister(
            ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)
        )
        self._check(result)

    def unlock_pages(self, address: int) -> None:
        self._check(self._library.cudaHostUnregister(ctypes.c_void_p(address)))

    def _copy(self, target: int, source: int, size: int, direction: int, stream: int) -> None:
        result = self._library.cudaMemcpyAsync(
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(direction),
            ctypes.c_void_p(stream),
        )
        self._check(result)

    def _check(self, result: int) -> None:
        if result != 0:
            self._library.cudaGetLastError()  # else the next call would report it again
            raise InferError(f"CUDA: {self._library.cudaGetErrorString(ctypes.c_int(result)).decode()}")


def _loaded() -> ctypes.CDLL:
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA where pip put it
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.cudaGetErrorString.restype = ctypes.c_char_p
        return library
    raise ConfigError("provider = cuda: libcudart is not found; pip install 'parallel-infer[gpu]'")
