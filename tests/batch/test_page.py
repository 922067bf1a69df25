"""The page of the results in a real browser, opened as a file: videos in sight play, failures say why, and it sorts."""

from __future__ import annotations

import csv

import pytest

from batch.page import write_page
from batch.results import Results
from batch.store import LocalStore
from batch.table import read_table
from devtools.browser_setup import missing, program
from devtools.environment import ROOT
from miniature.clips import changed, write_clip
from miniature.jobs import EDITS, FPS, clip_of, write_jobs

from ..browser.editor import OPTIONS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]
PICTURE = ROOT / "test-output" / "screenshots" / "batch.png"
WHY = 'EI2_LoadVideo: "<b>start_frame</b>" lies behind the end </script> <!--<script>'


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of six clips with two edits each: rendered, as they should be; one has failed, one is waiting."""
    folder = tmp_path_factory.mktemp("page")
    table = write_jobs(folder, edits=2)
    with open(table, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    workflow = ROOT / "workflows" / "api" / "quickstart_full.json"
    from batch.graph import read_graph

    rows = read_table(str(table), read_graph(workflow.read_text(encoding="utf-8"), "quickstart")).rows
    assert len(rows) == len(lines) == 12
    results = Results(LocalStore(str(folder / "out")), rows, {})
    for number, row in enumerate(rows[:-1]):
        name = row.clip.stem
        if number == 3:
            results.fail(row, "input", WHY, {})
            continue
        right = folder / "right.mp4"
        write_clip(changed(clip_of(name), **EDITS[name][number % 2]), right, FPS)
        results.write_source(row, ".mp4", row.clip.read())
        scores = {"flicker: change per frame": 2.0 + (number * 7) % 11}
        worker = {"host": "here", "worker": 1}
        results.write(
            row,
            [("edit", ".mp4", right.read_bytes())],
            {"seconds": 10.0 + number, "scores": scores, "reconstruction_db": 25.0 + number, "worker": worker},
        )
    write_page(results)
    return folder / "out"


@pytest.fixture(scope="module")
def page(out):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(OPTIONS))
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
        page.goto((out / "index.html").as_uri())
        yield page
        browser.close()


def order(page) -> list[str]:
    return page.locator(".clip h2").all_inner_texts()


def test_what_is_in_sight_plays(page):
    assert "10 of 12 edits finished, 1 failed, 1 waiting" in page.inner_text("#summary")
    assert page.locator(".clip").count() == 6 and page.locator("figure").count() == 12
    page.wait_for_function("() => [...document.querySelectorAll('video')].slice(0, 3).every(v => v.currentTime > 0)")
    seen = page.evaluate("() => [...document.querySelectorAll('video')].map(v => [!!v.src, !v.paused])")
    assert len(seen) == 16 and seen[0] == [True, True] and seen[-1] == [False, False]  # the last one is out of sight
    page.wait_for_function(
        "() => { const [a, ...others] = [...document.querySelectorAll('video')].slice(0, 3).map(v => v.currentTime);"
        "return others.every(b => Math.abs(a - b) < 0.3); }"
    )
    widths = page.evaluate("() => [...document.querySelectorAll('video')].slice(0, 3).map(v => v.videoWidth)")
    assert widths == [128, 128, 128]
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURE)
    assert not page.errors


def test_failures_say_why(page):
    (failed,) = page.locator("figure.failed").all()
    assert WHY in failed.inner_text() and not failed.locator("b").count()
    page.select_option("#show", "failed")
    assert page.locator("figure").count() == 1
    page.select_option("#show", "")


def test_it_sorts_and_searches(page):
    first = order(page)
    page.select_option("#sort", "reconstruction, dB")
    page.check("#down")
    assert order(page) != first and order(page)[0] == "clips/orange_circle.mp4"
    page.select_option("#sort", "clip")
    page.uncheck("#down")
    assert order(page) == sorted(first)
    page.fill("#search", "star on a black")
    assert set(order(page)) == {"clips/yellow_star.mp4"}
    page.fill("#search", "")
    assert len(order(page)) == 6 and not page.errors
