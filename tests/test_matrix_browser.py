"""The matrix in a real browser: filters, details, links, keyboard, themes, accessibility."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from matrix_support import EVERY, SCRIPT, document

from embconform.conformance.render.matrix.model import Matrix
from embconform.conformance.render.matrix.page import render
from embconform.conformance.render.matrix.reading import column
from embconform.reference.clause import Profile, registry

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip(f"no {CHROMIUM}: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install 'embconform[test]'")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATH = "my dir/port.py:Embedding"
BACKENDS = ("good", PATH, "book")
Open = Callable[..., Any]
LINKED = "padding.row-returned"
LINKS = (
    "https://github.com/pytorch/pytorch/issues/1",
    "http://example.org:8080/a?b=c&d=%20#e",
    "docs/how-to/add-a-backend.md",
    "docs/reports/page.html#a.b",
    "https://github.com",
)
REASON = f"""see {LINKS[0]}, ({LINKS[1]}) or {LINKS[2]}; and {LINKS[3]}.
javascript:alert(1) data:text/html,x //evil.example ../docs/x.md /docs/x.md docs/../x.md
file:///docs/x.md docs/x.md/y docs/x.js mydocs/x.md {LINKS[4]}@evil.example
<a href=https:evil>x</a> https:evil"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = [
        document("good"),
        document(PATH, statuses=EVERY),
        document("book", Profile.TEXTBOOK),
    ]
    (linked,) = (each for each in documents[1]["clauses"] if each["id"] == LINKED)
    linked["deviation"] |= {"reason": REASON, "link": "docs/findings.md#half-precision_2"}
    path = tmp_path_factory.mktemp("matrix") / "matrix.html"
    path.write_text(render(Matrix(tuple(column(each) for each in documents))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, file: Path) -> Iterator[Open]:
    """Open the page; a message on the console or a request to anywhere else fails the test."""
    said: list[str] = []
    contexts = []

    def visit(link: str = "", **options: Any) -> Any:
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: r.url.startswith(file.as_uri()) or said.append(r.url))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(file.as_uri() + link)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []


def link_of(backend: str, clause: str) -> str:
    return f"#{quote(backend, safe='')}/{clause}"


def cell(page: Any, backend: str, clause: str) -> Any:
    number = BACKENDS.index(backend) + 1
    return page.locator(f'tr[data-clause="{clause}"] > :nth-child({number + 1}) > a')


def rows(page: Any) -> set[str]:
    """Clauses that can be seen."""
    found: list[str] = page.locator("tr[data-clause]:visible").evaluate_all(
        "rows => rows.map((row) => row.dataset.clause)"
    )
    return set(found)


def violations(page: Any) -> list[str]:
    found = axe_api.Axe().run(page).response["violations"]
    return [f"{each['id']}: {json.dumps(each['nodes'])[:400]}" for each in found]


def titled(page: Any, text: str) -> None:
    """Wait until the details are those of a cell."""
    sync_api.expect(page.locator("#details-title")).to_have_text(text)


def focused(page: Any, link: str) -> None:
    """Wait until a cell has the focus."""
    sync_api.expect(page.locator(":focus")).to_have_attribute("href", link)


# groups and filters


def test_groups_open_and_close(visit: Open) -> None:
    page = visit()
    assert rows(page) == set()
    toggle = page.get_by_role("button", name=re.compile("^lookup"))
    assert toggle.get_attribute("aria-expanded") == "false"
    toggle.click()
    assert toggle.get_attribute("aria-expanded") == "true"
    assert rows(page) == {name for name in _known() if name.startswith("lookup.")}
    page.click("#expand")
    assert rows(page) == _known()
    page.click("#expand")
    assert rows(page) == set()


def _known() -> set[str]:
    return {name for name, clause in registry().items() if "cpu" in clause.devices}


def test_a_group_shows_the_gravest_status(visit: Open) -> None:
    page = visit()
    group = page.locator('tbody[data-group="lookup"] tr.summary td')
    assert group.nth(0).get_attribute("class") == "pass"
    assert group.nth(1).get_attribute("class") == "crash"
    assert group.nth(1).inner_text().strip() == "! 1"
    assert "1 fail" in group.nth(1).locator("a").get_attribute("aria-label")


def test_status_filter(visit: Open) -> None:
    page = visit()
    for status in ("pass", "unsupported", "untested", "deviation", "unexpected-pass", "timeout"):
        page.uncheck(f'input[value="{status}"]')
    assert rows(page) == {"lookup.rows", "lookup.dtype"}
    assert "2 of " in page.inner_text("#shown")
    page.get_by_role("button", name="Clear filters").click()
    assert page.is_checked("input[value=pass]")
    assert rows(page) == set()
    page.click("#expand")
    assert rows(page) == _known()


@pytest.mark.parametrize("level", ["MUST", "SHOULD", "MAY"])
def test_level_filter(visit: Open, level: str) -> None:
    page = visit()
    for other in {"MUST", "SHOULD", "MAY"} - {level}:
        page.uncheck(f'input[value="{other}"]')
    page.click("#expand")
    assert rows(page) == {name for name in _known() if registry()[name].level == level}


def test_profile_filter(visit: Open) -> None:
    page = visit()
    page.select_option("select", "textbook")
    page.click("#expand")
    assert rows(page) == {n for n in _known() if Profile.TEXTBOOK in registry()[n].profiles}
    heads = page.locator("#matrix thead th.backend:visible .name").all_inner_texts()
    assert heads == ["book"]


def test_text_filter(visit: Open) -> None:
    page = visit()
    page.fill("input[type=search]", f"of {PATH} is wrong".upper())
    assert rows(page) == {n for n, status in EVERY.items() if status in _BROKEN}
    page.fill("input[type=search]", "  negative ZERO, subnormal ")
    assert rows(page) == {"lookup.special-values"}
    page.fill("input[type=search]", "float64")
    assert "lookup.float64" in rows(page)
    page.fill("input[type=search]", "no such thing")
    assert rows(page) == set()
    assert page.inner_text("#shown").startswith("0 of ")


_BROKEN = {"fail", "crash", "timeout", "deviation"}


# details


def test_a_cell_opens_its_details(visit: Open) -> None:
    page = visit()
    page.click("#expand")
    cell(page, PATH, "lookup.rows").click()
    dialog = page.get_by_role("dialog")
    titled(page, f"{PATH}: lookup.rows")
    text = dialog.inner_text()
    for said in (
        registry()["lookup.rows"].sentence, "MUST", "2.0", "0.0", "1e-07", "8389000 ulp",
        "7, 2 of them broke it", "against the verdict", "3 indices, 1 row", "</script>",
        f"embconform validate {PATH} --seed 0 --select lookup.rows",
    ):  # fmt: skip
        assert said in text
    page.wait_for_selector("dialog pre[aria-label=script]")
    assert dialog.locator("pre[aria-label=script]").text_content() == SCRIPT
    assert page.title().startswith("embconform matrix")
    page.keyboard.press("Escape")
    sync_api.expect(dialog).to_be_hidden()
    page.wait_for_function("!location.hash")


def test_links_of_a_deviation_lead_to_the_web_or_to_docs(visit: Open) -> None:
    page = visit(link_of(PATH, LINKED))
    titled(page, f"{PATH}: {LINKED}")
    told = page.locator("#details-body p a")
    assert told.evaluate_all("all => all.map((a) => a.getAttribute('href'))") == [
        *LINKS, "docs/findings.md#half-precision_2",
    ]  # fmt: skip
    assert told.evaluate_all("all => all.map((a) => a.textContent)")[:5] == list(LINKS)
    assert set(told.evaluate_all("all => all.map((a) => a.rel)")) == {"noreferrer"}
    shown = page.locator("#details-body p").all_inner_texts()
    assert " ".join(REASON.split()) in shown  # nothing is lost of what is no link


def test_every_cell_can_be_opened(visit: Open) -> None:
    page = visit()
    page.click("#expand")
    links = page.locator("#matrix tbody a").evaluate_all("all => all.map((a) => a.hash)")
    assert len(links) == len(set(links))
    assert len(links) > 2 * len(_known())
    opened = page.evaluate(
        """async (links) => {
          const titles = [];
          for (const link of links) {
            location.hash = link;
            await new Promise((done) => addEventListener("hashchange", done, { once: true }));
            titles.push(document.getElementById("details-title").textContent);
          }
          return titles;
        }""",
        links,
    )
    assert len(set(opened)) == len(links)


def test_permalinks(visit: Open) -> None:
    page = visit(link_of(PATH, "padding.gradient-is-zero"))
    dialog = page.get_by_role("dialog")
    sync_api.expect(dialog).to_be_visible()
    assert "known since long" in dialog.inner_text()
    assert dialog.get_by_role("link", name="https://example.org/1").count() == 1
    assert cell(page, PATH, "padding.gradient-is-zero").is_visible()
    page.click("#close")
    focused(page, link_of(PATH, "padding.gradient-is-zero"))
    page = visit(link_of(PATH, "lookup"))
    assert "1 crash" in page.get_by_role("dialog").inner_text()
    page.get_by_role("link", name="lookup.dtype").click()
    titled(page, f"{PATH}: lookup.dtype")
    page.go_back()
    titled(page, f"{PATH}: lookup")
    page = visit("#/lookup.rows")
    assert "1 fail: my dir/port.py:Embedding" in page.get_by_role("dialog").inner_text()


@pytest.mark.parametrize("bad", ["#nobody/lookup.rows", "#good/nothing", "#%/x", "#/", "#x"])
def test_links_to_nothing(visit: Open, bad: str) -> None:
    page = visit(bad)
    assert not page.locator("dialog").is_visible()
    page.click("#expand")
    assert rows(page) == _known()


@pytest.mark.parametrize("granted", [True, False])
def test_copy(visit: Open, granted: bool) -> None:
    page = visit(link_of(PATH, "lookup.rows"))
    if granted:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    else:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.evaluate("document.execCommand = (what) => { window.did = what; return true; }")
    for what in ("call", "script", "command", "link"):
        code = page.locator(f"dialog pre[aria-label={what}]")
        button = code.locator("+ button")
        button.click()
        sync_api.expect(button).to_have_text("Copied")
        if granted:
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied.replace("\r\n", "\n") == code.text_content()
        else:
            assert page.evaluate("window.did") == "copy"
            page.evaluate("window.did = ''")
    sync_api.expect(button).to_have_text("Copy link")


# keyboard


def test_by_keyboard_alone(visit: Open) -> None:
    page = visit()
    page.focus("#matrix-frame")
    page.keyboard.press("Tab")
    assert _focus(page).startswith("lookup")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    focused(page, "#/lookup.shape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    focused(page, link_of(PATH, "lookup.shape"))
    page.keyboard.press("Enter")
    titled(page, f"{PATH}: lookup.shape")
    page.keyboard.press("Escape")
    focused(page, link_of(PATH, "lookup.shape"))
    page.keyboard.press("End")
    focused(page, link_of("book", "lookup.shape"))
    page.keyboard.press("Home")
    focused(page, "#/lookup.shape")
    page.keyboard.press("Control+Home")
    assert _focus(page).startswith("lookup")
    page.keyboard.press("ArrowUp")
    assert _focus(page).startswith("lookup")
    page.keyboard.press("Tab")  # the whole table is one stop
    assert page.evaluate("document.activeElement.closest('#matrix')") is None


def test_a_closed_group_is_stepped_over(visit: Open) -> None:
    page = visit()
    page.focus("#matrix-frame")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert _focus(page).startswith("padding")


def test_what_has_the_focus_is_in_sight(visit: Open) -> None:
    page = visit(viewport={"width": 280, "height": 600})
    page.click("#expand")
    page.focus("#matrix-frame")
    page.keyboard.press("Tab")
    for key in ("ArrowRight",) * 3 + ("ArrowDown",) * 30 + ("ArrowUp",) * 15 + ("ArrowLeft",) * 2:
        page.keyboard.press(key)
        assert page.evaluate(
            """() => {
              const box = document.activeElement.getBoundingClientRect();
              const x = box.left + box.width / 2, y = box.top + box.height / 2;
              return document.activeElement.contains(document.elementFromPoint(x, y));
            }"""
        )


def _focus(page: Any) -> str:
    return str(page.evaluate("document.activeElement.textContent"))


# looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_no_violation_of_accessibility(visit: Open, scheme: str, width: int) -> None:
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.click("summary")
    assert violations(page) == []
    page.click("#expand")
    page.uncheck('input[value="pass"]')
    assert violations(page) == []
    page.goto(page.url + link_of(PATH, "lookup.rows"))
    page.wait_for_selector("dialog pre[aria-label=script]")
    assert violations(page) == []


def test_the_check_of_accessibility_can_fail(visit: Open) -> None:
    page = visit()
    page.evaluate("document.querySelector('.skip').insertAdjacentHTML('afterend', '<img>')")
    page.evaluate("document.querySelector('h1').style.color = '#bbb'")
    found = " ".join(violations(page))
    assert "image-alt" in found
    assert "color-contrast" in found


def test_the_table_is_a_table(visit: Open) -> None:
    page = visit()
    page.click("#expand")
    assert page.locator('#matrix thead th[scope="col"]').count() == len(BACKENDS) + 1
    assert page.locator('#matrix tbody th[scope="row"]').count() == len(_known())
    assert page.get_by_role("gridcell").count() == page.locator("#matrix td").count()
    assert cell(page, PATH, "lookup.rows").get_attribute("aria-label") == "fail"
    assert cell(page, PATH, "lookup.rows").inner_text() == "✗"


def test_eight_colours_in_each_theme(visit: Open) -> None:
    themes = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        colours = page.locator("fieldset .chip").evaluate_all(
            "chips => chips.map((chip) => getComputedStyle(chip).backgroundColor)"
        )
        assert len(set(colours)) == 8
        themes.append((page.evaluate("getComputedStyle(document.body).backgroundColor"), colours))
    assert themes[0][0] == "rgb(255, 255, 255)"
    assert sum(map(int, re.findall(r"\d+", themes[1][0]))) < 120


@pytest.mark.parametrize("link", ["", "my%20dir%2Fport.py%3AEmbedding/lookup.rows"])
def test_a_phone_scrolls_the_table_and_not_the_page(visit: Open, link: str) -> None:
    page = visit(f"#{link}" if link else "", viewport={"width": 360, "height": 700})
    if not link:
        page.click("#expand")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    frame = page.evaluate(
        "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])"
        "(document.getElementById('matrix-frame'))"
    )
    assert frame[1] <= 360
    if link:
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360
    page.evaluate("document.getElementById('matrix-frame').scrollLeft = 1000")
    if frame[0] > frame[1]:
        first = page.locator("#matrix tbody th").first.bounding_box()
        assert first["x"] < 30  # the clause stays where it is


def test_without_javascript_every_clause_is_there(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator("tr[data-clause]:visible").count() == len(_known())
    assert page.locator("form").is_hidden()
    assert page.locator("noscript p").is_visible()
