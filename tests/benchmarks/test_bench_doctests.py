"""The examples in the docstrings are run, because a wrong one is worse than none."""

import doctest
from types import ModuleType

import pytest
from lib import shapes


@pytest.mark.parametrize("module", [shapes])
def test_the_examples_of_a_module_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0
