#!/usr/bin/env python3
"""The dashboard in a real browser: every view under load, and every control on a real balancer.

    test_page.py MAHORAGA AXE SCREENSHOTS

AXE is axe-core's axe.min.js, or `-` for none; SCREENSHOTS is the directory of the pictures.
`scripts/page.sh` runs this.
"""

import json
import os
import socket
import sys
import tempfile
import time
import urllib.error

from stage import HOSTILE, READ, WRITE, Clients, Stage, free_port
from webdriver import Browser

VIEWS = [
    "overview", "backends", "pools", "listeners", "distribution", "sessions", "bans", "health",
    "history", "events", "explain", "config",
]


class Page:
    """The page in a browser, with what is checked of it all the time."""

    def __init__(self, browser, stage, axe, pictures):
        self.browser, self.stage, self.pictures = browser, stage, pictures
        self.axe = None
        if axe != "-":
            with open(axe, encoding="utf-8") as file:
                self.axe = file.read()
        self.requests = []
        # Errors that a step causes on purpose.
        self.expected = []

    def open(self, view):
        """Goes to a view, as a link does."""
        self.browser.run("location.hash = arguments[0]", f"#/{view}")
        name = view.split("?")[0]
        self.browser.wait(view, lambda: self.browser.find(f"main.view-{name}"))

    def see(self, *texts, where="main", seconds=10):
        """Waits until all of these are on the screen."""
        for text in texts:
            is_there = lambda: text in self.browser.text(where)
            self.browser.wait(f"`{text}` in {where}", is_there, seconds)

    def confirm(self, verb):
        """Answers the dialog that asks."""
        self.browser.click("dialog[open]:last-of-type menu button:last-child", verb)
        gone = f"dialog[open]:last-of-type menu button:last-child"
        self.browser.wait(f"{verb} is done", lambda: not self.browser.find(gone, verb))

    def inspect(self, what):
        """axe-core finds no serious violation, and nothing was logged or asked elsewhere."""
        if self.axe:
            if not self.browser.run("return typeof window.axe === 'object'"):
                self.browser.run(self.axe + "; window.axe = axe;")
            found = self.browser.run_async(
                """const done = arguments[arguments.length - 1];
                const only = { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] };
                axe.run(document, { runOnly: only, resultTypes: ['violations'] }).then(
                    (found) => done(found.violations
                        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
                        .map(({ id, help, nodes }) => [id, help, nodes.slice(0, 3).map((node) =>
                            node.html + ' ' + node.failureSummary)])),
                    (error) => done([String(error)]));"""
            )
            assert not found, f"{what}: {json.dumps(found, indent=1)}"
        self.expect_quiet(what)

    def expect_quiet(self, what):
        """No error on the console, no request to another host, and no token in an address."""
        said = self.browser.log("browser")
        grave = [one["message"] for one in said if one["level"] in ("SEVERE", "WARNING")]
        grave = [one for one in grave if not any(it in one for it in self.expected)]
        assert not grave, f"{what}: {grave}"
        for entry in self.browser.log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            url = message["params"]["request"]["url"]
            self.requests.append(url)
            assert url.startswith(self.stage.base), f"{what}: asked for {url}"
            assert READ not in url and WRITE not in url, f"{what}: a token is in {url}"

    def picture(self, name):
        """A picture for people."""
        self.browser.screenshot(os.path.join(self.pictures, f"{name}.png"))

    def theme(self, theme):
        """Uses the light or the dark theme."""
        if self.browser.run("return document.documentElement.dataset.theme") != theme:
            self.browser.click("#theme")
        assert self.browser.run("return document.documentElement.dataset.theme") == theme


def step(name):
    """Says how far it has come."""
    print(f"{time.monotonic() - BEGAN:5.1f} s  {name}", flush=True)


def sign_in(page):
    """Without a token there is nothing to see, an unknown one is refused, and each has its role."""
    browser = page.browser
    browser.go(page.stage.base)
    browser.one("form.signin")
    page.inspect("sign-in")
    page.picture("sign-in")
    browser.write("input[name=token]", "a-token-of-another")
    browser.click("button", "Sign in")
    page.see("does not know this token")
    browser.write("input[name=token]", READ)
    browser.click("button", "Sign in")
    page.see("What is wrong now", "app-4 is down")
    browser.one("#live[data-tone=good]")


def readers_change_nothing(page):
    """With the read token every control is off, and says why."""
    browser = page.browser
    page.open("backends?pool=web")
    browser.click("button.link", "app-1")
    page.see("You may read only", where="dialog")
    for button in ("Drain", "Maint", "Set"):
        assert browser.run(
            "return [...document.querySelectorAll('dialog button')]"
            ".find((one) => one.textContent === arguments[0]).disabled",
            button,
        ), button
    browser.press("\ue00c")  # Escape
    page.open("config")
    page.see("only the write token shows it")
    browser.click("#account")
    browser.write("dialog input", WRITE)
    page.confirm("Sign in")
    page.see("workers: 2", "app-1")


def every_view(page):
    """Every view has its content, in both themes and on a phone; axe finds nothing serious."""
    marks = {
        "overview": ["Throughput", "First byte, p99", "Last minutes"],
        "backends": ["204 of 205 take new sessions", HOSTILE, "127.0.1.200"],
        "pools": ["web", "fleet", "random"],
        "listeners": ["front", "bulk", "guests", HOSTILE, "192.0.2.0/24", "100%", "refuse"],
        "distribution": ["worker 0", "worker 1", "app-1"],
        "sessions": ["sessions at", "127.0.0.1:"],
        "bans": ["198.51.100.0/24", HOSTILE],
        "health": ["web/app-4", "Transitions", "takes no new sessions", "unchecked"],
        "history": ["a point for each", "New clients", "First byte, p99", "backend down"],
        "explain": ["Session or client", "Where would a client go now?"],
        "events": ["backend down", "is down: connection refused"],
        "config": ["rise: 1"],
    }
    page.stage.ask("POST", "bans", {"prefix": "198.51.100.0/24", "reason": HOSTILE})
    for theme in ("dark", "light"):
        page.theme(theme)
        for view in VIEWS:
            page.open(view)
            page.see(*marks[view])
            page.inspect(f"{view}, {theme}")
            page.picture(f"{view}-{theme}")
    page.browser.resize(390, 844, is_phone=True)
    for view in VIEWS:
        page.open(view)
        page.see(marks[view][0])
        wide = page.browser.run(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        assert not wide, f"{view} is wider than a phone"
        page.picture(f"{view}-phone")
    page.browser.click("#menu")
    page.browser.click("nav a", "Pools")
    page.browser.wait("pools", lambda: page.browser.find("main.view-pools"))
    page.inspect("phone")
    page.browser.resize(1440, 1000)


def hostile_names_stay_text(page):
    """What others choose becomes text: no element of it is made."""
    made = page.browser.run("return document.querySelectorAll('img[src=x], main script').length")
    assert made == 0
    refused = page.browser.run(
        """try { document.body.insertAdjacentHTML('beforeend', '<p>x</p>'); return false; }
        catch (error) { return true; }"""
    )
    assert refused, "the browser lets the page make HTML of text"
    page.expected.append("TrustedHTML")


def backends_are_ordered(page):
    """Drain, maintenance, ready and weight: with a confirmation, in force, and with the effect."""
    browser, stage = page.browser, page.stage
    page.open("backends?pool=web")
    browser.click("button.link", "app-1")
    for order, verb, says in (
        ("drain", "Drain", "It drains."),
        ("maint", "Maint", "It is in maintenance."),
        ("ready", "Ready", "It is ready."),
    ):
        browser.click("dialog .group button", verb)
        page.see(f"{verb} app-1?", where="dialog[open]:last-of-type")
        if order == "drain":
            page.inspect("the dialog that asks")
            page.picture("drain")
        page.confirm(verb)
        page.see(says, where="dialog .effect")
        assert stage.backend("app-1")["state"] == order
        page.see(says, where="#toasts")
    browser.write("dialog input[type=number]", "8")
    browser.click("dialog .weight button", "Set")
    page.see("goes from 44% to 62%", where="dialog[open]:last-of-type")
    page.confirm("Set weight")
    page.see("Its weight is 8.", where="dialog .effect")
    assert stage.backend("app-1")["weight"] == 8
    page.see("Recent probes", "answered in", where="dialog")
    page.inspect("the panel of a backend")
    page.picture("backend")
    browser.click("dialog button[aria-label=Close]")
    # What is cancelled changes nothing.
    browser.click("button.link", "app-2")
    browser.click("dialog .group button", "Drain")
    browser.click("dialog[open]:last-of-type menu button", "Cancel")
    assert stage.backend("app-2")["state"] == "ready"
    browser.press("\ue00c")
    # Filters and orders of the table.
    choose(browser, "Pool", "all pools")
    browser.write("input[type=search]", "127.0.1.77:")
    page.see("1 shown")
    browser.write("input[type=search]", "app")
    browser.click("button.sort", "Conns")
    sorted_by = "return document.querySelector('[aria-sort=descending] button').textContent"
    assert browser.run(sorted_by) == "Conns"
    choose(browser, "State", "failing")
    page.see("1 shown")


def choose(browser, label, text):
    """Chooses an option of the list with this label."""
    browser.run(
        """const label = [...document.querySelectorAll('main label')].find((one) =>
            one.textContent.trim() === arguments[0]);
        const list = document.getElementById(label.htmlFor);
        list.value = [...list.options].find((one) => one.textContent === arguments[1]).value;
        list.dispatchEvent(new Event('change'));""",
        label,
        text,
    )


def bans_are_made_and_lifted(page):
    """A ban by the form, and its end by the button; a mistake is told in the dialog."""
    browser, stage = page.browser, page.stage
    page.open("bans")
    browser.write("form.add input[placeholder^='192']", "203.0.113.9/99")
    browser.click("form.add button", "Ban")
    browser.click("dialog[open] menu button:last-child", "Ban")
    page.expected.append("/v1/bans - Failed to load resource")
    page.see("invalid", where="dialog .error")
    browser.click("dialog menu button", "Cancel")
    browser.write("form.add input[placeholder^='192']", "203.0.113.9")
    browser.write("form.add input[maxlength]", "from the test")
    choose(browser, "For", "1 day")
    browser.click("form.add button", "Ban")
    page.confirm("Ban")
    page.see("203.0.113.9", "from the test", "23h 59m")
    found = stage.ask("GET", "bans?client=203.0.113.9")
    assert found[0]["reason"] == "from the test", found
    choose(browser, "Order", "most hits")
    browser.write("input[type=search]", "203.0.113.9")
    browser.click("main form button", "Show")
    browser.wait("one ban", lambda: "198.51.100.0/24" not in browser.text())
    browser.click("button[aria-label='Lift the ban of 203.0.113.9']")
    page.confirm("Lift")
    page.see("No ban matches")
    assert stage.ask("GET", "bans?client=203.0.113.9") == []


def sessions_are_closed(page):
    """One session by its button, and all that a filter matches."""
    browser, stage = page.browser, page.stage
    held = [socket.create_connection(("127.0.0.1", stage.other)) for _ in range(3)]
    for one in held:
        one.sendall(b"GET / HTTP/1.1\r\nHost: held\r\n\r\n")
        one.recv(1)
    page.open("sessions?pool=fleet")
    # The oldest come first: those that are held.
    browser.wait("a session that stays", lambda: "3s" in browser.text("main tbody"), 15)
    row = browser.run("return document.querySelector('main tbody th').textContent")
    browser.click(f"button[aria-label='Close session {row}']")
    page.confirm("Close session")
    page.see(f"Session {row} is closed", where="#toasts")
    choose(browser, "Listener", "bulk")
    browser.click("main button", "Close those …")
    page.see("listener bulk, pool fleet", where="dialog")
    page.confirm("Close them")
    page.see("closed.", where="#toasts")
    for one in held:
        one.settimeout(5)
        try:
            while one.recv(65536):
                pass
        except ConnectionResetError:
            pass
        one.close()


def events_come_live(page):
    """What happens is on the page at once: an event, a problem in words, and its end."""
    browser, stage = page.browser, page.stage
    page.open("events")
    stage.backends.stop(stage.web[1])
    page.see("`app-2` of pool `web` is down")
    browser.write("input[type=search]", "app-2")
    choose(browser, "Severity", "problems")
    page.see("1 event of the last")
    browser.click("main label.check input")
    stage.backends.start(stage.web[1])
    page.see("since the pause")
    page.open("overview")
    page.see("app-4 is down")
    page.picture("problem")
    page.open("health")
    choose(browser, "Backends", "that changed or fail")
    page.see("web/app-2")
    page.see("web/app-1: state ready to drain")
    strips = browser.run("return document.querySelectorAll('.strip rect[data-state=down]').length")
    assert strips >= 2, strips
    choose(browser, "Time", "1 hour")
    page.open("distribution")
    choose(browser, "Pool", "fleet")
    choose(browser, "Measured by", "bytes, last minute")
    page.see("127.0.1.99")
    page.open("overview")
    browser.run(
        """for (const list of document.querySelectorAll('main select')) {
            list.selectedIndex = 0;
            list.dispatchEvent(new Event('change'));
        }"""
    )
    page.inspect("after what happened")


def configuration_is_read(page):
    """The search, and the order to read the file again."""
    browser = page.browser
    page.open("config")
    # The weight of app-1 was changed by the page.
    page.see("1 value by command", "As a file")
    choose(browser, "From", "commands")
    page.see("1 setting shown", "app-1].weight")
    page.picture("config-changed")
    choose(browser, "From", "defaults")
    browser.write("input[type=search]", "max_connections")
    page.see("pools[web].max_connections")
    browser.click("main button", "Read the file again …")
    page.confirm("Reload")
    page.see("Snapshot", where="#toasts")


def history_is_shown(page):
    """A subject, a range of time, and the day before, which this balancer does not know."""
    browser = page.browser
    page.open("history")
    choose(browser, "Of", "pool web")
    choose(browser, "Time", "15 minutes")
    page.see("Waiting clients")
    browser.click("main label.check input")
    page.see("day before", "Mean, day before")
    choose(browser, "Time", "1 week")
    page.see("Compare with the week before")
    page.inspect("history")
    page.picture("history")


def sessions_are_explained(page):
    """From the list of sessions to the reason; and where a client would go now."""
    browser = page.browser
    page.open("sessions?pool=web")
    browser.click("main tbody tr:last-child a", "Explain")
    page.see("How it was selected", "Attempts to connect")
    page.inspect("explain")
    page.picture("explain")
    browser.write("input[type=search]", "192.0.2.99")
    browser.click("main button", "Explain")
    page.see("No worker remembers it")
    browser.click("summary")
    browser.write("details input[placeholder='192.0.2.7']", "192.0.2.99")
    choose(browser, "Pool or listener", "pool fleet")
    browser.click("main button", "Where would it go?")
    page.see("192.0.2.99 would go to 127.0.1.")
    choose(browser, "Pool or listener", "listener front")
    browser.click("main button", "Where would it go?")
    page.see("takes it, by client `192.0.2.0/24`", "gets 100 % of its clients")


def keyboard_alone(page):
    """The first tab stop skips the navigation, `/` finds the filter, and focus comes back."""
    browser = page.browser
    page.open("backends")
    browser.run("document.activeElement.blur(); window.focus();")
    browser.press("/")
    assert browser.run("return document.activeElement.type") == "search"
    browser.run("document.querySelector('main tbody button.link').focus()")
    browser.press("\ue007")  # Enter
    browser.one("dialog[open]")
    browser.press("\ue00c")
    back = browser.run("return document.activeElement.className")
    assert back == "link", back
    browser.run("document.querySelector('.skip').focus()")
    browser.press("\ue007")
    assert browser.run("return document.activeElement.id") == "main"


def a_fault_is_one_problem(page):
    """A pool without a usable backend is told once, with its begin; what settings cost, too."""
    browser, stage = page.browser, page.stage
    page.open("overview")
    for port in stage.web[:3]:
        stage.backends.stop(port)
    page.see("has no usable backend", "5 of 5 backends fail", where=".problems")
    told = browser.run("return document.querySelector('.problems').textContent")
    assert told.count("no usable backend") == 1 and "seen" not in told, told
    assert "reach no backend" not in told, told
    # No client here has cause to regret a setting.
    browser.run(
        """window.asked = window.fetch;
        window.fetch = async (path, options) => {
            const answer = await asked(path, options);
            if (path !== '/v1/status') return answer;
            const regrets = ['2 clients refused: a larger `queue.max` would have let them wait'];
            return new Response(JSON.stringify({ ...await answer.json(), regrets }));
        };"""
    )
    page.see("What settings have cost clients", "a larger `queue.max`")
    page.inspect("a fault")
    page.picture("fault")
    browser.run("window.fetch = window.asked;")
    browser.wait("no regrets", lambda: "queue.max" not in browser.text())
    for port in stage.web[:3]:
        stage.backends.start(port)
    browser.wait("the end of it", lambda: "no usable backend" not in browser.text(".problems"))


def a_restart_is_survived(page):
    """While the balancer is away the page says so; then it goes on, and misses no event."""
    browser, stage = page.browser, page.stage
    page.open("overview")
    page.expected.append("net::ERR_")
    stage.stop()
    page.see("The balancer does not answer")
    browser.one("#live[data-tone=bad]")
    page.picture("away")
    stage.start()
    browser.one("#live[data-tone=good]")
    page.open("events")
    page.see("`app-4` of pool `web` is down")
    first = browser.run("return performance.getEntriesByType('navigation').length")
    assert first == 1, "the page was loaded again"


def memory_is_bounded(page):
    """8 hours of answers and events, as fast as the browser takes them: nothing grows."""
    page.open("overview")
    feed = """
        const [from, count] = arguments;
        const done = arguments[arguments.length - 1];
        import('/assets/store.js').then(async ({ store, take, addEvent }) => {
            const status = structuredClone(store.status);
            const pools = structuredClone(store.pools);
            const began = Date.now() - 8 * 3600 * 1000;
            for (let s = from; s < from + count; s += 1) {
                status.accepted += 40;
                status.bytes_down += 1e6;
                for (const pool of pools) for (const one of pool.backends) one.opened += 1;
                take(status, pools, store.listeners, began + s * 1000);
                for (let n = 0; n < 4; n += 1) {
                    addEvent({ number: s * 4 + n, at: new Date(began + s * 1000).toISOString(),
                        kind: 'backend_ejected', pool: 'fleet', backend: `127.0.1.${n}:80`,
                        message: `backend ${s} of ${n} is ejected` });
                }
                if (s % 900 === 0) await new Promise((next) => setTimeout(next));
            }
            const lengths = Object.values(store.points).map((column) => column.length);
            done([store.events.length, Math.max(...lengths)]);
        }, (error) => done(String(error)));"""

    def use():
        page.browser.cdp("HeapProfiler.collectGarbage")
        heap = page.browser.cdp("Runtime.getHeapUsage")["usedSize"]
        nodes = page.browser.run("return document.getElementsByTagName('*').length")
        return heap, nodes

    hour = 3600
    page.browser.run_async(feed, 0, hour)
    before = use()
    kept = page.browser.run_async(feed, hour, 7 * hour)
    # What really comes meanwhile may end a point early.
    assert kept[0] == 500 and 890 <= kept[1] <= 900, kept
    after = use()
    assert after[0] < before[0] + 4_000_000, f"the heap grew from {before[0]} to {after[0]} B"
    assert after[1] < before[1] + 200, f"elements grew from {before[1]} to {after[1]}"
    step(f"8 hours: {before[0] / 1e6:.1f} MB after one, {after[0] / 1e6:.1f} MB after all")


def sign_out(page):
    """The token is forgotten, and nothing was stored."""
    browser = page.browser
    browser.click("#account", "Sign out")
    browser.one("form.signin")
    stored = browser.run(
        "return [localStorage.length, sessionStorage.length, document.cookie.length]"
    )
    assert stored == [0, 0, 0], stored
    assert WRITE not in browser.run("return document.documentElement.outerHTML")


def main():
    mahoraga, axe, pictures = sys.argv[1:]
    os.makedirs(pictures, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as profile:
        stage = Stage(os.path.abspath(mahoraga), directory)
        browser = clients = None
        try:
            stage.start()
            clients = Clients([stage.front, stage.front, stage.other])
            browser = Browser(os.environ.get("CHROMEDRIVER", "chromedriver"), free_port(), profile)
            browser.resize(1440, 1000)
            # What a new tab asks for is not of the page.
            browser.go("about:blank")
            browser.log("performance")
            page = Page(browser, stage, axe, pictures)
            for part in (
                sign_in, readers_change_nothing, every_view, hostile_names_stay_text,
                backends_are_ordered, bans_are_made_and_lifted, sessions_are_closed,
                events_come_live, configuration_is_read, history_is_shown,
                sessions_are_explained, keyboard_alone, memory_is_bounded,
                a_fault_is_one_problem, a_restart_is_survived, sign_out,
            ):
                step(part.__doc__)
                try:
                    part(page)
                    page.expect_quiet(part.__name__)
                except Exception:
                    page.picture("failure")
                    print(browser.text("body")[:3000], file=sys.stderr)
                    raise
            step(f"done: {len(page.requests)} requests, all of them to {stage.base}")
        finally:
            if browser:
                browser.close()
            if clients:
                clients.stop()
            stage.stop()


BEGAN = time.monotonic()
if __name__ == "__main__":
    try:
        main()
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url}: {error.code} {error.read().decode()}")
