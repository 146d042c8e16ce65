"""The file of code that is written beside the weights: whole, alone, and the package's own text."""

from __future__ import annotations

import ast
import inspect

from s3prl_dphubert.model import masks, speech_model, transformer
from s3prl_dphubert.modeling.single_file import (
    AUTO_MAP,
    EXTRACTOR,
    FILE,
    PIPELINE,
    auto_config,
    modeling_file,
)
from s3prl_dphubert.utils import resources
from s3prl_dphubert.version import __version__


def classes() -> set[str]:
    return {node.name for node in ast.parse(modeling_file()).body if isinstance(node, ast.ClassDef)}


def test_it_imports_torch_and_transformers_and_what_those_need():
    imported = set()
    for node in ast.walk(ast.parse(modeling_file())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    standard = {"__future__", "collections", "dataclasses", "math", "typing"}
    assert imported - standard == {"numpy", "torch", "transformers"}


def test_its_classes_are_those_that_config_json_names():
    named = {reference.removeprefix("modeling_dphubert.") for reference in auto_config()["auto_map"].values()}
    assert named == set(AUTO_MAP.values())
    assert named | {EXTRACTOR, PIPELINE} <= classes()


def test_definitions_are_copied_word_for_word_and_only_those_in_use():
    text = modeling_file()
    assert __version__ in text.splitlines()[2]
    for part in (
        transformer.Attention,
        transformer.RelativePositions,
        masks.Masks,
        speech_model.frame_lengths,
    ):
        assert inspect.getsource(part).replace("ModelConfig", "DPHubertConfig") in text + "\n"
    assert "ModelConfig" not in text.replace("DPHubertConfig", "")
    assert not {"SpeechModel", "ConfigError"} & classes()


def test_the_file_beside_the_weights_that_ship_is_todays():
    assert (resources.find("assets/hubert_mini") / FILE).read_text() == modeling_file(), "run `make pages`"


def test_what_is_used_is_defined_above_it():
    """Base classes, decorators and defaults are looked up while the file runs from top to bottom."""
    seen: set[str] = set()
    tree = ast.parse(modeling_file())
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {each.id for base in node.bases for each in ast.walk(base) if isinstance(each, ast.Name)}
            assert bases & names <= seen, node.name
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            seen.add(node.name)
    assert len(seen) > 20
