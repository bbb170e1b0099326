"""The classes say in their signatures what the registry says of their versions."""

import inspect
import re
import sys
import typing
import warnings
from pathlib import Path

import pytest

from emo_hf import kernels, registry, versions
from emo_hf.errors import OptionError
from scripts import families as script
from tests.optimizer_contract import every_row, make_params

ROOT = Path(__file__).parents[1]
ROWS = (*registry.specs(), *registry.EXPERIMENTS)
every_family = pytest.mark.parametrize("family", registry.families())


def specs_of(family):
    return [spec for spec in ROWS if spec.name == family]


def parameters(family):
    """The options in the signature, without what is no option."""
    found = dict(inspect.signature(registry.optimizer_class(family)).parameters)
    assert [*found][:3] == ["params", "lr", "version"]
    assert [*found][-2:] == ["writer", "unknown"]
    assert found["params"].default is inspect.Parameter.empty
    assert found["version"].default is found["writer"].default is None
    assert found["unknown"].kind is inspect.Parameter.VAR_KEYWORD
    return {name: each for name, each in found.items() if name not in ("params", "version", "writer", "unknown")}


def documented(family):
    """Argument -> its text in the docstring."""
    doc = inspect.getdoc(registry.optimizer_class(family))
    block = doc.partition("Args:\n")[2].partition("\n\nRaises:")[0]
    return {name: " ".join(text.split()) for name, text in re.findall(r"^    (\w+): ((?:.|\n {8})+)", block, re.M)}


def test_the_file_is_what_the_script_writes():
    assert (ROOT / script.FILE).read_text() == script.module(), "run: python -m scripts.families"


@every_family
def test_a_signature_holds_the_options_of_all_versions_and_no_other(family):
    assert {*parameters(family)} == {name for spec in specs_of(family) for name in spec.options}


@every_family
def test_a_default_in_the_signature_is_that_of_every_version(family):
    for name, parameter in parameters(family).items():
        defaults = [spec.options.get(name) for spec in specs_of(family)]
        assert parameter.default == (defaults[0] if defaults.count(defaults[0]) == len(defaults) else None)
        assert parameter.kind is (parameter.POSITIONAL_OR_KEYWORD if name == "lr" else parameter.KEYWORD_ONLY)
        assert "Any" not in str(parameter.annotation)
        assert (parameter.default is None) == (type(None) in typing.get_args(parameter.annotation))


@every_family
def test_the_docstring_says_the_defaults_that_the_signature_cannot(family):
    texts = documented(family)
    assert {*texts} == {*parameters(family), "params", "version", "writer"}
    for spec in specs_of(family):
        assert spec.version in re.split(r"[\s,;]+", texts["version"])
    for name, parameter in parameters(family).items():
        assert ("Default:" in texts[name]) == (parameter.default is None), name
        for spec in specs_of(family):
            if parameter.default is None and name in spec.options:
                assert str(spec.options[name]) in texts[name]
            if name not in spec.options:
                told = texts[name].partition("Default:")[2]
                assert f" {spec.version}" in told.partition(" Not in")[2] or f" {spec.version}" not in told


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.key)
def test_the_defaults_of_the_signature_and_none_change_nothing(spec):
    cls = registry.optimizer_class(spec.name)
    given = {name: parameter.default for name, parameter in parameters(spec.name).items()}
    assert cls(make_params(), version=spec.version).options == spec.options
    assert cls(make_params(), version=spec.version, **given).options == spec.options


@every_row
def test_an_option_that_the_version_lacks_is_refused(spec):
    elsewhere = {name: value for spec in specs_of(spec.name) for name, value in spec.options.items()}
    lacking = {name: value for name, value in elsewhere.items() if name not in {*spec.options, *spec.dead}}
    for name, value in lacking.items():
        with pytest.raises(OptionError, match=rf"^{re.escape(spec.key)}: unknown option '{name}'"):
            registry.optimizer_class(spec.name)(make_params(), version=spec.version, **{name: value})


def test_an_option_that_no_version_has_is_refused_by_name():
    with pytest.raises(OptionError, match=r"unknown option 'stopcof'\. Did you mean 'stopcoef'"):
        registry.optimizer_class("emosens")(make_params(), stopcof=0.1)


def test_the_choices_of_an_implementation_are_all_of_them():
    assert typing.get_args(kernels.Implementation) == ("auto", *kernels.RUNS)


def test_a_warning_points_to_the_line_that_builds_the_optimizer():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.optimizer_class("emonavi")(make_params(), version="3.1", use_shadow=True)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_new_option_needs_a_line_in_the_script(monkeypatch):
    assert {name for spec in ROWS for name in spec.options} == {*script.OPTIONS}
    monkeypatch.delitem(script.OPTIONS, "fftmode")
    with pytest.raises(AssertionError, match=r"emosens: no line in OPTIONS for .'fftmode'."):
        script.module()


def test_the_registry_shows_the_versions():
    assert registry.find is versions.find
    assert sys.modules["emo_hf.families"].CLASSES.keys() == {*registry.families()}
