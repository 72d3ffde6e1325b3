"""Pictures of the demo's pages in a browser (`eval/app_load.py --screenshots`)."""

from __future__ import annotations

import shutil
from pathlib import Path

CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def screenshots(address: str, folder: Path, drawn: bool) -> None:
    """Pictures of the Ask, Guidance and Refine tabs, and of the Ask tab on a phone in the dark; of photographs, whose
    right answers nobody has typed yet, of the Ask tab alone."""
    from playwright.sync_api import sync_playwright

    chromium = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if chromium is None:
        raise RuntimeError("no Chromium on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        tabs = [
            ("app_guidance", "light", DESKTOP, "Guidance", "#guide", "#plane svg"),
            ("app_refine", "light", {"width": 1280, "height": 1180}, "Refine", "#refine", "#refined .qa-card"),
        ]
        app = "app" if drawn else "app_photos"
        for name, theme, size, tab, button, shown in (
            (app, "light", DESKTOP, None, None, ".qa-card"),
            *(tabs if drawn else []),
            (f"{app}_phone", "dark", PHONE, None, None, ".qa-card"),
        ):
            page = browser.new_page(viewport=size)
            page.goto(f"{address}/?__theme={theme}")
            page.wait_for_selector(".qa-card", timeout=60_000)
            if tab is not None:
                page.get_by_role("tab", name=tab).click()
                page.click(button)
                page.wait_for_selector(shown, timeout=60_000)
            page.wait_for_timeout(3000)  # ways through the plane are drawn slowly
            if size == PHONE:
                page.evaluate("document.querySelector('[id$=ask-question]').scrollIntoView()")  # of the first world
            page.screenshot(path=folder / f"{name}.png")
            print(f"wrote {folder / name}.png")
            page.close()
        browser.close()
