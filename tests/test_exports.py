"""The public names: all of them can be had, nothing else is promised, and checkers see the same."""

import ast
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import kvtier

SOURCE = Path(kvtier.__file__)


def declared():
    """``{name: module}`` as the imports for type checkers say."""
    tree = ast.parse(SOURCE.read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.asname or alias.name: node.module for node in block.body for alias in node.names}


def test_the_names_are_sorted_and_each_is_there_once():
    assert kvtier.__all__ == sorted(set(kvtier.__all__))


def test_type_checkers_see_the_names_that_programs_see():
    assert sorted(declared()) == kvtier.__all__


@pytest.mark.parametrize(("name", "module"), sorted(declared().items()))
def test_a_name_is_what_its_module_calls_by_it(name, module):
    assert getattr(kvtier, name) is getattr(import_module(module), name)


def test_a_star_import_gives_the_names_and_no_other():
    space = {}

    exec("from kvtier import *", space)

    assert sorted(set(space) - {"__builtins__"}) == kvtier.__all__


def test_a_name_that_is_not_exported_is_said_not_to_be():
    with pytest.raises(AttributeError, match="module 'kvtier' has no attribute 'name_chain'"):
        kvtier.name_chain


def test_the_names_can_be_completed():
    assert set(kvtier.__all__) <= set(dir(kvtier))


def test_the_version_is_that_of_the_project():
    project = SOURCE.parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("kvtier is installed, and its project file is not here")

    assert tomllib.loads(project.read_text())["project"]["version"] == kvtier.__version__


def test_the_context_policies_are_exported_by_their_own_package():
    context = import_module("kvtier.context")
    brought_in = {
        name for name, value in vars(context).items() if getattr(value, "__module__", "").startswith("kvtier.context")
    }

    assert len(set(context.__all__)) == len(context.__all__)
    assert brought_in - set(context.__all__) == set()
    assert all(hasattr(context, name) for name in context.__all__)
