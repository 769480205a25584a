"""Takes the pictures of docs/review.md: `.venv/bin/python -m tests.page.pictures`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import which

from playwright.sync_api import sync_playwright

from tests.page.local import LocalDesk, token_of

FOLDER = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    """Write one picture of a desktop in light colours, and one of a phone in dark colours."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        desk = LocalDesk(Path(folder), undo_s=8)
        desk.add(1, text="see you at the game tonight", context=[], tenant_id="arcade")
        desk.add(
            2,
            tenant_id="arcade",
            text="I know where you live. Open \u202egnp.ofni\u202c and you will see your door.",
            context=[{"role": "user", "text": "leave me alone"}, {"role": "user", "text": "you started it"}],
        )
        desk.add(3, text="سأجدك أينما كنت، وسوف تندم على ذلك.", language="ar", context=[], tenant_id="campus")
        browser = playwright.chromium.launch(
            executable_path=which("chromium") or "/usr/bin/chromium", args=["--no-sandbox"]
        )
        with desk.served() as address:
            for name, scheme, width, height, tenant in (
                ("desktop", "light", 1100, 760, "arcade"),
                ("phone", "dark", 390, 700, "campus"),
            ):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]  # a literal
                page = context.new_page()
                page.goto(f"{address}/review/")
                page.get_by_label("Your token").fill(token_of("mara" if tenant == "arcade" else "jonas"))
                page.keyboard.press("Enter")
                page.get_by_role("button", name=f"Next item of {tenant}").click()
                page.wait_for_selector("#decide")
                page.keyboard.press("v")
                if tenant == "arcade":
                    page.keyboard.press("a")
                    page.wait_for_selector(".notice")
                    page.keyboard.press("v")
                page.screenshot(path=FOLDER / f"review-{name}.png")
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
