"""The page in a real browser, while runs train and records appear."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.records.record import Record, write_record

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.chromium import CHROMIUM, DRIVER, headless_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not on the PATH"
    ),
]

Browser = webdriver.Chrome
RSA = "cifar10/rsa"
LONG = "a_run_with_a_name_that_no_line_of_a_phone_has_room_for_" * 3
CURVE = "#main-plots figure[data-key='loss'] .curve"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium without network access."""
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def tree(tmp_path: Path, make_trial: Callable[..., Record], write_log: Callable[..., None]) -> Path:
    """Three runs, of which two are evaluated and one is in progress."""
    folder = tmp_path / "runs"
    for number, name in enumerate(("byol", "simclr")):
        lines = [_line(step) for step in range(10, 50, 10)]
        write_log(folder / name, f"cifar10/{name}", lines=lines)
        record = make_trial(f"cifar10/{name}", values={"top1": 9.5 + 90 * number, "top5": 99.0})
        write_record(record, folder / name / "records/linear.json")
    write_log(folder / "live", RSA, lines=[_line(10), _line(20)])
    return folder


def _line(step: int) -> dict[str, float]:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": 2 / step,
        "lr": 0.1,
        "knn_top1": 30.0 + step,
        "images_per_second": 1000.0,
        "data_wait": 0.1,
    }


def _open(browser: Browser, url: str, width: int = 1200) -> None:
    """Open the page and wait until it has drawn what is there."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get(url)
    _wait(browser, lambda: browser.find_element(By.ID, "status").text == "Up to date")


def _wait(browser: Browser, is_so: Callable[[], object]) -> None:
    WebDriverWait(browser, 20, poll_frequency=0.1).until(lambda _: is_so())


def _find(browser: Browser, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def _texts(browser: Browser, selector: str) -> list[str]:
    parts = "return [...document.querySelectorAll(arguments[0])]"
    script = f"{parts}.map((part) => part.innerText ?? part.textContent)"
    texts: list[str] = browser.execute_script(script, selector)
    return texts


def _shown_runs(browser: Browser) -> list[str]:
    """Names of the rows of the table of runs."""
    texts = _texts(browser, "#runs tbody tr:not([hidden]) label")
    return [text.partition("\n")[0] for text in texts]


def _add_lines(folder: Path, *steps: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(_line(step)) + "\n" for step in steps)


def _num_points(browser: Browser) -> int:
    return _find(browser, CURVE).get_attribute("d").count("L") + 1


def test_a_run_in_progress_grows(browser: Browser, serve: Any, tree: Path) -> None:
    """Its curve gets longer, and its numbers change, without the page being loaded again."""
    _open(browser, serve(tree).url)
    assert _shown_runs(browser)[0] == "live"
    assert (
        _texts(browser, "#counts") == ["3 in progress"]
        or "in progress" in _texts(browser, "#counts")[0]
    )
    assert _texts(browser, "#legend li") == ["live"]
    assert _texts(browser, "#main-plots figcaption")[0] == "loss"
    assert _num_points(browser) == 2
    browser.execute_script("window.isTheSamePage = true")
    _add_lines(tree / "live", 30, 40)
    with (tree / "live/metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "lo')
    _wait(browser, lambda: _num_points(browser) == 4)
    row = _texts(browser, "#runs tbody tr")[0]
    assert "in progress" in row
    assert "4 of 200 epochs" in row
    assert "70.0" in row
    assert "loss over step; last live 0.05" in _find(browser, "#main-plots svg").get_attribute(
        "aria-label"
    )
    assert browser.execute_script("return window.isTheSamePage")
    assert browser.get_log("browser") == []


def test_runs_and_records_appear(
    browser: Browser, serve: Any, tmp_path: Path, make_trial: Any, write_log: Any
) -> None:
    """In a folder that was empty; what the reader sorted and opened stays so."""
    _open(browser, serve(tmp_path).url)
    assert "None yet" in _find(browser, "#counts").text
    write_log(tmp_path / "byol", "cifar10/byol", lines=[_line(10)])
    _wait(browser, lambda: _shown_runs(browser) == ["byol"])
    assert not browser.find_elements(By.CSS_SELECTOR, "#runs small")
    write_log(tmp_path / "other/byol", "cifar10/byol", lines=[_line(10)])
    _wait(browser, lambda: _shown_runs(browser) == ["byol", "byol"])
    assert set(_texts(browser, "#runs small")) == {f"{tmp_path}/byol", f"{tmp_path}/other/byol"}
    for number, name in enumerate(("byol", "rsa")):
        record = make_trial(f"cifar10/{name}", values={"top1": 50.0 + number, "top5": 99.0})
        write_record(record, tmp_path / f"{name}/records/linear.json")
    names = "#table-1 tbody:first-of-type td.model > span"
    _wait(browser, lambda: _texts(browser, names) == ["BYOL AA", "RSA decay"])
    _find(browser, "#table-1 thead th:nth-child(2) button").click()
    assert _texts(browser, names) == ["RSA decay", "BYOL AA"]
    _find(browser, "details.record > summary").click()
    _wait(browser, lambda: "SHA-256" in _find(browser, "details.record").text)
    assert "Table 2" in _find(browser, "nav").text
    record = make_trial("cifar10/simclr", values={"top1": 50.5, "top5": 99.0})
    write_record(record, tmp_path / "simclr/records/linear.json")
    _wait(browser, lambda: _texts(browser, names) == ["RSA decay", "SimCLR", "BYOL AA"])
    assert _find(browser, "#table-1 th[aria-sort]").text == "top1 (%)"
    _wait(browser, lambda: "SHA-256" in _find(browser, "details.record[open]").text)
    (tmp_path / "simclr/records/linear.json").write_text("{")
    _wait(browser, lambda: "Left out: unreadable files" in _find(browser, "#summary").text)
    assert browser.get_log("browser") == []


def test_typed_words_filter_rows(browser: Browser, serve: Any, tree: Path) -> None:
    """Of runs, tables and records; tables without such a row vanish until the words do."""
    _open(browser, serve(tree).url)
    box = _find(browser, "#filter")
    box.send_keys("Sim CLR")
    assert _shown_runs(browser) == ["simclr"]
    names = "#table-1 tbody:first-of-type tr:not([hidden]) td.model > span"
    assert _texts(browser, names) == ["SimCLR"]
    assert len(browser.find_elements(By.CSS_SELECTOR, "details.record:not([hidden])")) == 1
    assert _find(browser, "#matches").text.endswith(" rows")
    box.send_keys(" nowhere")
    assert _shown_runs(browser) == []
    assert not _find(browser, "#table-1").is_displayed()
    _add_lines(tree / "live", 30)
    _wait(browser, lambda: _num_points(browser) == 3)
    assert _shown_runs(browser) == []
    box.send_keys(Keys.CONTROL + "a", Keys.DELETE)
    assert len(_shown_runs(browser)) == 3
    assert _find(browser, "#table-1").is_displayed()


def test_a_click_sorts_the_runs(browser: Browser, serve: Any, tree: Path) -> None:
    """By numbers, both ways, by mouse and keyboard; the order holds while the numbers change."""
    _open(browser, serve(tree).url)
    heading = _find(browser, "#runs thead th:nth-child(5)")
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert _shown_runs(browser)[-1] == "live"
    heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert _shown_runs(browser)[0] == "live"
    _add_lines(tree / "live", 60)
    _wait(browser, lambda: _shown_runs(browser)[-1] == "live")
    assert browser.switch_to.active_element == heading.find_element(By.TAG_NAME, "button")


def test_ticked_runs_are_drawn(browser: Browser, serve: Any, tree: Path) -> None:
    """By mouse and keyboard, over steps or epochs; those in progress again at a click."""
    _open(browser, serve(tree).url)
    _find(browser, "#runs input[aria-label='Draw byol']").click()
    _find(browser, "#runs input[aria-label='Draw simclr']").send_keys(Keys.SPACE)
    _wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, CURVE)) == 3)
    assert sorted(_texts(browser, "#legend li")) == ["byol", "live", "simclr"]
    looks = [c.get_attribute("stroke") for c in browser.find_elements(By.CSS_SELECTOR, CURVE)]
    assert len(set(looks)) == 3
    _find(browser, "#axis").send_keys("epochs")
    _wait(browser, lambda: "epoch" in _texts(browser, "#main-plots svg text"))
    assert "More quantities (2)" in _find(browser, "#more > summary").text
    _find(browser, "#draw-none").click()
    _wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, CURVE))
    assert "Tick runs" in _find(browser, "#hint").text
    _find(browser, "#draw-live").click()
    _wait(browser, lambda: _texts(browser, "#legend li") == ["live"])
    _find(browser, "#settings > summary").click()
    _find(browser, "#configs details > summary").click()
    _wait(browser, lambda: "output_dir" in _find(browser, "#configs pre").text)
    assert browser.get_log("browser") == []


def test_a_pointer_reads_values(browser: Browser, serve: Any, tree: Path) -> None:
    """The values at a place are shown while the pointer is there."""
    _open(browser, serve(tree).url)
    webdriver.ActionChains(browser).move_to_element(_find(browser, "#main-plots svg")).perform()
    text = _find(browser, "#main-plots .readout").text
    assert "live" in text
    assert "0.2" in text or "0.1" in text
    webdriver.ActionChains(browser).move_to_element(_find(browser, "h1")).perform()
    assert browser.find_elements(By.CSS_SELECTOR, ".readout") == []


def test_fifty_runs_are_not_drawn_at_once(
    browser: Browser, serve: Any, tmp_path: Path, write_log: Any
) -> None:
    """At most twelve; the table scrolls within itself, and the curves stay near."""
    for number in range(50):
        write_log(tmp_path / f"run-{number:02d}", lines=[_line(10), _line(20)])
    _open(browser, serve(tmp_path).url)
    assert len(_shown_runs(browser)) == 50
    assert _texts(browser, "#legend li") == [f"run-{number:02d}" for number in range(12)]
    assert not _find(browser, "#runs input[aria-label='Draw run-49']").is_enabled()
    assert "At most 12" in _find(browser, "#hint").text
    _find(browser, "#filter").send_keys("run-4")
    _find(browser, "#draw-listed").click()
    listed = [f"run-4{number}" for number in range(10)]
    _wait(browser, lambda: sorted(_texts(browser, "#legend li")) == listed)
    assert _find(browser, "#runs").size["height"] < 700


def test_a_server_that_ends_is_named(browser: Browser, python: Any, tree: Path) -> None:
    """The page keeps what it has drawn, and says since when it is old."""
    program = python.start("-m", "rsa_eval", "serve", tree, "--port", "0")
    _wait(browser, lambda: "\n" in program.stdout)
    _open(browser, program.stdout.split()[1])
    program.kill()
    _wait(browser, lambda: "The server does not answer since" in _find(browser, "#status").text)
    assert len(_shown_runs(browser)) == 3


def test_a_hidden_page_asks_nothing(browser: Browser, serve: Any, tree: Path) -> None:
    """Until it is visible again, when it asks at once."""
    _open(browser, serve(tree).url)
    hide = """
        Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    """
    count = "return performance.getEntriesByType('resource').length"
    browser.execute_script(hide, True)
    time.sleep(0.5)
    before = browser.execute_script(count)
    time.sleep(3)
    assert browser.execute_script(count) == before
    browser.execute_script(hide, False)
    _wait(browser, lambda: browser.execute_script(count) > before)


def test_no_page_is_wider_than_its_screen(
    browser: Browser, serve: Any, tree: Path, write_log: Any
) -> None:
    """Wide tables and long names scroll or break within the page."""
    write_log(tree / LONG, RSA, lines=[_line(10)])
    server = serve(tree)
    for width in (360, 390, 800, 1440):
        _open(browser, server.url, width)
        _wait(browser, lambda: len(_shown_runs(browser)) == 4)
        opened = "for (const part of document.querySelectorAll('details')) part.open = true"
        browser.execute_script(opened)
        assert browser.execute_script("return window.innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_and_light(browser: Browser, serve: Any, tree: Path) -> None:
    """The page and its curves follow the reader's light or dark setting."""
    colours: dict[str, Any] = {}
    server = serve(tree)
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        _open(browser, server.url)
        colours[scheme] = browser.execute_script(
            "const s = getComputedStyle(document.body);"
            f'const c = getComputedStyle(document.querySelector("{CURVE}"));'
            "return [s.backgroundColor, s.color, c.stroke]"
        )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert all(light != dark for light, dark in zip(*colours.values(), strict=True))


def test_everything_can_be_reached_and_is_named(browser: Browser, serve: Any, tree: Path) -> None:
    """Controls have names for screen readers, scrolling parts can be focused, ids are unique."""
    _open(browser, serve(tree).url)
    unnamed = browser.execute_script("""
        const controls = "button, input, select, progress, svg[role=img], .scroll[role=region]";
        const isNamed = (e) => (e.innerText || "").trim() || e.ariaLabel || e.labels?.length;
        return [...document.querySelectorAll(controls)].filter((e) => !isNamed(e)).length;
    """)
    assert unnamed == 0
    scrolling = browser.find_elements(By.CSS_SELECTOR, ".scroll[role=region]")
    assert {part.get_attribute("tabindex") for part in scrolling} == {"0"}
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    targets = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map((e) => e.getAttribute('href').slice(1))"
    )
    assert set(targets) <= set(ids)


def test_only_the_server_is_asked(browser: Browser, serve: Any, tree: Path) -> None:
    """Nothing is loaded from elsewhere, and the policy would forbid it."""
    server = serve(tree)
    _open(browser, server.url)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith((server.url, "data:"))] == []
    browser.execute_script(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))
