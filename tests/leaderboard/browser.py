"""Headless Chromium over the DevTools protocol: enough to look at one page from a file."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--no-default-browser-check", "--remote-debugging-port=0", "--remote-allow-origins=*",
)
KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("", 9)}


class Browser:
    """One tab, everything it logs, and everything it asks for."""

    def __init__(self, profile: Path) -> None:
        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        told, until = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (told.exists() and len(told.read_text().splitlines()) == 2):
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.05)
        port, path = told.read_text().splitlines()
        self._socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60)
        self._at, self.session = 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._at += 1
        call = {"id": self._at, "method": method, "params": params}
        self._socket.send(json.dumps(call | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._at:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, fragment: str = "") -> float:
        """Load a file; returns the seconds until its scripts have run."""
        self.events.clear()
        self.send("Page.navigate", url="about:blank")
        begun = time.perf_counter()
        self.send("Page.navigate", url=path.as_uri() + fragment)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        return time.perf_counter() - begun

    def run(self, script: str) -> Any:
        """The value of an expression of the page."""
        done = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 30.0) -> None:
        """Until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.01)

    def press(self, key: str) -> None:
        """A key, down and up."""
        text, code = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text,
                windowsVirtualKeyCode=code,
            )

    def size(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        """The size of the window, in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )

    def prefers(self, scheme: str) -> None:
        """What `prefers-color-scheme` says."""
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": scheme},
        ])

    def contrast(self, selector: str) -> float:
        """The contrast of a text with its ground, as WCAG 2 has it; colours are drawn."""
        return self.run(f"""(() => {{
            const canvas = document.createElement("canvas")
                .getContext("2d", {{willReadFrequently: true}});
            const rgb = (colour) => {{
                canvas.clearRect(0, 0, 1, 1);
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            }};
            const light = (colour) => rgb(colour).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = (node) => {{
                for (let at = node; at; at = at.parentElement) {{
                    const colour = getComputedStyle(at).backgroundColor;
                    if (!/, 0\\)$/.test(colour)) return colour;
                }}
                return "white";
            }};
            return Math.min(...[...document.querySelectorAll({selector!r})].map((node) => {{
                const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            }}));
        }})()""")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions nobody caught."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("text", "exception"))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] != "info":
                found.append(params["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] != "log":
                found.append(str(params["args"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for, less data within the page."""
        return [
            event["params"]["request"]["url"] for event in self.events
            if event["method"] == "Network.requestWillBeSent"
            and not event["params"]["request"]["url"].startswith(("data:", "about:"))
        ]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot, for the eyes of whoever works on the page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End Chromium."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
