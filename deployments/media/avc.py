"""H.264 as MP4 stores it (ISO/IEC 14496-15): the units of a packet, and headers that hold two encoders' parameter sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

IDR, SPS, PPS = 5, 7, 8
START_CODE = b"\x00\x00\x00\x01"
SET_IDS = 32  # numbers that a sequence parameter set can have
ESCAPE = (b"\x00\x00\x03", b"\x00\x00")


@dataclass(frozen=True)
class Header:
    """An `avcC` record."""

    profile: int
    constraints: int
    level: int
    length_bytes: int  # in front of every unit of a packet
    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    rest: bytes = b""  # chroma format and depth, in the high profiles

    def set_ids(self) -> set[int]:
        """Numbers that its sequence and picture parameter sets use."""
        return {sps_id(unit) for unit in self.sps} | {pps_id(unit) for unit in self.pps}


def parse_header(data: bytes) -> Header | None:
    """The record, or None where `data` is none (bare units, as in MPEG-TS) or is cut off."""
    if len(data) < 7 or data[0] != 1:
        return None
    place = 5
    groups: list[tuple[bytes, ...]] = []
    for mask in (0x1F, 0xFF):
        if place >= len(data):
            return None
        count, place = data[place] & mask, place + 1
        units = []
        for _ in range(count):
            size = int.from_bytes(data[place : place + 2], "big")
            units.append(data[place + 2 : place + 2 + size])
            place += 2 + size
        groups.append(tuple(units))
    if place > len(data) or not all(groups) or not all(len(unit) > 3 for unit in groups[0]):
        return None
    return Header(data[1], data[2], data[3], (data[4] & 3) + 1, groups[0], groups[1], data[place:])


def encoder_header(data: bytes) -> Header:
    """The parameter sets that an encoder made: as bare units, or as the record of a container."""
    found = parse_header(data)
    if found is not None:
        return found
    units = [unit for unit in data.split(START_CODE) if unit]
    sps = tuple(unit for unit in units if unit[0] & 31 == SPS)
    pps = tuple(unit for unit in units if unit[0] & 31 == PPS)
    return Header(sps[0][1], sps[0][2], sps[0][3], 4, sps, pps)


def join_headers(source: Header, encoder: Header) -> bytes:
    """A record with the sets of both; its profile and level are such that all pictures conform."""
    both = replace(
        source,
        profile=max(source.profile, encoder.profile),
        constraints=source.constraints & encoder.constraints,
        level=max(source.level, encoder.level),
        sps=source.sps + encoder.sps,
        pps=source.pps + encoder.pps,
    )
    head = bytes([1, both.profile, both.constraints, both.level, 0xFC | (both.length_bytes - 1), 0xE0 | len(both.sps)])
    return head + packed(both.sps) + bytes([len(both.pps)]) + packed(both.pps) + both.rest


def packed(units: tuple[bytes, ...]) -> bytes:
    """Units with their sizes."""
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def units_of(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """Units of a packet."""
    place = 0
    while place + length_bytes < len(packet):
        size = int.from_bytes(packet[place : place + length_bytes], "big")
        yield packet[place + length_bytes : place + length_bytes + size]
        place += length_bytes + size


def sps_id(unit: bytes) -> int:
    """Number of a sequence parameter set: it stands behind profile, constraints and level."""
    return read_ue(unit[4:])


def pps_id(unit: bytes) -> int:
    """Number of a picture parameter set."""
    return read_ue(unit[1:])


def read_ue(data: bytes) -> int:
    """The exponential Golomb number at the beginning of a payload (7.2, 9.1)."""
    payload = data[:12].replace(*ESCAPE)
    bits = "".join(f"{byte:08b}" for byte in payload)
    zeros = bits.index("1")
    return int(bits[zeros : 2 * zeros + 1], 2) - 1
