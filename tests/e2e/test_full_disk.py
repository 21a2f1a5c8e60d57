"""Every writer on a disk that fills up, and on one that is write-protected: one line, nothing half-made, then on."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from osjax.__main__ import main
from osjax.curation import tables
from osjax.data import clips
from osjax.weights import orbax_stream
from osjax.weights.rules import whole
from tests.cli.test_convert import CONFIG, fields
from tests.models.test_mmdit import tensors
from tests.sampling import trained

pytestmark = pytest.mark.timeout(600)
FREE = [f"--config.probe.{name}=0" for name in ("min_seconds", "min_bits_per_pixel", "min_fps")]
PROBE = ["--config.limits.workers=1", "--config.probe.drop_profiles=()", *FREE]
CUT = ["--config.steps=probe,cut,stats", "--config.cut.min_seconds=0.5"]
# Command lines with {given} for the folder of what they read, and {disk} for where they write.
WRITERS = {
    "sample": ["sample", "--prompt=a", "--prompt=b", "--workdir={given}/run", "--output={disk}/out"],
    "report": ["report", "{disk}/run"],
    "run": ["data", "run", "--config.source={given}/videos", "--config.out={disk}/out", *CUT, *PROBE],
    "build": ["data", "build", "{given}/videos", "{disk}/out"],
    "checkpoint": ["convert", "--config={given}/m.py", "{given}/in.safetensors", "{disk}/out", "--model=video"],
    "file": ["convert", "--config={given}/m.py", "{given}/ckpt", "{disk}/out.safetensors", "--model=video"],
    "folder": ["convert", "--config={given}/m.py", "{given}/ckpt", "{disk}/o", "--model=video", "--to=safetensors"],
}
ANEW = (
    "_CHECKPOINT_METADATA",
    "done.json",
    "manifest.ocdbt",
    ".html",
    "out.seals/0.json",
)  # times, random names, sums of these
LINES = [{"stage": "a", "step": n, "loss": 1.0, "steps_per_s": 2.0} for n in range(50)]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the writers read."""
    folder = tmp_path_factory.mktemp("given")
    trained.write(folder / "run")
    clips.write_clips(folder / "videos", clips.specs(4, 0, clips.combinations()), 64, 24, 12)
    (folder / "videos" / "clips.csv").unlink()
    for number in range(4):
        (folder / "videos" / f"0000{number}.txt").write_text("a clip")
    values = {"video": fields("mmdit_a"), "flux": fields("mmdit_b"), "ae": fields("dcae_tiny")}
    (folder / "m.py").write_text(CONFIG.format(**{name: repr(value) for name, value in values.items()}))
    save_file(tensors("mmdit_a"), folder / "in.safetensors", {"format": "pt"})
    argv = ["convert", f"--config={folder / 'm.py'}", folder / "in.safetensors", folder / "ckpt", "--model=video"]
    assert main([*map(str, argv)]) == 0
    return folder


def run(writer, given, disk):
    return main([word.format(given=given, disk=disk.place) for word in WRITERS[writer]])


def prepare(writer, disk):
    if writer == "report":
        (disk.place / "run").mkdir()
        (disk.place / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))


def contents(disk):
    """What lies there, without what differs from run to run: arrays of checkpoints by their values."""
    files = {str(p.relative_to(disk.place)): p for p in sorted(disk.place.rglob("*")) if p.is_file()}
    found = {name: p.read_bytes() for name, p in files.items() if not name.endswith(ANEW) and "/d/" not in name}
    for name in [name for name in files if name.endswith("params/_METADATA")]:
        leaves = orbax_stream.open_leaves(files[name].parent)
        found |= {f"{name} {path}": leaves.read(path, whole(shape)).tobytes() for path, shape in leaves.shapes.items()}
    return found


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_leaves_nothing_half_made_and_the_same_command_ends_with_the_same_bits(
    writer, given, disk, capfd
):
    disk.mount(400_000)
    prepare(writer, disk)
    before = disk.used()
    assert run(writer, given, disk) == 0
    used, undisturbed = disk.used() - before, contents(disk)
    disk.close()
    for share in (0.0, 0.7):
        disk.mount(400_000)
        prepare(writer, disk)
        disk.mount(before + max(4, int(used * share) // 4 * 4))
        capfd.readouterr()
        assert run(writer, given, disk) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("osjax: ")]
        assert len(lines) == 1 and "space" in lines[0].lower(), lines
        half = [p for p in disk.place.rglob("*") if p.name.endswith(".part") or "tmp" in p.name or ".osjax" in p.name]
        assert not half
        disk.mount(400_000)
        assert run(writer, given, disk) == 0
        assert contents(disk) == undisturbed
        disk.close()


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_is_write_protected_is_one_line(writer, given, disk, capfd):
    disk.mount(4000)
    prepare(writer, disk)
    disk.mount(4000, "ro")
    capfd.readouterr()
    assert run(writer, given, disk) in (1, 2)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith(f"osjax: {disk.place}"), lines
    assert "cannot be written" in lines[0] and ".part" not in lines[0]


def test_a_table_of_shards_that_a_full_disk_cut_off_is_named(tmp_path):
    """Which whole writes rule out here, but not a disk that loses what it was given."""
    tables.write(tmp_path / "t.parquet", [{"path": "a", "text": "b", "n": np.arange(9).tolist()}] * 50)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(tables.UserError, match="t.parquet is damaged .*: delete it"):
        tables.read(tmp_path / "t.parquet")
