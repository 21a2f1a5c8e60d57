"""Data sets of others: what their files name is never imported, and what was damaged is not read as something else."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from osjax.data import clips, dataset, schema
from osjax.errors import UserError

ROOT = Path(__file__).parents[2]
CODE = "from pathlib import Path\nPath('ran').touch()\n"
OPEN = "from osjax.data import dataset\nimport sys\ndataset.open_source(sys.argv[1])"
TFDS_ALONE = "import tensorflow_datasets as tfds, sys\ntfds.builder_from_directory(sys.argv[1])"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set of three clips."""
    folder = tmp_path_factory.mktemp("set")
    path = clips.write_clips(folder / "clips", clips.specs(3, 0, clips.combinations()), 32, 8, 8)
    rows = [{"path": str(p), "text": p.stem} for p in sorted(path.parent.glob("*.mp4"))]
    about = {"num_frames": 8, "height": 32, "width": 32, "fps": 8.0}
    return dataset.build_clips([{**row, **about} for row in rows], folder / "built")


@pytest.fixture
def folder(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def rewrite(folder, name, change):
    """A file of a data set with another content, and no fingerprints, as another tool might have made it."""
    (folder / "fingerprints.json").unlink(missing_ok=True)
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def run(code, folder):
    """Whether the module `evil`, in the folder above, ran when a process opened a data set; and what it said."""
    (folder.parent / "evil.py").write_text(CODE)
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = ['.', {str(ROOT)!r}]\n{code}", str(folder)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=120)
    return (folder.parent / "ran").exists(), done.stderr.strip().splitlines()[-1:]


def in_place(name, value):
    return lambda features: features["featuresDict"]["features"]["text"].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        in_place("pythonClassName", "evil.Feature"),
        in_place("python_class_name", "evil.Feature"),
        lambda features: features.update(pythonClassName="evil.Feature"),
        lambda features: features.update(type="evil.Feature", content={}),
    ],
)
def test_a_class_that_a_data_set_names_is_not_imported(change, folder):
    rewrite(folder, schema.FEATURES, change)
    ran, (words,) = run(OPEN, folder)
    assert not ran and words.startswith("osjax.errors.UserError") and "features.json is not such as" in words


def test_the_control_tfds_alone_imports_it(folder):
    rewrite(folder, schema.FEATURES, in_place("pythonClassName", "evil.Feature"))
    assert run(TFDS_ALONE, folder)[0]


@pytest.mark.parametrize(
    "name, change, words",
    [
        (schema.INFO, lambda info: info.update(fileFormat="tfrecord"), "fileFormat is 'tfrecord'"),
        (schema.INFO, lambda info: info["splits"][0].update(filepathTemplate="../{SPLIT}"), "files are called"),
        (schema.INFO, lambda info: info["splits"][0].update(name="test"), "its split is 'test'"),
        (schema.INFO, lambda info: info["splits"][0].update(shardLengths=["1e9"]), "'1e9' is no number"),
        (schema.INFO, lambda info: info["splits"][0].update(shardLengths=[]), "of no shard"),
        (schema.INFO, lambda info: info.update(name="../x"), "name is '../x'"),
        (schema.INFO, lambda info: info.update(schema={}), "it has 'schema'"),
        (schema.FEATURES, in_place("tensor", {"dtype": "string"}), "it has 'tensor'"),
        (schema.FEATURES, lambda f: f["featuresDict"].update(more=1), "it has 'more'"),
        (schema.FEATURES, lambda f: f.clear(), "it names the class None"),
    ],
)
def test_what_osjax_does_not_write_is_refused_with_its_name(name, change, words, folder):
    rewrite(folder, name, change)
    with pytest.raises(UserError, match=f"{name} is not such as .*{words}") as error:
        dataset.open_source(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [schema.FEATURES, schema.INFO])
def test_files_that_are_nested_without_end_or_huge_are_refused(name, folder):
    (folder / "fingerprints.json").unlink()
    (folder / name).write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        dataset.open_source(folder)
    with (folder / name).open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UserError, match="8589934592 bytes"):
        dataset.open_source(folder)


def told(folder):
    """All that training sees of a data set: its index, its identity and its records."""
    source = dataset.open_source(folder)
    records = [{k: np.asarray(v).tobytes() for k, v in source[i].items()} for i in range(len(source))]
    return np.asarray(source.index()).tobytes(), source.identity(), records


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_copy_is_read_as_it_was_or_not_at_all(seed, built, tmp_path):
    rng, whole, refused = random.Random(seed), told(built), 0
    for n in range(40):
        folder = Path(shutil.copytree(built, tmp_path / str(n)))
        path = rng.choice([p for p in sorted(folder.iterdir()) if p.name != "README.md"])
        data = bytearray(path.read_bytes())
        match rng.randrange(3):
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[rng.randrange(len(data)) :]
            case 2:
                at = rng.randrange(len(data))
                data[at : at + 8] = rng.randbytes(8)
        path.write_bytes(data)
        try:
            assert told(folder) == whole or path.name == "fingerprints.json", path.name
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10
