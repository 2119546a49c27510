"""`%config PxTools` through a real shell."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pxtools.errors import PxUsageError


@pytest.fixture(autouse=True)
def restored(session: Any, shell: Any) -> Iterator[None]:
    (config,) = [c for c in shell.configurables if type(c).__name__ == "PxTools"]
    before = {name: getattr(config, name) for name in config.class_own_traits(config=True)}
    yield
    for name, value in before.items():
        setattr(config, name, value)


def test_config_lists_and_sets_the_session_s_settings(session: Any, cell: Any, capsys: Any) -> None:
    cell("%config PxTools")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("engines", "push_limit", "collect_limit", "never_push", "progress"))
    cell("%config PxTools.push_limit = 1000")
    assert session.settings.push_limit == 1000
    cell("import numpy as np\nbig = np.zeros(1000)")
    with pytest.raises(PxUsageError, match="push_limit"):
        cell("%pxrun big.sum()")


def test_names_that_match_never_push_stay_here(cell: Any, capsys: Any) -> None:
    cell("%config PxTools.never_push = ('secret_*',)")
    cell("secret_key = 5")
    with pytest.raises(NameError, match="secret_key"):
        cell("%pxrun secret_key + 1")
    assert "never_push" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["push_limit = -1", "engines = 'two'", "never_push = (1,)", "seed = -1", "targets = ' '"]
)
def test_wrong_values_are_refused_and_nothing_changes(line: str, session: Any, cell: Any) -> None:
    before = vars(session.settings).copy()
    cell(f"%config PxTools.{line}")  # IPython says it in one line
    assert vars(session.settings) == before


def test_work_without_targets_goes_to_those_of_the_settings(session: Any, cell: Any) -> None:
    cell("%config PxTools.targets = '::2'")
    assert cell("%pxrun px_size").engines == (0, 2)
    assert cell("%pxcollect px_size").engines == (0, 2)
    assert cell("%pxrun -t all px_size").engines == (0, 1, 2, 3)
    cell("%pxpush found=1")
    cell("%config PxTools.targets = '17'")
    with pytest.raises(PxUsageError, match="there is no engine 17"):
        cell("%pxrun px_size")


def test_one_seed_makes_a_notebook_repeatable_and_its_cells_independent(session: Any, cell: Any) -> None:
    notebook = [
        "%config PxTools.seed = 7",
        "a = %pxrun float(px_rng.random())",
        "b = %pxrun float(px_rng.random())",
        "c = %pxmap (lambda n: float(px_rng.random())) range(4)",
        "%pxsample (lambda x: -x[0] ** 2) --initial [0.0] --sampler rwm --chains 2 --draws 5 --warmup 0 -o walk",
        "given = %pxrun --seed 3 float(px_rng.random())",
    ]

    def numbers() -> list[float]:
        for source in notebook:
            cell(source)
        names = session.namespace
        return [*names["a"], *names["b"], *names["c"], *names["walk"].points[:, 0].tolist(), *names["given"]]

    first = numbers()
    assert numbers() == first  # the setting was given again, with the same value
    assert len(set(first[:12])) == 12
    assert session.namespace["walk"].seed < 2**31
    cell("%config PxTools.seed = 8")
    for source in notebook[1:]:
        cell(source)
    assert not set(session.namespace["a"]) & set(first)
    assert list(session.namespace["given"]) == first[-4:]


def test_errors_are_long_at_once_if_one_wants_them_so(cell: Any, shell: Any, capsys: Any) -> None:
    def shown(source: str) -> str:
        shell.run_cell(source, store_history=False)
        return str(capsys.readouterr().out)

    assert len(shown("%pxrun 1 / 0").splitlines()) <= 4
    assert len(shown("%pxcollect nowhere").splitlines()) <= 4
    cell("%config PxTools.short_errors = False")
    assert "--- engines 0-3 ---" in shown("%pxrun 1 / 0")  # the engines' own traceback
    assert "Traceback (most recent call last)" in shown("%pxcollect nowhere")
    cell("%config PxTools.short_errors = True")
    assert len(shown("%pxrun 1 / 0").splitlines()) <= 4


def test_without_autostart_the_line_to_type_is_named_and_nothing_is_started(
    shell: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from pxtools.errors import PxClusterError
    from pxtools.session.core import Session

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # no cluster is there to be found
    alone = Session({})
    alone.settings.autostart = False
    monkeypatch.setattr("pxtools.session.core.find", lambda namespace: None)
    monkeypatch.setattr("pxtools.session.core.start", lambda *args, **options: pytest.fail("engines were started"))
    with pytest.raises(PxClusterError, match=r"autostart` is off.\nType `%pxcluster start -n 4`"):
        _ = alone.wire


def test_progress_and_directory_follow_their_settings(session: Any, cell: Any, tmp_path: Any, monkeypatch: Any) -> None:
    from pxtools.session.core import NoProgress

    assert not isinstance(session.progress("work"), NoProgress)
    cell("%config PxTools.progress = False")
    assert isinstance(session.progress("work"), NoProgress)
    cell("import os")
    monkeypatch.chdir(tmp_path)
    cell("%config PxTools.follow_cwd = False")
    assert set(cell("%pxrun -t 0 os.getcwd()")) != {str(tmp_path)}
    cell("%config PxTools.follow_cwd = True")
    assert set(cell("%pxrun os.getcwd()")) == {str(tmp_path)}


def test_values_above_collect_limit_stay_on_their_engines(cell: Any, shell: Any) -> None:
    from pxtools.results import Remote

    cell("%config PxTools.collect_limit = 100")
    cell("%pxrun small, large = b'', bytes(1000)")
    assert isinstance(shell.user_ns["large"].slot(0), Remote)
    assert not isinstance(shell.user_ns["small"].slot(0), Remote)


CONFIGURED = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell.instance(config=Config(PxTools=dict(engines=2, seed=5, targets="0", progress=False)))
shell.run_line_magic("load_ext", "pxtools")
import pxtools
s = pxtools.current_session().settings
print(s.engines, s.seed, s.targets, s.progress, s.push_limit, s.autostart)
"""


def test_ipython_config_py_is_read_at_load() -> None:
    done = subprocess.run([sys.executable, "-c", CONFIGURED], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["2 5 0 False 1000000000 True"], done.stdout + done.stderr


def test_every_setting_is_documented_and_tested(shell: Any) -> None:
    (config,) = [c for c in shell.configurables if type(c).__name__ == "PxTools"]
    page = (Path(__file__).parents[2] / "docs/magics.md").read_text().partition("## Settings")[2]
    documented = re.findall(r"^\| `(\w+)` ", page, re.MULTILINE)
    assert sorted(documented) == sorted(config.class_own_traits(config=True))
    for name, default in re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", page, re.MULTILINE):
        assert str(type(config).class_traits()[name].default()) == default.replace(",", "").strip(), name
