"""The demo's measurements, computed from the server's PNG frames, and their report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ei2.measures import psnr
from miniature.judge import Answers, Judge, answers, right
from miniature.scene import Actor, View, prompt

from ..environment import say


def decode(pictures: list[bytes]) -> torch.Tensor:
    """Encoded pictures of one size -> `f 3 h w`, 0..1."""
    arrays = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def measure(clips: dict[str, torch.Tensor], views: list[View]) -> dict:
    """The report on the pictures. `clips`: source, reconstruction, edit, truth, each `f 3 h w` in 0..1; `views`: what
    the correct edit shows, one per frame."""
    judge, goals = Judge.load(), answers(views)
    found = right(judge, clips["edit"], goals)
    return {
        "frames": len(views),
        "reconstruction_psnr_db": psnr(clips["reconstruction"], clips["source"]),
        "edit_psnr_against_truth_db": psnr(clips["edit"], clips["truth"]),
        "unedited_source_psnr_against_truth_db": psnr(clips["source"], clips["truth"]),
        "frames_with_everything_right": sum(all(one.values()) for one in found),
        "frames_right_by_attribute": {name: sum(one[name] for one in found) for name in goals[0]},
        "wanted": prompt(views[0]),
        "judge_sees": [sentence(seen, goal) for seen, goal in zip(judge.see(clips["edit"]), goals)],
    }


def sentence(seen: dict[str, str], goal: Answers) -> str:
    """What the judge saw, in words, as far as the goal says something about it."""
    actor = Actor(seen["thing"], seen["color"] if "color" in goal else None)
    return prompt(View((actor,), seen["place"], seen["background"], seen["look"]))


def summarize(report: dict, output: Path) -> None:
    """Prints the report in readable form."""
    frames = report["frames"]
    say(f"\nReconstruction: {report['reconstruction_psnr_db']:.1f} dB PSNR against the source")
    say(
        f"Edit: {report['edit_psnr_against_truth_db']:.1f} dB PSNR against the right result "
        f"(the unedited clip has {report['unedited_source_psnr_against_truth_db']:.1f} dB)"
    )
    say(f"Wanted: {report['wanted']}. The judge sees:")
    for first, last, words in spans(report["judge_sees"]):
        where = f"frame {first}" if first == last else f"frames {first} to {last}"
        say(f"  {where}: {words}")
    right = ", ".join(f"{name} {count}" for name, count in report["frames_right_by_attribute"].items())
    say(f"Frames with everything right: {report['frames_with_everything_right']} of {frames} ({right})")
    say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items()))
    say(f"Results, beginning with contact_sheet.png, are in {output}")


def spans(words: list[str]) -> list[tuple[int, int, str]]:
    """Equal neighbours joined: first frame, last frame (from 1), text."""
    joined: list[tuple[int, int, str]] = []
    for number, text in enumerate(words, start=1):
        if joined and joined[-1][2] == text:
            joined[-1] = (joined[-1][0], number, text)
        else:
            joined.append((number, number, text))
    return joined
