"""Converts HDR and wide-gamut pictures to SDR, which image models expect.

Source of the formulas: ITU-R BT.2100 (PQ, HLG), BT.2408 (reference white at 203 cd/m²), BT.2087 (BT.2020 into BT.709).
"""

from __future__ import annotations

import numpy as np
import torch

PQ, HLG = 16, 18  # transfer characteristics, ITU-T H.273
BT2020 = 9  # primaries, ITU-T H.273
WHITE = 203.0  # cd/m²: SDR white in HDR (BT.2408)
PEAK = 1000.0  # cd/m²: the nominal peak of HLG, and of most PQ films
KNEE = 0.8  # of SDR white: darker tones do not change

BT2020_TO_BT709 = torch.tensor([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
BT2020_LUMA = torch.tensor([0.2627, 0.6780, 0.0593])


def needs_mapping(transfer: int, primaries: int) -> bool:
    return transfer in (PQ, HLG) or primaries == BT2020


def to_sdr(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """uint16 RGB `h w 3` in 0..65535, with a transfer function and primaries of H.273 -> uint8 RGB `h w 3`, BT.709."""
    signal = torch.from_numpy(picture.astype(np.float32)).div_(65535.0)
    if transfer == PQ:
        light = compressed(pq_light(signal) / WHITE)
    elif transfer == HLG:
        light = compressed(hlg_light(signal) / WHITE)
    else:
        light = signal**2.4  # BT.1886
    if primaries == BT2020:
        light = light @ BT2020_TO_BT709.T
    light = light.clamp(0, 1)
    encoded = srgb(light) if transfer in (PQ, HLG) else light ** (1 / 2.4)
    return encoded.mul_(255).round_().byte().numpy()


def srgb(light: torch.Tensor) -> torch.Tensor:
    """Light in 0..1 -> sRGB (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055)


def pq_light(signal: torch.Tensor) -> torch.Tensor:
    """PQ's EOTF (BT.2100, table 4): 0..1 -> cd/m²."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal.clamp(0, 1) ** (1 / m2)
    return 10000 * ((power - c1).clamp(min=0) / (c2 - c3 * power)) ** (1 / m1)


def hlg_light(signal: torch.Tensor) -> torch.Tensor:
    """HLG's inverse OETF and OOTF for a screen of 1000 cd/m² (BT.2100, table 5): RGB in 0..1, last axis 3 -> cd/m²."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * float(np.log(4 * a))
    scene = torch.where(signal <= 0.5, signal**2 / 3, (((signal - c) / a).exp() + b) / 12)
    luma = (scene @ BT2020_LUMA)[..., None]
    return PEAK * luma.clamp(min=1e-6) ** 0.2 * scene


def compressed(light: torch.Tensor) -> torch.Tensor:
    """Light with SDR white as 1 -> 0..1: linear up to the knee, then compressed towards the peak. The largest of the
    three channels sets the factor, which preserves hues (our choice; BT.2390 compresses luma)."""
    top = PEAK / WHITE
    largest = light.amax(-1, keepdim=True).clamp(min=1e-6)
    over = ((largest - KNEE) / (top - KNEE)).clamp(0, 1)
    room, slope = 1 - KNEE, (top - KNEE) / (1 - KNEE)
    bent = KNEE + room * slope * over / (1 + (slope - 1) * over)  # slope 1 at the knee, 1 at the peak
    return light * (torch.where(largest > KNEE, bent, largest) / largest)
