"""Cython, R and Octave on the engines."""

from __future__ import annotations

from typing import Any

from pxtools.api.cluster import current_session
from pxtools.api.work import finish
from pxtools.languages.cython_build import CythonFlags
from pxtools.session.cython import CythonResult, cython_on
from pxtools.session.languages import OCTAVE, R, language_cell


def cython(
    code: str,
    *,
    check: str | None = None,
    bounds: Any = (0.0, 1.0),
    targets: Any = None,
    timeout: float | None = None,
    force: bool = False,
    **flags: Any,
) -> CythonResult:
    """Compile Cython once, here, and bind its names here and on every engine, as `%%pxcython`.

    Parameters
    ----------
    code : str
        A cell of Cython.
    check : str, optional
        A Python function to compare with at 200 random points; ``"f=f_c"`` when the cell has several functions.
    bounds : (low, high), or one such pair per argument
        Of these points.
    targets
        Engines: a number, a list of numbers, or what follows ``-t``.
    timeout : float, optional
        Seconds, after which the engines are interrupted.
    force : bool
        Compile again although the same code was compiled before.
    **flags
        Of `pxtools.languages.cython_build.CythonFlags`: annotate, cplus, compile_args, link_args, lib, include, ….

    Returns
    -------
    CythonResult
        `names` that were bound, seconds that it took, and the comparison.

    Raises
    ------
    PxCompileError, PxMissing
        It was not compiled; nothing changed, here or there.

    Examples
    --------
    >>> import pxtools
    >>> pxtools.cython("def twice(double x): return 2 * x").names
    ('twice',)
    >>> pxtools.map(twice, [1, 2, 3])
    [2.0, 4.0, 6.0]
    """
    return cython_on(
        current_session(),
        code,
        CythonFlags(**flags),
        check=check,
        bounds=bounds,
        targets=targets,
        timeout_s=timeout,
        force=force,
    )


def r(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run R on every engine, as `%%pxR`.

    Parameters
    ----------
    code : str
        A cell of R.
    timeout : float, optional
        Seconds, after which the engines are interrupted.
    **options
        inputs : dict
            Name in R to name here, or on the engines.
        outputs : dict
            Name of the result to name in R.
        targets, how, seed
            As of `run`; `seed` starts independent L'Ecuyer streams.

    Returns
    -------
    dict of str to PerEngine
        What `outputs` name.

    Raises
    ------
    PxRError
        R refused the cell, or a value cannot pass; with the line of the cell.
    PxMissing
        There is no R or no rpy2 on an engine; with the line to type.

    Examples
    --------
    >>> import pxtools
    >>> heights = [1.0, 2.0, 6.0]
    >>> pxtools.r("m <- mean(x)", inputs={"x": "heights"}, outputs={"m": "m"})["m"].same()
    3.0
    """
    return _in_language(R, code, timeout, converter=None, display=None, **options)


def octave(code: str, *, timeout: float | None = None, **options: Any) -> dict[str, Any]:
    """Run Octave on every engine, as `%%pxoctave`.

    Parameters
    ----------
    code : str
        A cell of Octave.
    timeout : float, optional
        Seconds, after which the engines are interrupted.
    **options
        inputs : dict
            Name in Octave to name here, or on the engines.
        outputs : dict
            Name of the result to name in Octave.
        targets, how, seed
            As of `run`; `seed` starts independent streams.

    Returns
    -------
    dict of str to PerEngine
        What `outputs` name.

    Raises
    ------
    PxOctaveError
        Octave refused the cell, or a value cannot pass; with the line of the cell.
    PxMissing
        There is no Octave or no oct2py on an engine; with the line to type.

    Examples
    --------
    >>> import pxtools
    >>> heights = [1.0, 2.0, 6.0]
    >>> pxtools.octave("m = mean(x);", inputs={"x": "heights"}, outputs={"m": "m"})["m"].same()
    3.0
    """
    plot = {"device": "svg", **options.pop("plot", {})}
    return _in_language(OCTAVE, code, timeout, plot=plot, **options)


def _in_language(runner: str, code: str, timeout: float | None, **options: Any) -> dict[str, Any]:
    return finish(language_cell(current_session(), runner, code, **options), timeout)
