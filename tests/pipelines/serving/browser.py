"""A headless Chromium for tests: it fills in fields, waits for content, and reports the requests of a page.

Chromium and chromedriver are those of the system, so that no test fetches a browser.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 30
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "needs chromium and chromedriver on the path"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en-GB",
)


class Browser:
    """A page in Chromium.

    Args:
        driver: what drives it.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, url: str) -> None:
        """Load a page, and forget the requests of the one before."""
        self.requests()
        self.complaints()
        self._driver.get(url)

    def one(self, selector: str) -> WebElement:
        """Find an element."""
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Count elements."""
        return len(self._driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        """Read an element's text, as it is shown."""
        return str(self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field by typing."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def press(self, selector: str) -> None:
        """Press a button with the keyboard."""
        self.one(selector).send_keys("\ue007")

    def until(self, what: Callable[[], Any], message: str) -> None:
        """Wait until a condition holds."""
        WebDriverWait(self._driver, PATIENCE, poll_frequency=0.05).until(lambda _: what(), message)

    def script(self, text: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self._driver.execute_script(text, *arguments)

    def protocol(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(command, parameters)

    def show(self, *, width: int, dark: bool = False) -> None:
        """Set the width in pixels, and light or dark colours."""
        self.protocol(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.protocol("Emulation.setEmulatedMedia", features=[scheme])

    def hosts(self) -> set[str]:
        """Return the hosts of all requests since the last call; ``data:`` has none."""
        return {urlsplit(url).netloc for url in self.requests()} - {""}

    def requests(self) -> list[str]:
        """Return all requests since the last call."""
        messages = (json.loads(entry["message"])["message"] for entry in self._logged("performance"))
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return Chromium's errors since the last call: of scripts, and of refused or failed requests."""
        return [entry["message"] for entry in self._logged("browser")]

    def _logged(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._driver.get_log(kind)  # type: ignore[no-untyped-call] # of selenium
        return entries

    def picture(self, path: Path) -> None:
        """Save a picture of the whole page."""
        width, height = self.script("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.protocol("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run a separate Chromium.

    Args:
        folder: for its profile.
    """
    options = webdriver.ChromeOptions()
    assert CHROMIUM
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
