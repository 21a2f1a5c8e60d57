"""Pages of the site that lie elsewhere or are made of the code, for `hooks` of mkdocs.yml.

README.md becomes the first page, launch/README.md, osjax/models/README.md and CONTRIBUTING.md pages of their own. The
API has a page of the public names and one for every floor of the import contract in pyproject.toml, with its modules.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "README.md": "index.md",
    "launch/README.md": "launch.md",
    "osjax/models/README.md": "models.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE",
}
# What `import osjax` gives, in the order in which a reader meets it.
PUBLIC = {
    "Sample": {
        "Pipeline.from_checkpoint": "osjax.parts.pipeline.from_checkpoint",
        "Pipeline.from_config": "osjax.parts.pipeline.from_config",
        "Pipeline": "osjax.sampling.pipeline.Pipeline",
        "SampleSettings": "osjax.sampling.settings.SampleSettings",
        "Sample": "osjax.sampling.sample.Sample",
    },
    "Configs, plans, errors": {
        "load_config": "osjax.parts.config.load",
        "plan": "osjax.planning.api.plan",
        "errors.UserError": "osjax.errors.UserError",
    },
}
INTRODUCTION = """# Public names

`import osjax` gives `Pipeline`, with `Pipeline.from_checkpoint` and `Pipeline.from_config`, `SampleSettings`, `Sample`,
`load_config`, `plan`, `build`, and the modules [`models`](models.md) and [`weights`](weights.md). They are loaded on
first use. [From Python](../index.md#from-python) shows them at work. What the constructors take by keyword is on the
page of [sampling](sampling.md), as `RunOptions` and `Options`. All else is below, floor by floor: it may change with
any version. Every config key is a field of a class whose name ends in `Keys`, on the page of [parts](parts.md), or of a
dataclass that such a field names.
"""


def floors() -> list[str]:
    """Folders and modules of osjax from the top of the house to its bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name for layer in layers for name in re.findall(r"\w+", layer) if not name.startswith("_")]


def modules(floor: str) -> Iterator[str]:
    """Dotted names of the modules of a floor that hold something, its folder's own first."""
    top = ROOT / "osjax" / floor
    for path in sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name != "__init__.py":
            yield ".".join(parts)
        elif path.read_text().strip():
            yield ".".join(parts[:-1])


def shown(name: str, **options: object) -> str:
    """The directive that puts the documentation of a dotted name on a page."""
    lines = [
        f"::: {name}",
        "    options:",
        "      heading_level: 3",
        *(f"      {key}: {value}" for key, value in options.items()),
    ]
    return "\n".join(lines) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the API's pages under their heading."""
    api = next(entry for entry in config.nav if "API" in entry)
    api["API"] = ["api/index.md", *(f"api/{floor}.md" for floor in floors())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for path, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=moved((ROOT / path).read_text(), path)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):  # to download
        files.append(File.generated(config, f"notebooks/{path.name}", content=path.read_text()))
    page = INTRODUCTION
    for title, names in PUBLIC.items():
        parts = [shown(name, heading=f"osjax.{public}", toc_label=public) for public, name in names.items()]
        page += f"\n## {title}\n\n" + "\n".join(parts)
    files.append(File.generated(config, "api/index.md", content=page))
    for floor in floors():
        page = f"# {floor}\n\n" + "\n".join(
            f"## {name}\n\n"
            + shown(name, show_submodules="false", show_root_heading="false", show_root_toc_entry="false")
            for name in modules(floor)
        )
        files.append(File.generated(config, f"api/{floor}.md", content=page))
    return files


def moved(text: str, path: str) -> str:
    """A page with its links to files of the repository turned to pages of the site. path: where it lies."""

    def link(match: re.Match) -> str:
        target, _, anchor = match[1].partition("#")
        if ":" in target or not target:
            return match[0]
        file = (ROOT / path).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
        page = ELSEWHERE.get(file) or file.removeprefix("docs/")
        return f"]({page}#{anchor})" if anchor else f"]({page})"

    return re.sub(r"\]\(([^)]+)\)", link, text)


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """The same for pages of docs/ that name files outside of it."""
    path = f"docs/{page.file.src_uri}"
    return moved(markdown, path) if (ROOT / path).exists() and "../" in markdown else markdown
