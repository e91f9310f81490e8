"""The page of `lookalike serve`, driven in a real browser.

It needs Playwright, which comes with the extra `dev`, and a Chromium of the system; CHROMIUM names
another. Without them it is skipped.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lookalike.pipelines.cli import main
from tests.conftest import picture
from tests.serving import Served, serving
from tests.test_serve import png

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
LABELS = ("cat", "dog")
SIZES = [(360, 740), (1600, 1000)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Labelled pictures in two folders, one with a copy, of a hybrid of two features."""
    root = tmp_path_factory.mktemp("page")
    rows = []
    for number in range(24):
        folder = root / "pictures" / LABELS[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, (320, 240)).save(folder / f"{number}.png")
        rows.append(f"{folder}/{number}.png,{LABELS[number % 2]},{number * 10}")
    copy = root / "pictures" / "copy.png"
    shutil.copy(root / "pictures" / "cat" / "0.png", copy)
    (root / "m.csv").write_text("\n".join(["uri,label,price", *rows, f"{copy},cat,0"]) + "\n")
    (root / "c.yaml").write_text(
        "features:\n- {name: colours, handle: 'builtin:color', weight: 0.5}\n"
        "- {name: textures, handle: 'builtin:texture', weight: 0.5}\nrunner: {workers: 1}\n"
    )
    store = root / "store"
    given = ["--config", str(root / "c.yaml"), "--images", str(root / "m.csv")]
    assert main(["index", *given, "--store", str(store)]) == 0
    with serving(store) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """A window; whatever its console says of errors, or of the policy, fails the test."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    found, said = context.new_page(), []
    found.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    found.on("pageerror", lambda error: said.append(str(error)))
    yield found
    context.close()
    assert [one for one in said if "status of 400" not in one] == []  # what is asked wrongly


def settled(page: Any) -> None:
    api.expect(page.locator("#grid")).not_to_have_attribute("aria-busy", "true", timeout=20_000)
    api.expect(page.locator("#status")).not_to_have_text("Loading …", timeout=20_000)
    api.expect(page.locator("#error")).to_be_hidden()


def names(page: Any) -> list[str]:
    return [re.sub("[^0-9a-z.]", "", one) for one in page.locator(".card .name").all_inner_texts()]


def begin(page: Any, served: Served, search: str = "") -> None:
    page.goto(f"{served.url}/{search}")
    settled(page)


def changed(page: Any, old: list[str]) -> list[str]:
    """The names in the grid once they are others."""
    for _ in range(150):
        settled(page)
        if (now := names(page)) != old:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"the grid stays as it was: {old}")


def click(page: Any, target: Any) -> list[str]:
    """Click on something; the names in the grid once they are others."""
    before = names(page)
    target.click()
    return changed(page, before)


def upload(page: Any, number: int) -> None:
    before = names(page)
    file = {
        "name": f"mine {number}.png",
        "mimeType": "image/png",
        "buffer": png(picture(number, (320, 240))),
    }
    page.locator("#file").set_input_files(file)
    changed(page, before)


def test_upload_click_through_and_back(page: Any, served: Served) -> None:
    begin(page, served)
    assert len(names(page)) == 24
    upload(page, 7)
    api.expect(page.locator("#status")).to_contain_text("exact scores by cosine")
    api.expect(page.locator(".caption")).to_have_text("mine 7.png")
    first, stored = page.url, names(page)
    assert re.search("like=[0-9a-f]{64}", first)
    clicked = click(page, page.locator(".thumb").nth(4))
    answer = served.search(id=int(re.findall(r"like=(\d+)", page.url)[0]), k=48, exclude_self=True)
    assert clicked == [one["uri"].rpartition("/")[2] for one in answer["neighbours"]]
    scores = [float(one) for one in page.locator(".card .score").all_inner_texts()]
    assert scores == pytest.approx([one["score"] for one in answer["neighbours"]], abs=1e-4)
    page.go_back()
    assert changed(page, clicked) == stored
    assert page.url == first
    page.go_forward()
    assert changed(page, stored) == clicked


def test_paste_and_drop(page: Any, served: Served) -> None:
    begin(page, served)
    for event, number in (("paste", 5), ("drop", 6)):
        before = names(page)
        data = base64.b64encode(png(picture(number, (320, 240)))).decode()
        page.evaluate(
            """([event, data]) => {
              const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
              const given = new DataTransfer();
              given.items.add(new File([bytes], `${event}.png`, { type: "image/png" }));
              const init = { bubbles: true, cancelable: true };
              document.body.dispatchEvent(event === "paste"
                ? new ClipboardEvent("paste", { ...init, clipboardData: given })
                : new DragEvent("drop", { ...init, dataTransfer: given }));
            }""",
            [event, data],
        )
        changed(page, before)
        api.expect(page.locator(".caption")).to_have_text(f"{event}.png")


def test_a_part_is_marked(page: Any, served: Served) -> None:
    begin(page, served)
    upload(page, 3)
    whole = names(page)
    page.wait_for_function("document.querySelector('.stage img').naturalWidth > 0")
    box = page.locator(".stage img").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.95 * box["height"], steps=4)
    page.mouse.up()
    changed(page, whole)
    crop = [float(one) for one in re.findall(r"crop=([^&]+)", page.url)[0].split("%2C")]
    assert crop == pytest.approx([0.5, 0.5, 0.4, 0.45], abs=0.01)
    [sent] = re.findall("like=([0-9a-f]{64})", page.url)
    answer = served.search(picture=sent, crop=crop, k=48, exclude_self=True)
    assert names(page) == [one["uri"].rpartition("/")[2] for one in answer["neighbours"]]
    api.expect(page.locator(".mark")).to_be_visible()
    page.get_by_role("button", name="Search by the whole picture").click()
    settled(page)
    api.expect(page.locator(".mark")).to_be_hidden()
    page.get_by_text("Part in numbers").click()  # the same for those who do not drag
    page.get_by_label("left %").fill("50")
    page.get_by_label("width %").fill("50")
    page.get_by_role("button", name="Search by this part").click()
    changed(page, whole)
    assert "crop=0.5%2C0%2C0.5%2C1" in page.url


def test_more_and_less_like(page: Any, served: Served) -> None:
    begin(page, served)
    click(page, page.locator(".thumb").first)
    two = click(page, page.locator(".card").nth(2).get_by_role("button", name="More like"))
    click(page, page.locator(".card").nth(5).get_by_role("button", name="Less like"))
    likes, [less] = (
        re.findall(r"like=(\d+)", page.url.replace("unlike", "x")),
        re.findall(r"unlike=(\d+)", page.url),
    )
    asked = {"id": [*map(int, likes)], "unlike": [int(less)], "k": 48, "exclude_self": True}
    assert len(likes) == 2
    answer = served.search(**asked)
    assert names(page) == [row["uri"].rpartition("/")[2] for row in answer["neighbours"]]
    assert click(page, page.locator(".chips").last.get_by_role("button")) == two


def test_filters_of_every_type(page: Any, served: Served) -> None:
    begin(page, served, "?view=folders")
    page.locator("summary", has_text="Filter").click()
    page.get_by_label("Column").select_option("price")
    page.get_by_label("Operator").select_option(">=")
    page.get_by_label("Value").fill("100")
    assert len(click(page, page.get_by_role("button", name="Add"))) == 14
    page.get_by_label("Column").select_option("label")
    page.get_by_label("Operator").select_option("begins with")
    page.get_by_label("Value").fill("c")
    found = click(page, page.get_by_role("button", name="Add"))
    assert len(found) == 7
    assert page.locator("#where").input_value() == "price >= 100 and label like 'c%'"
    page.locator("#where").fill("price = ")
    page.get_by_role("button", name="Apply").click()
    api.expect(page.locator("#error")).to_contain_text("expected a column or a value")
    page.go_back()
    assert changed(page, []) == found


def test_weights_change_the_answer(page: Any, served: Served) -> None:
    begin(page, served)
    usual = click(page, page.locator(".thumb").first)
    slider = page.get_by_role("slider", name="textures")
    slider.focus()
    slider.press("Home")
    moved = changed(page, usual)
    row = int(re.findall(r"like=(\d+)", page.url)[0])
    asked = {"weights": "colours=0.5,textures=0", "k": 48, "exclude_self": True}
    answer = served.search(id=row, **asked)
    assert moved == [one["uri"].rpartition("/")[2] for one in answer["neighbours"]]
    page.go_back()
    assert changed(page, moved) == usual


def test_a_link_is_all_of_it(page: Any, browser: Any, served: Served) -> None:
    begin(page, served)
    upload(page, 9)
    page.locator("summary", has_text="Options").click()
    page.get_by_label("How many").fill("6")
    page.get_by_label("How many").press("Enter")
    page.locator("summary", has_text="Filter").click()
    page.get_by_label("Best of each").select_option("label")
    api.expect(page.locator(".card")).to_have_count(2, timeout=20_000)
    api.expect(page.locator("#where")).to_be_visible()  # what was opened stays open
    seen, link = names(page), page.url
    other = browser.new_page()
    begin(other, served, link.partition("/?")[2] and "?" + link.partition("/?")[2])
    assert names(other) == seen
    api.expect(other.locator(".stage img")).to_be_visible()
    other.close()


def test_copies_are_folded_and_views_are_there(page: Any, served: Served) -> None:
    begin(page, served)
    page.get_by_role("link", name="Copies", exact=True).click()
    api.expect(page.locator(".card")).to_have_count(1, timeout=20_000)
    folded = page.locator(".copies")
    api.expect(folded.locator("li")).to_be_hidden()
    folded.locator("summary").click()
    api.expect(folded.locator("li")).to_contain_text("png")
    page.get_by_role("link", name="Folders").click()
    page.get_by_role("link", name="dog", exact=True).click()
    api.expect(page.locator("#status")).to_have_text("12 pictures here and below")
    page.get_by_role("link", name="Outliers").click()
    api.expect(page.locator("#status")).to_contain_text("Least like any other")
    page.get_by_role("link", name="Random").click()
    api.expect(page.locator("#status")).to_contain_text("at random")


def test_near_copies_come_in_groups(page: Any, served: Served) -> None:
    begin(page, served, "?view=near&threshold=0.5")
    found = served.get("/api/near-copies", threshold=0.5)
    assert found["total"] >= 1
    told = "linked by a score from 0.5, of all 24 pictures, each beside its 16 nearest"
    api.expect(page.locator("#status")).to_contain_text(told)
    heads = [f"{one['count']} pictures" for one in found["groups"]]
    assert page.locator(".group h2").all_inner_texts() == heads
    rows = [row for one in found["groups"] for row in one["images"]]
    assert names(page) == [row["uri"].rpartition("/")[2] for row in rows]
    page.locator(".thumb").first.focus()
    page.keyboard.press("ArrowRight")  # over the headings
    second = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert second == f"Search by {names(page)[1]}"
    page.get_by_label("Score from").fill("0.999999")
    page.get_by_role("button", name="Look", exact=True).click()
    api.expect(page.locator("#status")).to_contain_text("a score from 0.999999")
    assert "threshold=0.999999" in page.url


def test_a_filter_holds_for_near_copies(page: Any, served: Served) -> None:
    begin(page, served, "?view=near&threshold=0.5")
    api.expect(page.locator("#status")).to_contain_text("of all 24 pictures, each")
    page.keyboard.press("/")
    page.locator("#where").fill("label = 'dog'")
    page.get_by_role("button", name="Apply", exact=True).click()
    told = "of all 12 pictures that pass the filter, each beside"
    api.expect(page.locator("#status")).to_contain_text(told)
    found = served.get("/api/near-copies", threshold=0.5, where="label = 'dog'")
    rows = [row for one in found["groups"] for row in one["images"]]
    assert {row["label"] for row in rows} == {"dog"}
    assert names(page) == [row["uri"].rpartition("/")[2] for row in rows]


def test_the_answer_is_kept_as_a_file(page: Any, served: Served, tmp_path: Path) -> None:
    begin(page, served)
    shown = click(page, page.locator(".thumb").first)
    with page.expect_download() as found:
        page.get_by_role("button", name="jsonl").click()
    found.value.save_as(tmp_path / found.value.suggested_filename)
    lines = (tmp_path / "lookalike.jsonl").read_text().splitlines()
    assert [json.loads(line)["uri"].rpartition("/")[2] for line in lines] == shown


def test_keys(page: Any, served: Served) -> None:
    begin(page, served)
    page.locator(".thumb").first.focus()
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != label
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label
    page.keyboard.press("i")
    api.expect(page.get_by_role("dialog")).to_contain_text("320 × 240")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "where"
    page.locator("#help").click()
    api.expect(page.get_by_role("dialog")).to_contain_text("Keys")
    page.keyboard.press("Escape")
    page.locator("#about").click()
    api.expect(page.get_by_role("dialog")).to_contain_text("recall@10")
    page.keyboard.press("Escape")
    page.locator(".thumb").first.focus()
    before = names(page)
    page.keyboard.press("Enter")
    changed(page, before)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_follows_the_scheme(
    browser: Any, served: Served, size: tuple[int, int], scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    page = context.new_page()
    begin(page, served)
    click(page, page.locator(".thumb").first)
    for one in page.locator("summary").all():
        one.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) > 380
    assert light == (scheme == "light")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, a, input:not([type=hidden]), select")].filter(
          (one) => !one.textContent.trim() && !one.getAttribute("aria-label")
            && !(one.labels && one.labels.length)).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    context.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    browser: Any, served: Served, size: tuple[int, int], scheme: str
) -> None:
    """axe-core's rules of accessibility, on every view with all that can be opened."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        reduced_motion="reduce",  # or what is half faded in is hard to read
    )
    page = context.new_page()

    def check(what: str) -> None:
        found = axe.run(page).response
        assert len(found["passes"]) > 10
        serious = {
            (what, one["id"], one["help"], node["html"])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        }
        assert serious == set()

    for view in ("folders", "copies", "near&threshold=0.5", "outliers", "random"):
        begin(page, served, f"?view={view}")
        check(view)
    click(page, page.locator(".thumb").first)
    click(page, page.locator(".card").nth(5).get_by_role("button", name="Less like"))
    for one in page.locator("summary").all():
        one.click()
    check("an answer")
    for dialog in ("#help", "#about"):
        page.locator(dialog).click()
        check(dialog)
        page.keyboard.press("Escape")
    context.close()
