"""Open a page in Chromium as Qt ships it, without a display: ``python browser.py PAGE WIDTH PICTURE``.

It runs under a Python that has PySide6-WebEngine (`make test-browser`), and prints as JSON what the page
asked for and what became of it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = "--no-sandbox --disable-gpu --force-device-scale-factor=1"

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

TIMEOUT, PAINT = 60_000, 3_000  # milliseconds
STATE = """JSON.stringify({
    title: document.title,
    headings: [...document.querySelectorAll("h1, h2")].map(each => each.textContent),
    images: [...document.images].map(each => each.complete ? each.naturalWidth : 0),
    height: document.documentElement.scrollHeight,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    scripts: document.scripts.length,
    hostile: Boolean(window.hostile),
    text: document.body.innerText,
})"""


class Requests(QWebEngineUrlRequestInterceptor):
    """Note every request, and let through what is not of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def interceptRequest(self, info) -> None:
        url = info.requestUrl()
        if url.scheme() != "data":
            self.urls.append(url.toString())
        info.block(url.scheme() not in ("file", "data"))


class Page(QWebEnginePage):
    """Page that keeps what is said on its console, such as violations of its own policy."""

    def __init__(self, profile: QWebEngineProfile) -> None:
        super().__init__(profile)
        self.messages: list[str] = []

    def javaScriptConsoleMessage(self, level, message, line, source) -> None:
        self.messages.append(message)


def main(source: Path, width: int, picture: Path) -> None:
    application = QApplication(sys.argv)
    profile, requests, view = QWebEngineProfile(), Requests(), QWebEngineView()
    profile.setUrlRequestInterceptor(requests)
    page = Page(profile)
    view.setPage(page)
    state: dict = {}

    def loaded(ok: bool) -> None:
        state["loaded"] = ok
        page.runJavaScript(STATE, 0, enlarge)

    def enlarge(values: str) -> None:
        state.update(json.loads(values))
        view.resize(width, state["height"])
        QTimer.singleShot(PAINT, finish)

    def finish() -> None:
        view.grab().save(str(picture))
        application.quit()

    page.loadFinished.connect(loaded)
    view.resize(width, 900)
    view.load(QUrl.fromLocalFile(str(source.resolve())))
    view.show()
    QTimer.singleShot(TIMEOUT, application.quit)
    application.exec()
    print(json.dumps({**state, "requests": requests.urls, "messages": page.messages}), flush=True)
    os._exit(0)  # Qt's own order of destruction is not Python's


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
