"""Who may import whom, and what stays importable without the heavy libraries.

errors  spec  hashing  format  listing  metrics  config  answers  econ  context    facts and formulas
   policy   index   resting   books   room   intake  judgement: no I/O, no clock, no torch
   rates    ground  reuse    health
   formats                                           a block in fewer bytes, or encrypted, and back
   placement      tiers                              decide | move: neither sees the other
       core  leases  neighbours  streaming  transfer  reader  writer  ruling  store
       sim                                        the decisions over a trace, and no tier
   opening  integrations  testing  doctor  __init__  edges
   oracle  calibrate                                 ask the edges
   commands  cli  __main__                           the command line
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvtier

PACKAGE = Path(kvtier.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: A part may import from its own layer and from those before it in this list.
LAYERS = [
    {"errors", "spec", "hashing", "format", "listing", "metrics", "config", "answers", "econ", "context"},
    {"policy", "index", "resting", "books", "room", "intake", "health", "formats", "rates", "ground", "reuse"},
    {"placement", "tiers"},
    {"core", "leases", "neighbours", "streaming", "transfer", "reader", "writer", "ruling", "store", "sim"},
    {"opening", "integrations", "testing", "doctor", "__init__"},
    {"oracle", "calibrate"},
    {"commands", "cli", "__main__"},
]

#: Parts of one layer that must not see each other.
STRANGERS = [
    {"placement", "tiers"},
    {"integrations", "testing"},
    {"integrations", "doctor"},
    {"testing", "doctor"},
    {"opening", "doctor"},
    *(
        {"sim", other}
        for other in (
            "tiers",
            "core",
            "leases",
            "neighbours",
            "streaming",
            "transfer",
            "reader",
            "writer",
            "ruling",
            "store",
        )
    ),
    {"formats", "policy"},
    {"formats", "index"},
    {"formats", "room"},
]

PURE = ["errors", "spec", "hashing", "listing", "metrics", "config", "policy.base", "policy.registry", "sim"]
PURE += ["context", "index", "resting", "books", "room", "intake", "health", "placement", "rates", "ground", "reuse"]
PURE += ["econ.profile", "econ.billing.bills"]
JUDGEMENT = ["policy", "index", "resting", "books", "room", "intake", "health", "placement", "rates", "ground", "reuse"]
JUDGEMENT += ["context"]
NO_CLOCK_NO_FILES = {"asyncio", "io", "os", "pathlib", "random", "socket", "tempfile", "threading", "time"}


def name_of(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """Dotted names of all modules a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who is meant"
            found.add(node.module)
    return found


def parts_imported(path):
    """Parts of kvtier that a file imports; the package itself counts as its ``__init__``."""
    ours = [name.split(".") for name in imports(path) if name.split(".")[0] == "kvtier"]
    return {names[1] if len(names) > 1 else "__init__" for names in ours}


def layer(part):
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def test_every_part_has_its_layer():
    assert {part_of(path) for path in FILES} == set().union(*LAYERS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_upwards(path):
    assert {part for part in parts_imported(path) if layer(part) > layer(part_of(path))} == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_strangers_do_not_see_each_other(path):
    strangers = set().union(*(pair for pair in STRANGERS if part_of(path) in pair)) - {part_of(path)}

    assert parts_imported(path) & strangers == set()


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) == "econ"], ids=name_of)
def test_the_economics_know_no_store(path):
    assert parts_imported(path) <= {"econ", "errors"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_inside_the_package_nobody_goes_through_its_front_door(path):
    assert "__init__" not in parts_imported(path)


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) not in {"integrations", "oracle"}], ids=name_of
)
def test_only_integrations_and_who_asks_them_know_transformers(path):
    assert "transformers" not in {name.split(".")[0] for name in imports(path)}


OUTSIDE_LMDB = [path for path in FILES if part_of(path) != "tiers" and name_of(path) != "doctor/reading.py"]


@pytest.mark.parametrize("path", OUTSIDE_LMDB, ids=name_of)
def test_only_the_disk_tier_and_its_doctor_know_lmdb(path):
    assert "lmdb" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) == "context"], ids=name_of)
def test_context_policies_need_nothing_but_the_standard_library_and_the_errors(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"kvtier"}

    assert outside == set()
    assert parts_imported(path) <= {"context", "errors"}


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "lossless.py"], ids=name_of)
def test_only_the_lossless_format_needs_its_compressor(path):
    assert "zstandard" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "encrypted.py"], ids=name_of)
def test_only_the_encrypted_format_needs_its_cipher(path):
    assert "cryptography" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) != "testing"], ids=name_of)
def test_only_the_conformance_suites_need_pytest(path):
    assert imports(path) & {"pytest", "hypothesis"} == set()


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) in JUDGEMENT], ids=name_of)
def test_judgement_reads_no_clock_and_touches_no_file(path):
    assert {name.split(".")[0] for name in imports(path)} & NO_CLOCK_NO_FILES == set()


def loaded_by(module):
    """Heavy libraries in memory once a module has been imported in a fresh process."""
    code = f"import sys, {module}; print([m for m in ('torch', 'lmdb', 'transformers') if m in sys.modules])"
    command, place = [sys.executable, "-c", code], PACKAGE.parent
    return subprocess.run(command, capture_output=True, text=True, cwd=place, check=True).stdout.strip()


@pytest.mark.parametrize("module", PURE)
def test_the_pure_part_imports_without_torch_and_lmdb(module):
    assert loaded_by(f"kvtier.{module}") == "[]"


def test_the_format_can_be_read_without_torch_and_lmdb():
    assert loaded_by("kvtier.format") == "[]"


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("kvtier") == "[]"


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) in {"cli", "commands"}], ids=name_of)
def test_a_command_loads_nothing_heavy_before_it_runs(path):
    assert loaded_by(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)) == "[]"


def test_the_test_of_imports_sees_a_heavy_one():
    assert loaded_by("kvtier.tiers.environment") == "['lmdb']"
