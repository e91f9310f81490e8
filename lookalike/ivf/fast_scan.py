"""Codes of 4 bits in the order in which Faiss's FastScan reads them: blocks of 32 vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

BLOCK = 32  # vectors that FastScan looks at together
# FastScan's order of 32 vectors in a block: a shuffle of 16 bytes serves two vectors at once.
_ORDER = np.array([half * 8 + i for i in range(8) for half in (0, 1)])
_PAIRED = np.concatenate([_ORDER, _ORDER + 16])


def pack_blocks(codes: Codes) -> Codes:
    """4-bit codes (32 b, bytes) as FastScan reads them: (b, bytes, 32), as Faiss's pq4_pack_codes.

    A byte of a code holds two sub-quantizers, one in its lower and one in its upper four bits. For
    each block of 32 vectors and each byte of their codes, the output has 16 bytes with the lower
    sub-quantizer of all 32 vectors, and then 16 bytes with the upper one.

    With codes of one byte, where the code of vector i is the number i (0 to 31), the block is

        00 88 11 99 22 aa 33 bb 44 cc 55 dd 66 ee 77 ff    lower: i % 16 of vectors 0 and 16, ...
        10 10 10 10 10 10 10 10 10 10 10 10 10 10 10 10    upper: i // 16, 0 below and 1 above
    """
    blocks = codes.reshape(-1, BLOCK, codes.shape[1])[:, _PAIRED].transpose(0, 2, 1)
    first, second = blocks[:, :, :16], blocks[:, :, 16:]
    packed = np.empty(blocks.shape, dtype=np.uint8)
    packed[:, :, :16] = (first & 15) | (second << 4)
    packed[:, :, 16:] = (first >> 4) | (second & 240)
    return packed


def unpack_blocks(blocks: Codes) -> Codes:
    """What `pack_blocks` was given: (b, bytes, 32) -> (32 b, bytes)."""
    lower, upper = blocks[:, :, :16], blocks[:, :, 16:]
    paired = np.empty(blocks.shape, dtype=np.uint8)
    paired[:, :, :16] = (lower & 15) | (upper << 4)
    paired[:, :, 16:] = (lower >> 4) | (upper & 240)
    codes = np.empty((len(blocks), BLOCK, blocks.shape[1]), dtype=np.uint8)
    codes[:, _PAIRED] = paired.transpose(0, 2, 1)
    return codes.reshape(-1, blocks.shape[1])
