"""The page in a real browser: what a person sees, by mouse, by keyboard, on a phone, in both themes."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image, PngImagePlugin
from running_service import Running, browser_path, picture, serving

from mai.report import schema
from mai.serve import keys
from mai.weights import load

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
if browser_path() is None:
    pytest.skip("no Chromium on this system (Debian: apt install chromium)", allow_module_level=True)

expect = sync_api.expect
FLAGS = ("--headless", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip
PATIENCE_MS = 120_000
"""A busy machine is slow, and not wrong."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(
            executable_path=browser_path(), chromium_sandbox=False, args=list(FLAGS), timeout=PATIENCE_MS
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, service: Running) -> Iterator[Any]:
    yield from opened(browser, service.url)


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The page, watched: it must ask nobody else, and say nothing in the console but what the network says."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "locale": "en-GB"} | options)
    context.set_default_timeout(PATIENCE_MS)
    found = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "status of" not in message.text
            else None
        ),
    )
    found.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    found.goto(url)
    found.locator("html[data-ready]").wait_for()
    yield found
    assert not complaints
    assert all(address.startswith((url, "blob:", "data:")) for address in asked), asked
    context.close()


def put(page: Any, *files: tuple[str, bytes]) -> None:
    page.set_input_files("#files", [{"name": n, "mimeType": "", "buffer": data} for n, data in files])


def settled(page: Any, n: int) -> Any:
    expect(page.locator(".card")).to_have_count(n, timeout=PATIENCE_MS)
    expect(page.locator(".card.waiting")).to_have_count(0, timeout=PATIENCE_MS)
    return page.locator(".card")


def red(value: int) -> bytes:
    """A picture that the small network of the tests calls what its red says."""
    stream = __import__("io").BytesIO()
    Image.new("RGB", (160, 120), (value, 90, 90)).save(stream, "PNG")
    return stream.getvalue()


def test_a_dropped_picture_is_shown_with_its_verdict(page: Any, service: Running) -> None:
    data = red(255)
    page.evaluate(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: "image/png"}));
            const target = document.getElementById("drop");
            for (const kind of ["dragenter", "dragover", "drop"]) {
                target.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
            }
        }""",
        ["harbour.png", base64.b64encode(data).decode()],
    )
    card = settled(page, 1)
    expect(card.locator(".verdict")).to_have_text("Likely AI-generated")
    expect(card.locator(".name")).to_have_text("harbour.png")
    own = service.client.post("/v1/scan", content=data).json()
    shown = f"{own['score']:.2f}" if own["score"] <= 0.99 else ">0.99"
    expect(card.locator(".score")).to_have_text(f"Score {shown}")
    expect(card.locator(".gauge")).to_contain_text("1 in 100 authentic pictures")
    expect(card.locator(".gauge")).to_contain_text("things were not checked")
    expect(card.locator(".thumb img")).to_have_count(1)
    # The first picture is open: the heat map, each layer, what the file says, what was not checked.
    for words in (
        "Heat map",
        "What each layer found",
        "Content Credentials",
        "What was not checked",
        "SynthID",
    ):
        expect(card.locator(".panel")).to_contain_text(words)
    canvas = card.locator(".stack canvas")
    before = canvas.evaluate("node => node.style.opacity")
    card.locator("input[type=range]").focus()
    page.keyboard.press("End")
    assert canvas.evaluate("node => node.style.opacity") != before
    # The map is drawn: the red network is sure everywhere, so its squares are orange.
    pixel = canvas.evaluate("node => [...node.getContext('2d').getImageData(20, 20, 1, 1).data]")
    assert pixel[0] > 200
    assert pixel[2] < 40
    assert pixel[3] > 100
    assert re.search(r"likely AI-generated", page.locator("#say").text_content() or "", re.IGNORECASE)


def test_the_three_answers_and_never_fake_or_real(page: Any) -> None:
    put(page, ("a.png", red(255)), ("b.png", red(0)), ("c.png", red(127)))
    cards = settled(page, 3)
    found = cards.locator(".verdict").all_inner_texts()
    assert found == ["Likely AI-generated", "No sign of AI", "Cannot tell"]
    for why in page.locator(".why").all():
        why.click()
    text = page.locator("body").inner_text()
    assert not re.search(r"\b(fake|real|genuine)\b", text, re.IGNORECASE)
    assert "not proof" in text


def test_broken_files_say_what_is_wrong(page: Any) -> None:
    put(
        page,
        ("cut.jpg", picture()[:700]),
        ("notes.txt", b"hello"),
        ("empty.png", b""),
        ("good.jpg", picture()),
    )
    cards = settled(page, 4)
    expect(cards.nth(0).locator(".verdict")).to_have_text("Cut off")
    expect(cards.nth(1).locator(".verdict")).to_have_text("Not an image")
    expect(cards.nth(2).locator(".verdict")).to_have_text("Empty file")
    for number in range(3):
        assert len(cards.nth(number).locator(".why-words").inner_text()) > 15
    expect(page.locator("#chips")).to_contain_text("not judged 3")


def test_twenty_files(page: Any) -> None:
    put(page, *((f"{n:02}.png", red(n * 13)) for n in range(20)))
    cards = settled(page, 20)
    assert cards.locator(".name").all_inner_texts() == [f"{n:02}.png" for n in range(20)]
    expect(page.locator(".thumb img")).to_have_count(20)
    chip = page.locator(".chip.synthetic")
    n = int(chip.locator("strong").inner_text())
    chip.click()
    expect(page.locator(".card:visible")).to_have_count(n)
    with page.expect_download() as download:
        page.locator("#save-json").click()
    rows = [json.loads(line) for line in Path(download.value.path()).read_text("utf-8").splitlines()]
    assert len(rows) == 20
    for row in rows:
        jsonschema.validate(row, schema.schema())
    page.locator("#clear").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#choose")).to_be_focused()


def test_a_file_that_is_too_large_is_told_without_sending_it(page: Any) -> None:
    put(page, ("large.jpg", bytes(2_500_000)))
    card = settled(page, 1)
    expect(card.locator(".verdict")).to_have_text("Too large")
    expect(card).to_contain_text("up to 1.9 MiB")


def test_a_413_of_the_service_is_a_sentence(browser: Any, service: Running) -> None:
    """The page is told of a wider limit than there is, so that the service itself refuses."""
    run = opened(browser, service.url)
    page = next(run)
    told = service.client.get("/v1/limits").json() | {"max_bytes": 10**8}
    page.route("**/v1/limits", lambda route: route.fulfill(json=told))
    page.reload()
    page.locator("html[data-ready]").wait_for()
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    put(page, ("large.jpg", b"\xff\xd8\xff" + bytes(2_500_000)))
    card = settled(page, 1)
    assert 413 in statuses
    expect(card.locator(".verdict")).to_have_text("Not looked at")
    expect(card).to_contain_text("larger than the 1.907 MiB")
    next(run, None)


def test_keyboard_alone_is_enough(page: Any) -> None:
    def tab_to(selector: str, most: int = 40) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.locator(f"{selector}:focus").count():
                return
        pytest.fail(f"Tab does not reach {selector}")

    tab_to(".skip", 1)
    tab_to("#choose")
    # The driver asks the browser to hand file choosers over and does not wait for the answer: a key at once gets the
    # browser's own dialog, which headless shows nobody (the page's click on its input was counted: one each time).
    with page.expect_file_chooser() as chooser:
        page.wait_for_timeout(2_000)
        page.keyboard.press("Enter")
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": red(n)} for n in (255, 0)]
    chooser.value.set_files(files)
    settled(page, 2)
    tab_to(".why")
    page.keyboard.press("Enter")
    expect(page.locator(".panel")).to_have_count(1)
    expect(page.locator(".why").first).to_be_focused()
    expect(page.locator(".why").first).to_have_attribute("aria-expanded", "true")
    tab_to("input[type=range]")
    page.keyboard.press("ArrowLeft")
    tab_to("summary")
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.locator(".why").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".panel")).to_have_count(0)
    tab_to(".quiet")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    browser: Any, service: Running, theme: str, width: int
) -> None:
    run = opened(browser, service.url, color_scheme=theme, viewport={"width": width, "height": 800})
    page = next(run)
    serious = problems(page)
    long = "a_very_long_name_of_a_picture_without_any_place_to_break_it_" * 3
    put(page, (f"{long}.png", red(255)), ("b.png", red(127)), ("c.txt", b"no"))
    settled(page, 3)
    page.locator(".why").first.click()
    page.locator("summary").first.click()
    serious += problems(page)
    page.goto(f"{service.url}/docs")
    serious += problems(page)
    assert not serious
    next(run, None)


def problems(page: Any) -> list[str]:
    """Findings of axe that are serious or critical, and a page that is wider than its window."""
    found = axe_module.Axe().run(page, options={"resultTypes": ["violations"]})
    wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    serious = [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    return serious + (["the page is wider than its window"] if wide else [])


def test_text_of_strangers_is_text(page: Any) -> None:
    evil = "<img src=x onerror=alert(1)>"
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"{evil}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Model: {evil}")
    stream = __import__("io").BytesIO()
    Image.new("RGB", (160, 120), (10, 90, 90)).save(stream, "PNG", pnginfo=info)
    put(page, (f"{evil}\u202egnp.png", stream.getvalue()))
    card = settled(page, 1)
    expect(card.locator(".name")).to_have_text(f"{evil}\\u202egnp.png")
    expect(card.locator(".panel")).to_contain_text(f'Prompt: "{evil}"')
    assert page.locator("img[src=x]").count() == 0


def test_all_measured_errors_are_told(page: Any, weights: Path) -> None:
    """Also of synthetic pictures that get another answer than 'likely AI-generated', which the report has too."""
    table = load(weights).table
    (point,) = [p for p in table.synthetic if p.rate == load(weights).fpr]
    assert point.n_caught is not None
    n_missed = f"{table.n_synthetic - point.n_caught:,}", f"{table.n_synthetic:,}"
    put(page, ("a.png", red(255)))
    card = settled(page, 1)
    errors = card.locator(".part", has_text="How often it errs")
    expect(errors.locator("dt")).to_have_text(
        [
            "Authentic pictures flagged",
            "AI-generated pictures called 'no sign of AI'",
            "AI-generated pictures not flagged",
        ]
    )
    expect(errors.locator("dd").last).to_contain_text("{} of {} measured (".format(*n_missed))


def test_paste_reload_and_language(page: Any) -> None:
    page.evaluate(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
            window.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
        }""",
        base64.b64encode(red(0)).decode(),
    )
    settled(page, 1)
    page.locator("#language").select_option("de")
    expect(page.locator("h1")).to_have_text("Ist dieses Bild von einer KI?")
    expect(page.locator(".verdict")).to_have_text("Kein Anzeichen von KI")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    assert not re.search(
        r"\b(echt\w*|gefälscht\w*|fälschung\w*)\b", page.locator("body").inner_text(), re.IGNORECASE
    )
    page.reload()
    page.locator("html[data-ready]").wait_for()
    expect(page.locator(".verdict")).to_have_text("Kein Anzeichen von KI")
    page.locator(".why").click()
    expect(page.locator(".panel")).to_contain_text("wird nicht aufbewahrt")


def test_report_and_case_file_are_handed_over(page: Any) -> None:
    put(page, ("desk.png", red(255)))
    card = settled(page, 1)
    with page.expect_download() as download:
        card.get_by_role("button", name="Report").click()
    assert download.value.suggested_filename == "desk.png.mai.html"
    text = Path(download.value.path()).read_text("utf-8")
    assert "Likely AI-generated" in text
    assert "desk.png" in text
    with page.expect_download() as download:
        card.get_by_role("button", name="Case file").click()
    found = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert found["schema"] == "mai.case/1"
    jsonschema.validate(found["record"], schema.schema())


def test_a_key_is_asked_for_once(browser: Any, tmp_path: Path, weights: Path) -> None:
    file = tmp_path / "keys"
    key = keys.make(file, "desk")
    with serving(
        "--workers", "1", "--weights", str(weights), "--keys", str(file), log=tmp_path / "log"
    ) as service:
        run = opened(browser, service.url)
        page = next(run)
        put(page, ("a.png", red(255)), ("b.png", red(0)))
        dialog = page.locator("dialog#key")
        expect(dialog).to_be_visible()
        assert not [p for p in problems(page) if "wider" not in p]
        page.locator("#key-field").fill("mai_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_have_text("This key is not known.")
        page.locator("#key-field").fill(key)
        page.keyboard.press("Enter")
        settled(page, 2)
        expect(page.locator(".card").first.locator(".verdict")).to_have_text("Likely AI-generated")
        next(run, None)


def test_a_service_that_is_gone_is_said(browser: Any, tmp_path: Path, weights: Path) -> None:
    with serving("--workers", "1", "--weights", str(weights), log=tmp_path / "log") as service:
        run = opened(browser, service.url)
        page = next(run)
        service.stop()
        put(page, ("a.png", red(255)))
        card = settled(page, 1)
        expect(card.locator(".verdict")).to_have_text("Not reached")
        expect(card).to_contain_text("cannot be reached")
        expect(card.get_by_role("button", name="Try again")).to_be_visible()
        page.context.close()
