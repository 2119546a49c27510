"""Sizes of matrices as symbols: linear sums such as `n`, `500` or `n + k`, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dim:
    """A size: an integer plus whole multiples of named sizes."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    @staticmethod
    def of(size: int) -> Dim:
        return Dim((), int(size))

    @staticmethod
    def var(name: str) -> Dim:
        return Dim(((name, 1),), 0)

    def _combine(self, other: Dim, sign: int) -> Dim:
        terms = dict(self.terms)
        for name, count in other.terms:
            terms[name] = terms.get(name, 0) + sign * count
        kept = tuple(sorted((name, count) for name, count in terms.items() if count))
        return Dim(kept, self.const + sign * other.const)

    def __add__(self, other: Dim) -> Dim:
        return self._combine(other, 1)

    def __sub__(self, other: Dim) -> Dim:
        return self._combine(other, -1)

    def times(self, factor: int) -> Dim:
        return Dim(tuple((name, count * factor) for name, count in self.terms if factor), self.const * factor)

    @property
    def is_known(self) -> bool:
        return not self.terms

    def __str__(self) -> str:
        words = [name if count == 1 else f"{count}*{name}" for name, count in self.terms]
        if self.const or not words:
            words.append(str(self.const))
        return " + ".join(words).replace("+ -", "- ")


ONE = Dim.of(1)


@dataclass
class Sizes:
    """What named sizes are equal to; `learn` is the only way in.

    Examples
    --------
    >>> sizes = Sizes()
    >>> sizes.learn(Dim.var("n"), Dim.of(3)), sizes.learn(Dim.var("n"), Dim.of(4))
    (True, False)
    """

    known: dict[str, Dim] = field(default_factory=dict)
    pending: list[tuple[Dim, Dim]] = field(default_factory=list)

    def copy(self) -> Sizes:
        return Sizes(dict(self.known), list(self.pending))

    def resolve(self, dim: Dim) -> Dim:
        """Return the size with everything that is known put in."""
        while any(name in self.known for name, _ in dim.terms):
            total = Dim.of(dim.const)
            for name, count in dim.terms:
                total = total + self.known.get(name, Dim.var(name)).times(count)
            dim = total
        return dim

    def learn(self, left: Dim, right: Dim) -> bool:
        """Record that two sizes are equal; False when they cannot be."""
        gap = self.resolve(left) - self.resolve(right)
        if gap.is_known:
            return gap.const == 0
        if len(gap.terms) == 1 and gap.const % gap.terms[0][1]:
            return False
        for name, count in gap.terms:  # unnamed sizes sort first and take the names of others
            rest = (gap - Dim(((name, count),), 0)).times(-count)
            if abs(count) == 1 and (rest.is_known or all(c > 0 for _, c in rest.terms)):
                if rest.is_known and rest.const < 0:
                    return False
                self.known[name] = rest
                return self._recheck()
        if len(gap.terms) == 1:
            name, count = gap.terms[0]
            self.known[name] = Dim.of(-gap.const // count)
            return -gap.const // count >= 0 and self._recheck()
        self.pending.append((left, right))
        return True

    def _recheck(self) -> bool:
        waiting, self.pending = self.pending, []
        return all(self.learn(left, right) for left, right in waiting)

    def value(self, dim: Dim) -> int | None:
        """Return the size as an integer, or None while a name in it is open."""
        resolved = self.resolve(dim)
        return resolved.const if resolved.is_known else None
