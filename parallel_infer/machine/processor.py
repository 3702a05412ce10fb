"""What Linux says of the processor: the one reader of /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def processor_fields(file: Path = CPUINFO) -> dict[str, str]:
    """The fields of the first processor, as "vendor_id" and "model name"; empty where there is no such file."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def instruction_sets(fields: dict[str, str]) -> frozenset[str]:
    """The instruction sets that `processor_fields` name: "flags" of x86, "Features" of ARM."""
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())
