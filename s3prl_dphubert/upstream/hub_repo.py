"""Write a folder for the Hugging Face Hub that s3prl and the SUPERB challenge run without this package.

s3prl (``run_downstream --hub huggingface -u USER/REPO``) and the challenge's hidden-set submissions
take a repository with ``expert.py``, ``model.pt`` and ``requirements.txt``. The folder also has the code,
as a package of copies of :data:`ENTRY` and the modules that it imports.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import torch

from ..checkpoints.load import load_model
from ..checkpoints.model_card import facts, rows_of, units_table
from ..errors import CheckpointError
from ..model import ModelConfig
from ..model.cost import superb_macs
from ..utils.files import new_folder
from ..version import __version__
from . import standalone

ROOT = Path(__file__).parents[1]
ENTRY = "upstream/standalone.py"
REQUIREMENTS = {"torch": "torch>=2.8", "yaml": "pyyaml>=6"}  # import name -> line of requirements.txt
MODEL = "model.pt"  # s3prl's default of --upstream_model_name

PACKAGE = '''"""Copied from s3prl-dphubert {version}, under the Apache License 2.0, see LICENSE."""
'''
EXPERT = '''"""Upstream for s3prl and the SUPERB challenge, written by s3prl-dphubert {version}."""

import os
import sys

# The path of the link, not of its target: the Hub's cache stores the target apart from its neighbours.
FOLDER = os.path.dirname(os.path.abspath(__file__))
if FOLDER not in sys.path:
    sys.path.append(FOLDER)

from {package}.upstream import standalone  # noqa: E402


class UpstreamExpert(standalone.StandaloneExpert):
    """A list of waveforms (T,) at 16 kHz in, hidden states of every layer out.

    Args:
        ckpt: file with the weights; model.pt beside this file by default.
        model_config: YAML file with the options precision and padding.
        refresh: ignored.
        options: options that override those of the file.
    """

    def __init__(self, ckpt=None, model_config=None, refresh=False, **options):
        super().__init__(ckpt or os.path.join(FOLDER, "{model}"), model_config, refresh, **options)
'''


def export_hub(source: str | Path, target: str | Path, dtype: torch.dtype | None = None) -> Path:
    """Write the folder; it appears whole or not at all, and only if its weights can be loaded.

    Args:
        source: source of the model, as for :func:`~s3prl_dphubert.load_model`.
        target: folder that does not exist yet.
        dtype: type of the stored weights (``torch.float16`` halves the file); they are loaded in float32.

    Returns:
        ``target``.

    Raises:
        CheckpointError: ``source`` cannot be loaded, ``target`` exists or cannot be written, or a
            weight is too large for ``dtype``.
    """
    target = Path(target)
    with new_folder(target) as partial:
        model = load_model(source)
        files, requirements = sources(), imports()
        package = package_name(files)
        values = {"version": __version__, "package": package, "model": MODEL}
        added = {"LICENSE": licence(), "__init__.py": PACKAGE.format(**values)}
        (partial / package).mkdir()
        for name, text in (added | files).items():
            path = partial / package / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf8")
        (partial / "expert.py").write_text(EXPERT.format(**values), encoding="utf8")
        (partial / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf8")
        standalone.write(model, partial / MODEL, dtype)
        try:
            standalone.read(partial / MODEL)
        except CheckpointError as error:
            raise CheckpointError(f"{source} in {dtype}: {error}") from error
        (partial / "README.md").write_text(card(target.name, model.config, source, package), encoding="utf8")
    return target


def sources() -> dict[str, str]:
    """Return path below this package -> text, for :data:`ENTRY` and every module that it imports."""
    texts: dict[str, str] = {}
    queue = [ENTRY]
    while queue:
        name = queue.pop()
        if name not in texts:
            texts[name] = (ROOT / name).read_text(encoding="utf8")
            queue += _relative(name, texts[name])
    return dict(sorted(texts.items()))


def imports() -> list[str]:
    """Return the lines of requirements.txt, for the third-party packages that those modules import."""
    names = {name for text in sources().values() for name in _absolute(text)}
    return sorted(REQUIREMENTS[name] for name in names - sys.stdlib_module_names)


def package_name(files: dict[str, str]) -> str:
    """Name the package of the copies by its content, so that two folders in one process stay apart."""
    content = "\0".join(part for item in sorted(files.items()) for part in item)
    return f"dphubert_export_{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def licence() -> str:
    """Return the licence of the code, from the installed package or the checkout."""
    try:
        text = metadata.distribution("s3prl-dphubert").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    return text or (ROOT.parent / "LICENSE").read_text(encoding="utf8")


def _statements(text: str) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom))


def _absolute(text: str) -> Iterator[str]:
    """Yield the top-level names that a module imports from outside its package."""
    for node in _statements(text):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif not node.level:
            yield (node.module or "").partition(".")[0]


def _relative(name: str, text: str) -> Iterator[str]:
    """Yield the files that a module imports from its package, and the ``__init__.py`` above them."""
    for node in _statements(text):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        home = PurePosixPath(name).parents[node.level - 1].joinpath(*(node.module or "").split("."))
        candidates = [home, *(home / alias.name for alias in node.names)]
        for candidate in candidates:
            if (ROOT / candidate).with_suffix(".py").is_file():
                yield str(candidate.with_suffix(".py"))
            elif (ROOT / candidate).is_dir() and candidate.parts:
                yield str(candidate / "__init__.py")
    yield from (str(parent / "__init__.py") for parent in PurePosixPath(name).parents if parent.parts)


def card(title: str, config: ModelConfig, source: str | Path, package: str) -> str:
    """Return the model card of the folder; a source on this machine appears by its name alone."""
    origin = Path(source).resolve().name if Path(source).exists() else str(source)
    macs = superb_macs(config)
    rows = facts(config) | {f"SUPERB MACs, {bucket}": f"{count:,}" for bucket, count in macs.items()}
    stride = f"{config.stride} samples ({config.stride / 16:g} ms at 16 kHz)"
    states = f"{config.num_layers + 1} of width {config.embed_dim}: the feature projection, then each layer"
    rows |= {"stride": stride, "hidden states": states, "made from": origin}
    return CARD.format(
        title=title,
        version=__version__,
        table=rows_of(rows),
        units=units_table(config),
        package=package,
        model=MODEL,
    )


CARD = """---
library_name: s3prl
tags:
- library:s3prl
- benchmark:superb
- type:model
- speech
# license: yours to choose, see below
---

# {title}

A speech encoder as an upstream of [s3prl](https://github.com/s3prl/s3prl), written by
s3prl-dphubert {version}.

| | |
|---|---|
{table}

## Units

{units}

## Use

Put this folder onto the Hub with `hf upload USER/REPO THIS-FOLDER`. With s3prl:

```sh
python -m s3prl.run_downstream --hub huggingface -u USER/REPO -m train -d voxceleb1 -c CONFIG -n NAME
```

s3prl 0.4.18 logs in to the Hub in a way that is gone from huggingface_hub; where s3prl-dphubert is
installed beside it, this is repaired. Nothing else here needs s3prl-dphubert. Without s3prl:

```python
import sys

import torch
from huggingface_hub import snapshot_download

folder = snapshot_download("USER/REPO")
sys.path.append(folder)
from expert import UpstreamExpert

upstream = UpstreamExpert(f"{{folder}}/{model}").eval()
with torch.no_grad():
    hidden = upstream([torch.randn(16_000)])["hidden_states"]  # waveforms (T,) in, (B, F, D) out
```

It needs Python 3.10 or later and the packages in `requirements.txt`. Options, in a YAML file (`-g FILE`)
or as keywords: `precision` (`fp32`, `bf16`, `fp16`) and `padding` (`batch`: as the published models were
evaluated; `exact`: every utterance gets the hidden states that it has alone).

## Licence

The code in `{package}` and `expert.py` is under the Apache License 2.0.
**The licence of the weights is yours to choose**, within those of the model that they were made from and
of its data. State it here and as `license:` at the top of this file.
"""
