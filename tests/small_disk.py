"""Small disks of one's own, to fill up and to write-protect."""

import os
import subprocess
import time
from pathlib import Path

import pytest


class SmallDisk:
    """A disk in memory at `place`. It must be closed."""

    def __init__(self, place: Path):
        self.place = place
        place.mkdir()

    def mount(self, kilobytes: int, *options: str) -> Path:
        """Give it this size; what is on it stays. Skips the test where this process may not."""
        asked = [f"size={kilobytes}k", *options, *(["remount"] if self.place.is_mount() else [])]
        command = ["mount", "-t", "tmpfs", "-o", ",".join(asked), "tmpfs", str(self.place)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk takes root")
        return self.place

    def used(self) -> int:
        """Kilobytes that are taken."""
        state = os.statvfs(self.place)
        return (state.f_blocks - state.f_bfree) * state.f_frsize // 1024

    def close(self) -> None:
        for _ in range(50):  # processes that were killed may hold it for a moment
            if not self.place.is_mount() or not subprocess.run(["umount", self.place], capture_output=True).returncode:
                return
            time.sleep(0.1)
