"""The page in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rsa_eval.records.record import Record, write_record
from rsa_eval.report.write import write_report

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.chromium import CHROMIUM, DRIVER, headless_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.process,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium or chromedriver is not on the PATH"
    ),
]

RSA = "cifar10/rsa"
LONG = "a_data_set_with_a_name_that_no_line_of_a_phone_has_room_for_" * 3


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium without network access."""
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(tmp_path: Path, make_trial: Callable[..., Record], write_log: Callable[..., None]) -> Path:
    """A report of every part: tables, paper's tables, sweep, times, curves, pictures, records."""
    values = {"byol": 9.5, "simclr": 100.0, "rsa": 10.25}
    records = [
        make_trial(f"cifar10/{name}", values={"top1": 50.0, "top5": top5})
        for name, top5 in values.items()
    ]
    records.append(make_trial("cifar10/simsiam", values={"top1": 60.0}))
    records += [make_trial(RSA, f"method.beta_base={beta}") for beta in (0, 0.5)]
    records.append(
        make_trial(
            RSA,
            data_set=LONG,
            protocol=LONG,
            deviations=[LONG],
            details={"votes": [{LONG: LONG, "k": 1}]},
            artifacts={LONG: "map.png", "x": LONG},
        )
    )
    for number, record in enumerate(records):
        write_record(record, tmp_path / f"runs/records/{number}.json")
    Image.new("RGB", (1200, 20)).save(tmp_path / "runs/records/map.png")
    line = {"step": 10, "epoch": 1, "loss": 1.0, "images_per_second": 100.0}
    for name in ("byol", "rsa"):
        write_log(tmp_path / f"runs/{name}", f"cifar10/{name}", lines=[line])
    write_report([tmp_path / "runs"], tmp_path / "report.html")
    return tmp_path / "report.html"


def _open(browser: webdriver.Chrome, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def _table(browser: webdriver.Chrome) -> WebElement:
    """Find the linear probe on CIFAR-10; the table before it is of the long name."""
    return browser.find_element(By.CSS_SELECTOR, "#table-2 table")


def _column(table: WebElement, column: int) -> list[str]:
    rows = table.find_elements(By.CSS_SELECTOR, "tbody:first-of-type tr")
    return [row.find_elements(By.TAG_NAME, "td")[column].text for row in rows]


def _heading(table: WebElement, text: str) -> WebElement:
    headings = table.find_elements(By.CSS_SELECTOR, "thead th")
    return next(heading for heading in headings if heading.text.startswith(text))


def test_the_console_stays_silent(browser: webdriver.Chrome, page: Path) -> None:
    """Neither an error nor a breach of the page's own policy; such a one would be seen here."""
    _open(browser, page, 1200)
    assert browser.get_log("browser") == []
    browser.execute_script("document.body.append(Object.assign(new Image(), {src: 'x.png'}))")
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))


def test_nothing_is_fetched(browser: webdriver.Chrome, page: Path) -> None:
    """The page loads nothing beyond its file."""
    _open(browser, page, 1200)
    fetched = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in fetched if not name.startswith("data:")] == []
    images = "return [...document.images].map((image) => image.naturalWidth)"
    assert browser.execute_script(images) == [1200]


def test_a_click_sorts_numbers_as_numbers(browser: webdriver.Chrome, page: Path) -> None:
    """9.50 sorts below 10.25, and cells without a number come last both ways."""
    _open(browser, page, 1200)
    table = _table(browser)
    top5 = _heading(table, "top5")
    assert _column(table, 2) == ["9.50", "100.00", "10.25", "", "99.50", "99.50"]
    top5.find_element(By.TAG_NAME, "button").click()
    assert _column(table, 2) == ["100.00", "99.50", "99.50", "10.25", "9.50", ""]
    assert top5.get_attribute("aria-sort") == "descending"
    top5.find_element(By.TAG_NAME, "button").click()
    assert _column(table, 2) == ["9.50", "10.25", "99.50", "99.50", "100.00", ""]
    assert top5.get_attribute("aria-sort") == "ascending"
    assert [name.partition("\n")[0] for name in _column(table, 0)][:2] == ["BYOL AA", "RSA decay"]


def test_the_keyboard_sorts_too(browser: webdriver.Chrome, page: Path) -> None:
    """Enter on a heading sorts by it; only one heading says that it does."""
    _open(browser, page, 1200)
    table = _table(browser)
    for name in ("top5", "Model"):
        _heading(table, name).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    names = [text.partition("\n")[0] for text in _column(table, 0)]
    assert names == ["BYOL AA", "RSA decay", "RSA decay", "RSA decay", "SimCLR", "SimSiam"]
    sorted_by = table.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    assert [heading.text for heading in sorted_by] == ["Model"]
    published = browser.find_element(By.CSS_SELECTOR, "#table-2 tbody:nth-of-type(2)")
    assert published.text.startswith("Published elsewhere")
    elsewhere = table.find_elements(By.CSS_SELECTOR, "tbody:nth-of-type(3) td.model > span")
    names = [name.text for name in elsewhere]
    assert names == sorted(names)
    _heading(table, "top5").find_element(By.TAG_NAME, "button").click()
    assert browser.get_log("browser") == []


def test_no_page_is_wider_than_its_screen(browser: webdriver.Chrome, page: Path) -> None:
    """Wide tables and opened records scroll within the page, whatever names they contain."""
    for width in (390, 800, 1440):
        _open(browser, page, width)
        opened = "for (const part of document.querySelectorAll('details')) part.open = true"
        browser.execute_script(opened)
        assert browser.execute_script("return window.innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_and_light(browser: webdriver.Chrome, page: Path) -> None:
    """The page follows the reader's light or dark setting."""
    colours: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        _open(browser, page, 1200)
        colours[scheme] = browser.execute_script(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        )
    assert colours["light"] != colours["dark"]
    assert colours["light"][0] != colours["light"][1]
