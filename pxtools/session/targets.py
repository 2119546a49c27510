"""What a user writes after `-t`, as engine numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pxtools.errors import PxUsageError


def parse_targets(spec: str | int | Iterable[int] | None, ids: list[int], namespace: Mapping[str, Any]) -> list[int]:
    """Return engine numbers; nothing of `spec` is ever evaluated.

    Raises
    ------
    PxUsageError
        There is no such engine, or the text is no target.
    """
    if spec is None or spec == "all":
        return list(ids)
    if isinstance(spec, int):
        spec = [spec]
    if not isinstance(spec, str):
        return [_existing(int(i), ids) for i in spec]
    chosen: list[int] = []
    for part in spec.split(","):
        text = part.strip()
        try:
            chosen += _of_view(namespace[text], ids) if text in namespace else _numbered(text, ids)
        except (ValueError, AttributeError) as error:
            if isinstance(error, PxUsageError):
                raise
            raise PxUsageError(
                f"`-t {spec}` names no engines. Write `-t 0`, `-t 0,2`, `-t ::2` or the name of a view."
            ) from None
    if not chosen:
        raise PxUsageError(f"`-t {spec}` leaves no engine; there are engines {', '.join(map(str, ids))}.")
    return list(dict.fromkeys(chosen))


def _numbered(text: str, ids: list[int]) -> list[int]:
    first, *more = (int(piece) if piece else None for piece in text.split(":"))
    if more:
        return ids[slice(first, *more)] if len(more) < 3 else []
    if first is None:
        raise ValueError(text)
    return [_existing(first, ids)]


def _of_view(view: Any, ids: list[int]) -> list[int]:
    its = view.targets
    if its in (None, "all"):
        return list(ids)
    return [_existing(i, ids) for i in ([its] if isinstance(its, int) else its)]


def _existing(engine: int, ids: list[int]) -> int:
    wanted = ids[engine] if engine < 0 and -engine <= len(ids) else engine
    if wanted not in ids:
        raise PxUsageError(f"there is no engine {engine}: there are engines {', '.join(map(str, ids))}.")
    return wanted
