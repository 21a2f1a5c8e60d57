"""A command on a CPU starts again with huge pages, once, and only where that changes something."""

import json
import os
import subprocess
import sys

import pytest

from osjax.cli import huge_pages

MADVISE, GLIBC = "always [madvise] never", "glibc 2.36"


def test_the_tunable_is_added_to_those_that_are_there():
    assert huge_pages.environment({"HOME": "/h"}, MADVISE, GLIBC) == {
        "HOME": "/h",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    found = huge_pages.environment({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, MADVISE, GLIBC)
    assert found["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    "now, setting, libc",
    [
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, MADVISE, GLIBC),  # the user said no
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, MADVISE, GLIBC),  # started again already
        ({}, "[always] madvise never", GLIBC),
        ({}, "always madvise [never]", GLIBC),
        ({}, MADVISE, "glibc 2.31"),
        ({}, MADVISE, "musl 1.2"),
        ({"JAX_PLATFORMS": "cuda"}, MADVISE, GLIBC),
    ],
)
def test_it_starts_once_where_nothing_would_change(now, setting, libc):
    assert huge_pages.environment(now, setting, libc) is None


@pytest.mark.skipif(
    not huge_pages.SETTING.exists() or "[madvise]" not in huge_pages.SETTING.read_text(), reason="no such pages here"
)
@pytest.mark.parametrize("start", [["-m", "script"], ["script.py"]])
def test_a_command_goes_on_in_the_same_process_with_its_arguments(tmp_path, start):
    (tmp_path / "script.py").write_text(
        "import json, os, sys\nfrom osjax.cli import huge_pages\nhuge_pages.ask()\n"
        "print(json.dumps([os.getpid(), os.environ['GLIBC_TUNABLES'], sys.argv[1:]]))\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    command = [sys.executable, *start, "a b", "--c=1"]
    process = subprocess.Popen(command, cwd=tmp_path, env=clean, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out) == [process.pid, "glibc.malloc.hugetlb=1", ["a b", "--c=1"]]
