"""The Space in a real browser, with a tiny model: Debian's chromium through Playwright."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic",
    "--no-first-run",
]  # fmt: skip
WAIT = 30_000  # milliseconds; shared cores stall
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> ${1+1} {{value}}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a running Space puts its files."""
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def url(tiny_model_dir, folder, root, serving):
    """Address of a running Space."""
    model = tiny_model_dir("llama", chat=True, max_position_embeddings=4096)
    env = os.environ | {"UNSWAYED_SPACE_MODELS": str(model)}
    with serving([sys.executable, root / "spaces" / "memory_flips" / "app.py"], folder, env) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, url):
    """Factory: a page of a visitor of their own, with the first answer on it."""
    contexts = []

    def visit(query: str = "", **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.dialogs = []
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(url + query)
        page.wait_for_selector("#page .us-verdict, #page .us-alert")
        return page

    yield visit
    for context in contexts:
        context.close()


def choose(page, label: str, option: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.click()
    box.fill(option)
    page.get_by_role("option", name=option).first.click()


def write_own(page, scenario: str, options: str) -> None:
    choose(page, "Question", "Write your own")
    page.get_by_label("Your question").fill(scenario)
    page.get_by_label("Your options").fill(options)


def ask(page, expected: str) -> str:
    page.click("#ask")
    page.wait_for_function("text => document.querySelector('#page').innerText.includes(text)",
                           arg=expected)  # fmt: skip
    return page.inner_text("#page")


def test_a_visitor_sees_three_panels_and_is_surprised(visit):
    page = visit()
    assert page.locator("#page .us-panel").count() == 3
    assert page.locator("#page .us-picked").count() == 3
    page.click("#surprise")
    page.wait_for_selector("#stored .us-note")
    assert page.inner_text("#stored").startswith("Stored: smollm2-135m answered")


def test_markup_and_templates_of_a_visitor_are_text(visit):
    page = visit()
    write_own(page, f"{EVIL} How do they feel?", "<b>joy</b>\nsadness ${2+2}")
    page_text = ask(page, "How do they feel?")
    assert EVIL in page_text and "<b>joy</b>" in page_text and "${2+2}" in page_text
    assert page.locator("#page script, #page img").count() == 0
    assert page.dialogs == []


def test_an_over_long_text_is_refused_in_words(visit):
    page = visit()
    write_own(page, "A short one?", "\n".join(f"option {i}" for i in range(9)))
    assert "9 options are given, at most 8" in ask(page, "Not possible")
    box = page.get_by_label("Your question")
    assert box.get_attribute("maxlength") == "1500"


def test_a_link_brings_the_state_back(visit, url):
    page = visit()
    write_own(page, "Who feels what?", "joy\nfear")
    page.get_by_text("Model, link, and all pairs").click()
    page.click("#make-link")
    page.wait_for_function(
        "() => document.querySelector('#link textarea').value.startsWith('http')"
    )
    link = page.locator("#link textarea").input_value()
    assert link.startswith(url)
    again = visit(link.removeprefix(url))
    assert "Who feels what?" in again.inner_text("#page")
    assert again.get_by_label("Your options").input_value() == "joy\nfear"


def test_a_sweep_is_cancelled(visit):
    page = visit()
    page.get_by_text("Model, link, and all pairs").click()
    page.click("#sweep")
    page.wait_for_function(
        "() => /[1-9]\\d* of 60/.test(document.querySelector('#sweep-note').innerText)"
    )
    page.click("#halt")
    page.get_by_text("Cancelled").wait_for()
    page.click("#sweep")  # the turn is free again
    page.wait_for_function(
        "() => /[1-9]\\d* of 60/.test(document.querySelector('#sweep-note').innerText)"
    )
    page.click("#halt")
    page.get_by_text("Cancelled").wait_for()


def write_items(path: Path) -> Path:
    row = {"scenario": "What do they feel?", "options": ["joy", "fear"], "key": "joy"}
    path.write_text("".join(json.dumps(row | {"id": f"w{i}"}) + "\n" for i in range(20)))
    return path


def upload_items(page, tmp_path) -> None:
    page.get_by_role("tab", name="Audit your own").click()
    page.locator("#items input[type=file]").set_input_files(write_items(tmp_path / "mine.jsonl"))
    page.wait_for_selector(".file-preview")
    page.click("#audit-run")


def wait_until(true) -> None:
    for _ in range(60):
        if true():
            return
        time.sleep(0.5)
    raise AssertionError("waited in vain")


def test_a_waiting_audit_is_cancelled_and_who_leaves_leaves_nothing(visit, folder, tmp_path):
    first, second = visit(), visit()

    def folders() -> list[Path]:
        return list(folder.glob("unswayed-space-*"))

    upload_items(first, tmp_path)
    wait_until(lambda: len(folders()) == 1)
    upload_items(second, tmp_path)
    second.wait_for_function("() => /queue/.test(document.body.innerText)")
    second.click("#audit-stop")
    second.wait_for_selector("#audit-note >> text=Cancelled.")
    assert len(folders()) == 1
    first.context.close()
    wait_until(lambda: not folders())
    time.sleep(3)  # long enough for the second to begin, were it still waiting
    assert not folders() and "Cancelled." in second.inner_text("#audit-note")
    second.click("#audit-run")
    wait_until(folders)
    second.click("#audit-stop")
    wait_until(lambda: not folders())


def test_results_audit_and_about(visit, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Results").click()
    page.get_by_text("Accuracy on understanding (%)").wait_for()
    assert page.locator("#result-plots .us-dot").count() > 5
    page.get_by_role("tab", name="Audit your own").click()
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "w1", "scenario"')
    page.locator("#items input[type=file]").set_input_files(bad)
    page.wait_for_selector(".file-preview")
    page.click("#audit-run")
    page.wait_for_selector("#audit-note .us-alert")
    note = page.inner_text("#audit-note")
    assert "bad.jsonl:1: not JSON" in note and "/tmp" not in note
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="On showing stereotypes").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phones_width_holds_everything(visit, scheme):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tone = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", tone)[:3])) < 200) == (scheme == "dark")


def test_the_keyboard_alone_asks(visit):
    page = visit()
    page.get_by_label("Second memory", exact=True).focus()
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "ask":
            break
    assert page.evaluate("document.activeElement.id") == "ask"
    page.keyboard.press("Enter")
    page.wait_for_selector("#page .us-verdict")


def test_two_visitors_do_not_see_each_other(visit):
    one, two = visit(), visit()
    write_own(one, "First visitor here?", "joy\nfear")
    write_own(two, "Second visitor here?", "anger\npride")
    one.click("#ask")
    two.click("#ask")
    for page, own, other in ((one, "First", "Second"), (two, "Second", "First")):
        page.wait_for_function("t => document.querySelector('#page').innerText.includes(t)",
                               arg=f"{own} visitor")  # fmt: skip
        assert f"{other} visitor" not in page.inner_text("body")


def test_the_endpoints_are_named_and_answer_many_at_once(url):
    from gradio_client import Client

    client = Client(url, verbose=False)
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/flip", "/choices", "/results", "/sweep", "/audit"}

    def flip(pair: str) -> dict:
        return client.predict(
            item="understanding/eu_01", a=f"{pair}-advantaged", b=f"{pair}-disadvantaged",
            api_name="/flip",
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(flip, ["p01", "p02", "p03", "p01"] * 2))
    for reply, pair in zip(replies, ["p01", "p02", "p03", "p01"] * 2, strict=True):
        assert [answer["user"] for answer in reply["answers"]] == [
            None, f"{pair}-advantaged", f"{pair}-disadvantaged"
        ]  # fmt: skip
        assert sum(reply["answers"][0]["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert replies[0] == replies[3] == replies[4]
    assert json.dumps(client.predict(api_name="/choices"))
    with pytest.raises(Exception, match="no item 'x'"):
        client.predict(item="x", a="p01-advantaged", b="p01-neutral", api_name="/flip")


def test_an_audit_by_program_gives_its_files(url, folder, tmp_path):
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False, download_files=str(tmp_path))
    note, files = client.predict(
        model=next(iter(client.predict(api_name="/choices")["models"])),
        items=handle_file(write_items(tmp_path / "mine.jsonl")), personas=None, pairs=2,
        api_name="/audit",
    )  # fmt: skip
    assert "Done." in note
    assert [Path(file).name for file in files] == ["report.html", "answers.parquet"]
    assert all(Path(file).stat().st_size > 1000 for file in files)
    wait_until(lambda: not list(folder.glob("unswayed-space-*")))
