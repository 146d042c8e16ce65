"""One file of code for a checkpoint that transformers opens, made of the definitions that it needs.

transformers copies the file beside the weights and runs it where ``trust_remote_code=True`` allows that. So
that it computes what this package computes, it holds the same classes: those of
:mod:`~.modeling_dphubert` and, word for word, whatever they use of ``model/``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path, PurePosixPath

from ..version import __version__

ROOT = Path(__file__).parents[1]
ENTRY = "modeling/modeling_dphubert.py"
FILE = Path(ENTRY).name
REPLACED = {"ModelConfig": "DPHubertConfig"}  # our configuration -> the one that transformers reads
AUTO_MAP = {
    "AutoConfig": "DPHubertConfig",
    "AutoModel": "DPHubertModel",
    "AutoModelForCTC": "DPHubertForCTC",
    "AutoModelForAudioClassification": "DPHubertForSequenceClassification",
}
EXTRACTOR, PIPELINE = "DPHubertFeatureExtractor", "DPHubertFeatureExtractionPipeline"

HEADER = '''"""DPHubert for transformers: AutoModel.from_pretrained(FOLDER, trust_remote_code=True).

Made of the source of s3prl-dphubert {version}, under the Apache License 2.0.
"""

from __future__ import annotations

{imports}
'''


@cache
def modeling_file() -> str:
    """Return the text of the file; it imports torch and transformers, and what those need."""
    definitions = _Definitions()
    for name in _Module.read(ENTRY).nodes:
        definitions.add(ENTRY, name)
    parts = [HEADER.format(version=__version__, imports=definitions.imports()), *definitions.texts()]
    text = "\n\n".join(parts)
    for ours, theirs in REPLACED.items():
        text = re.sub(rf"\b{ours}\b", theirs, text)
    return text + "\n"


def auto_config() -> dict[str, object]:
    """Return the fields of ``config.json`` that lead transformers to the classes of the file."""
    stem = Path(FILE).stem
    pipeline = {"impl": f"{stem}.{PIPELINE}", "pt": ["AutoModel"], "type": "audio"}
    return {
        "architectures": [AUTO_MAP["AutoModel"]],
        "dtype": "float32",  # to load in, also where the weights are stored in half precision
        "auto_map": {auto: f"{stem}.{name}" for auto, name in AUTO_MAP.items()},
        "custom_pipelines": {"feature-extraction": pipeline},
    }


def preprocessor_config(normalize: bool, eps: float, sample_rate: int) -> dict[str, object]:
    """Return ``preprocessor_config.json``.

    Args:
        normalize: scale waveforms to zero mean and unit variance.
        eps: added to the variance by then.
        sample_rate: of the waveforms, in Hz.
    """
    return {
        "feature_extractor_type": EXTRACTOR,
        "auto_map": {"AutoFeatureExtractor": f"{Path(FILE).stem}.{EXTRACTOR}"},
        "do_normalize": normalize,
        "normalize_eps": eps,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": sample_rate,
    }


class _Module:
    """Definitions and imports at the top of a module of this package.

    Args:
        nodes: name -> its definition.
        relative: imported name -> module of this package, as a path, that defines it.
        absolute: imported name -> import statement of it alone.
        text: source.
    """

    def __init__(self, path: str) -> None:
        self.text = (ROOT / path).read_text(encoding="utf8")
        self.nodes: dict[str, ast.stmt] = {}
        self.relative: dict[str, str] = {}
        self.absolute: dict[str, tuple[str, str]] = {}
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.nodes[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self.nodes |= {each.id: node for each in ast.walk(target) if isinstance(each, ast.Name)}
            elif isinstance(node, ast.ImportFrom) and node.level:
                home = PurePosixPath(path).parents[node.level - 1].joinpath(*(node.module or "").split("."))
                self.relative |= {alias.name: f"{home}.py" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = f"from {node.module} import "
                self.absolute |= {a.asname or a.name: (source, _alias(a)) for a in node.names}
            elif isinstance(node, ast.Import):
                self.absolute |= {a.asname or a.name: ("import ", _alias(a)) for a in node.names}

    @staticmethod
    @cache
    def read(path: str) -> _Module:
        """Parse a module once."""
        return _Module(path)

    def source(self, node: ast.stmt) -> str:
        """Return the text of a definition, with its decorators."""
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        return "\n".join(self.text.splitlines()[first - 1 : node.end_lineno])


class _Definitions:
    """The definitions that some names need, each module's in the order of its source."""

    def __init__(self) -> None:
        self.needed: dict[str, set[str]] = {}  # module -> names
        self.absolute: set[tuple[str, str]] = set()

    def add(self, path: str, name: str) -> None:
        """Add a definition of a module and all that it uses."""
        module = _Module.read(path)
        if name in REPLACED or name in self.needed.get(path, ()):
            return
        self.needed.setdefault(path, set()).add(name)
        names = {each.id for each in ast.walk(module.nodes[name]) if isinstance(each, ast.Name)}
        for used in sorted(names):
            if used in module.relative:
                self.add(module.relative[used], used)
            elif used in module.absolute:
                self.absolute.add(module.absolute[used])
            elif used in module.nodes:
                self.add(path, used)

    def imports(self) -> str:
        """Return the import statements of what is not in this package."""
        names = defaultdict(list)
        for source, name in sorted(self.absolute, key=lambda each: (each[0] != "import ", *each)):
            names[source].append(name)
        plain = [f"import {name}" for name in names.pop("import ", [])]
        return "\n".join(plain + [_wrapped(source, every) for source, every in names.items()])

    def texts(self) -> list[str]:
        """Return the definitions, those that others need first, under comments that name their modules."""
        texts = []
        for path in sorted(self.needed, key=self._depth):
            module = _Module.read(path)
            nodes = {module.nodes[name] for name in self.needed[path]}
            ordered = sorted(nodes, key=lambda node: node.lineno)
            texts.append(f"# From s3prl_dphubert/{path}\n\n" + module.source(ordered[0]))
            texts += [module.source(node) for node in ordered[1:]]
        return ["\n" + text if text.startswith(("class", "def", "@")) else text for text in texts]

    def _depth(self, path: str) -> int:
        """Return the number of modules on the longest way of imports from a module."""
        others = {other for other in _Module.read(path).relative.values() if other in self.needed}
        return 1 + max(map(self._depth, others), default=0)


def _alias(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _wrapped(source: str, names: list[str]) -> str:
    line = source + ", ".join(names)
    return line if len(line) <= 110 else f"{source}(\n    " + ",\n    ".join(names) + ",\n)"
