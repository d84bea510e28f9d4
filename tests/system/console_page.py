"""A browser in front of the console, as its tests use it: widths, colours, keys, and axe."""

import importlib.metadata
import json
from functools import cache

from tests.journeys.console.console_world import PASSWORD
from tests.system.chromium import Chromium
from tests.waiting import until

WIDE, NARROW = 1280, 375
_STANDARD = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_RUN_AXE = """
axe.run(document, {runOnly: {type: 'tag', values: %s}, resultTypes: ['violations']})
  .then((found) => found.violations.flatMap((rule) =>
    rule.nodes.map((node) => `${rule.id}: ${node.target.join(' ')} ${node.failureSummary}`)))
"""
_CENTRE = """
(() => {
  const found = [...document.querySelectorAll(%s)].find((one) => one.checkVisibility());
  if (!found) return null;
  found.scrollIntoView({block: 'center', behavior: 'instant'});
  const box = found.getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const top = document.elementFromPoint(x, y);
  return {x, y, hits: top === found || found.contains(top)};
})()
"""
_OVER = """
document.readyState === 'complete'
  && !(window.isUnderWay ||= !document.querySelector('[data-over]')) && document.body.innerText
"""
"""The page of a command is loaded once more when the command ends."""
_CODES = {"Enter": 13, "Tab": 9, "Escape": 27}
_SHIFT = 8


@cache
def _axe():
    found = importlib.metadata.distribution("axe-playwright-python")
    return found.locate_file("axe_playwright_python/axe.min.js").read_text("utf-8")


class ConsolePage(Chromium):
    """A page of the console in a browser of its own."""

    def __init__(self, folder, world, name="ann"):
        super().__init__(folder, WIDE)
        self.world, self.name = world, name

    def __enter__(self):
        super().__enter__()
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=_axe())
        self.sign_in_here()
        return self

    def sign_in_here(self):
        """Sign in with the form, by keys."""
        self.open(f"{self.world.url}/login")
        self.focus_on("#name")
        self.type(self.name)
        self.press("Tab")
        self.type(PASSWORD)
        self.press("Enter")
        until(lambda: self.evaluate("!!document.querySelector('nav')"))

    def shape(self, width=WIDE, scheme="light", height=860):
        """Give the page a width, and a person's choice of light or dark."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def violations(self):
        """Return what axe finds against WCAG 2.2 AA and good practice, one a line."""
        return "\n".join(self.evaluate(_RUN_AXE % list(_STANDARD)))

    def go(self, path):
        """Open an address of the console."""
        return self.open(self.world.url + path)

    def path(self):
        """Return the address without its host."""
        return self.evaluate("location.pathname + location.search")

    def leaving(self):
        """Mark the page, so that `until_at` waits for another of the same address."""
        self.evaluate("window.isLeft = true")

    def until_at(self, begin):
        """Wait until a page whose address begins like this has been loaded."""
        until(
            lambda: (
                not self.evaluate("window.isLeft")
                and self.path().startswith(begin)
                and self.evaluate("document.readyState") == "complete"
            )
        )

    def click(self, selector):
        """Click on the first such element that a person can see."""
        found = self.evaluate(_CENTRE % json.dumps(selector))
        assert found, f"There is no {selector!r} to click on: {self.text()}"
        assert found["hits"], f"Something lies over {selector!r}."
        given = {"x": found["x"], "y": found["y"], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **given)

    def until_over(self):
        """Wait until the command that was started has ended; returns the text of its page."""
        self.until_at("/acts/")
        return until(lambda: self.evaluate(_OVER))

    def type(self, text):
        """Type a text where the focus is."""
        self.ask("Input.insertText", text=text)

    def press(self, *keys):
        """Press keys one after the other; `Shift+` may stand before one."""
        for pressed in keys:
            key = pressed.removeprefix("Shift+")
            code = _CODES.get(key, ord(key[0].upper()))
            text = {"text": "\r"} if key == "Enter" else {} if len(key) > 1 else {"text": key}
            given = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            if key != pressed:
                given["modifiers"] = _SHIFT
            self.ask("Input.dispatchKeyEvent", type="keyDown", **given, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **given)

    def focus_on(self, selector):
        """Go by Tab until such an element has the focus."""
        seen = []
        for _ in range(200):
            if self.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
            seen.append(self.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
            self.press("Tab")
        raise AssertionError(f"No Tab leads to {selector!r}, but to {list(dict.fromkeys(seen))}.")
