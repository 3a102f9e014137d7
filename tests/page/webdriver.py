"""A browser, driven by W3C WebDriver over HTTP: what the standard library can do is enough."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class WebDriverError(Exception):
    """What the driver answered."""


class Browser:
    """Headless Chromium. `driver` is its chromedriver, which listens on `port`."""

    def __init__(self, driver, port, profile):
        self.process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.base = f"http://127.0.0.1:{port}"
        self.session = None
        self._wait_for_driver()
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={profile}",
            # The browser asks for nothing on its own, so that each request is one of the page.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ]
        options = {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        always = {"browserName": "chrome", **options}
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self.session = answer["sessionId"]

    def _wait_for_driver(self):
        for _ in range(200):
            try:
                self._send("GET", "/status")
                return
            except (OSError, WebDriverError):
                time.sleep(0.05)
        raise WebDriverError("chromedriver does not answer")

    def _send(self, method, path, body=None):
        data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise WebDriverError(f"{value['error']}: {value['message']}") from None

    def ask(self, method, path, body=None):
        """Sends a command of the session."""
        return self._send(method, f"/session/{self.session}{path}", body)

    def close(self):
        """Ends the browser and its driver."""
        try:
            if self.session:
                self.ask("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()

    def go(self, url):
        """Opens an address."""
        self.ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """Runs a script in the page, and answers with what it returns."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        """The same for a script that calls its last argument when it is done."""
        return self.ask("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def find(self, selector, text=None):
        """The elements that are shown, match a selector of CSS, and have this text."""
        found = self.run(
            """const [selector, text] = arguments;
            return [...document.querySelectorAll(selector)].filter((element) =>
                element.checkVisibility({ visibilityProperty: true }) &&
                (text === null || element.textContent.trim() === text));""",
            selector,
            text,
        )
        return [one[ELEMENT] for one in found]

    def wait(self, what, check, seconds=10):
        """Waits until `check` answers with something, and answers with that."""
        end = time.monotonic() + seconds
        while True:
            found = check()
            if found:
                return found
            if time.monotonic() > end:
                raise WebDriverError(f"waited in vain: {what}")
            time.sleep(0.05)

    def one(self, selector, text=None):
        """The first such element, once there is one."""
        what = f"{selector} {text or ''}"
        return self.wait(what, lambda: self.find(selector, text))[0]

    def click(self, selector, text=None):
        """Clicks as a person does: the element must be in reach of the pointer."""
        element = self.one(selector, text)
        self.ask("POST", f"/element/{element}/click")

    def write(self, selector, text):
        """Types into a field, in place of what is there."""
        element = self.one(selector)
        self.ask("POST", f"/element/{element}/clear")
        self.ask("POST", f"/element/{element}/value", {"text": text})

    def press(self, key):
        """Presses a key."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.ask("POST", "/actions", {"actions": [keyboard]})

    def text(self, selector="main"):
        """The text that is shown."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def cdp(self, command, **arguments):
        """A command of Chromium's own protocol."""
        body = {"cmd": command, "params": arguments}
        return self.ask("POST", "/goog/cdp/execute", body)

    def resize(self, width, height, is_phone=False):
        """Makes the page this large."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    def screenshot(self, path):
        """Writes what is shown as PNG."""
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", "/screenshot")))

    def log(self, kind):
        """What was logged since the last call: `browser` or `performance`."""
        return self.ask("POST", "/se/log", {"type": kind})
