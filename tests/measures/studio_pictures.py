"""Makes the studio's picture in the docs, of a real server in Chromium, with the model of `osjax demo`.

python -m tests.measures.studio_pictures runs/demo docs/studio.png
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.serve.server import Server

PROMPTS = (
    "a red circle moves left over a cold striped background",
    "a blue square moves up over a warm plain background",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    with Server(args.workdir.absolute(), Path(tempfile.mkdtemp()) / "served") as server, sync_playwright() as player:
        made = [server.over(server.video(prompt, seed=1)["id"], 180) for prompt in PROMPTS]
        more = {"prompt": PROMPTS[0], "seconds": 1, "video": {"id": made[0]["id"]}}
        server.over(server.ask("POST", "/v1/videos/extensions", more)[1]["id"], 180)
        chromium = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 760})
        page.goto(server.url)
        page.locator("#gallery li video").nth(2).wait_for(timeout=60_000)
        page.wait_for_timeout(2000)  # until their first frames are drawn
        page.fill("#prompt", PROMPTS[0])
        page.screenshot(path=args.picture, full_page=True)
        chromium.close()


if __name__ == "__main__":
    main()
