"""What follows from what is said: symmetry, definiteness, structure and rank of any expression.

SymPy's `ask` is not used: it says that `Sigma - Sigma*H.T*X*H*Sigma` is not symmetric (it is), and that `H.T*H` is
positive definite for a wide H of full rank (it is singular). Rank has two sides here, and symmetry is read off the
normal form. Every answer is sound for real matrices; "no" means "not known".

References
----------
Horn, Johnson (2013), Matrix Analysis, 7.1.8 (congruence), 7.5.3 (Schur product), 7.7.7 (Schur complements).
"""

from __future__ import annotations

from pxtools.expr.ir import Coef, Expr, Graph
from pxtools.expr.patterns import Conditioning, find_conditionings, posterior_terms


class Facts:
    """Answers about expressions of one graph, each worked out once.

    Examples
    --------
    >>> graph = Graph({"S": {"symmetric", "psd", "pd"}, "H": {"full_rank"}})
    >>> facts, S, H = Facts(graph), graph.symbol("S", (5, 5)), graph.symbol("H", (3, 5))
    >>> facts.holds(graph.mul(H, S, graph.T(H)), "pd"), facts.holds(graph.mul(graph.T(H), H), "pd")
    (True, False)
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[Expr, str], bool] = {}
        self._schur: dict[Expr, bool] = {}

    def holds(self, node: Expr, fact: str) -> bool:
        key = (node, fact)
        if key not in self._known:
            self._known[key] = False  # a question that leads back to itself is not answered by itself
            said = fact in self.graph.assumed.get(node, ())
            self._known[key] = said or bool(getattr(self, f"_is_{fact}")(node))
        return self._known[key]

    def all_hold(self, nodes: tuple[Expr, ...] | list[Expr], fact: str) -> bool:
        return all(self.holds(node, fact) for node in nodes)

    def sign(self, coef: Coef) -> int:
        """Return the sign of a coefficient, 0 when it depends on scalars of unknown sign."""
        number, scalars = coef
        return (number > 0) - (number < 0) if all(self.is_positive(s) for s in scalars) else 0

    def is_positive(self, scalar: Expr) -> bool:
        if scalar.op == "num":
            return bool(scalar.data > 0)
        if scalar.op in ("spow", "smul", "sadd", "sqrt"):
            return all(self.is_positive(part) for part in scalar.args)
        if scalar.op == "exp":
            return True
        if scalar.op == "det":
            return self.holds(scalar.args[0], "pd")
        return "positive" in self.graph.assumed.get(scalar, ())

    # -- symmetry and structure ----------------------------------------------------------------------------------

    def _is_symmetric(self, node: Expr) -> bool:
        return node.is_square and (self.graph.T(node) is node or self.holds(node, "diagonal"))

    def _is_square(self, node: Expr) -> bool:
        return node.is_square

    def _is_diagonal(self, node: Expr) -> bool:
        if node.op in ("identity", "diag"):
            return True
        if node.op == "zero":
            return node.is_square
        if node.op in ("add", "mul", "inv"):
            return self.all_hold(node.args, "diagonal")
        if node.op == "had":
            return any(self.holds(arg, "diagonal") for arg in node.args)
        if node.op == "block":
            return self._block_structure(node, lambda i, j: i == j, "diagonal")
        return node.op == "t" and self.holds(node.args[0], "diagonal")

    def _triangular(self, node: Expr, fact: str, other: str) -> bool:
        if self.holds(node, "diagonal"):
            return True
        if node.op == "t":
            return self.holds(node.args[0], other)
        if node.op in ("li", "lc"):
            return fact == "lower"
        if node.op in ("add", "mul", "inv"):
            return self.all_hold(node.args, fact)
        if node.op == "had":
            return any(self.holds(arg, fact) for arg in node.args)
        if node.op == "block":
            return self._block_structure(node, lambda i, j: i >= j if fact == "lower" else i <= j, fact)
        return False

    def _is_lower(self, node: Expr) -> bool:
        return self._triangular(node, "lower", "upper")

    def _is_upper(self, node: Expr) -> bool:
        return self._triangular(node, "upper", "lower")

    def _block_structure(self, node: Expr, may_be_full: object, fact: str) -> bool:
        wide = node.data
        if len(node.args) != wide * wide or any(not node.args[i * wide + i].is_square for i in range(wide)):
            return False
        assert callable(may_be_full)
        outside = (cell for n, cell in enumerate(node.args) if not may_be_full(n // wide, n % wide))
        inside = (node.args[i * wide + i] for i in range(wide))
        return all(cell.op == "zero" for cell in outside) and all(self.holds(cell, fact) for cell in inside)

    def _is_orthogonal(self, node: Expr) -> bool:
        if node.op == "identity":
            return True
        return node.op in ("t", "mul", "inv") and node.is_square and self.all_hold(node.args, "orthogonal")

    # -- rank ----------------------------------------------------------------------------------------------------

    def _is_full_rank(self, node: Expr) -> bool:
        return self.holds(node, "row_rank") or self.holds(node, "col_rank")

    def _is_row_rank(self, node: Expr) -> bool:
        return self._rank(node, "row_rank", "col_rank")

    def _is_col_rank(self, node: Expr) -> bool:
        return self._rank(node, "col_rank", "row_rank")

    def _rank(self, node: Expr, fact: str, other: str) -> bool:
        if (node.rows > node.cols and fact == "row_rank") or (node.cols > node.rows and fact == "col_rank"):
            return False
        said = self.graph.assumed.get(node, ())
        if node.is_square and ({"pd", "orthogonal", other} & set(said)):
            return True
        if node.op in ("identity", "inv", "li", "lc"):
            return True
        if node.op == "t":
            return self.holds(node.args[0], other)
        if node.op == "mul":
            return self.all_hold(node.args, fact)
        if node.op == "add" and len(node.args) == 1:
            return self.sign(node.data[0]) != 0 and self.holds(node.args[0], fact)
        return node.is_square and self.holds(node, "pd")

    # -- definiteness --------------------------------------------------------------------------------------------

    def _is_psd(self, node: Expr) -> bool:
        return self.holds(node, "pd") or self._definite(node, "psd")

    def _is_pd(self, node: Expr) -> bool:
        return self._definite(node, "pd")

    def _definite(self, node: Expr, fact: str) -> bool:
        if not node.is_square:
            return False
        match node.op:
            case "identity":
                return True
            case "zero":
                return fact == "psd"
            case "inv":
                return self.holds(node.args[0], "psd")
            case "post":
                return self._posterior(node.args[0], node.args[2], fact)
            case "mul":
                return self._congruence(node, fact)
            case "add":
                return self._definite_sum(node, fact) or self._schur_complement(node, fact)
            case "had":
                return self.all_hold(node.args, fact)
            case "block":
                return self._block_structure(node, lambda i, j: i == j, fact)
            case "slice":
                return node.data[0] == node.data[1] and self.holds(node.args[0], fact)
        return False

    def _congruence(self, node: Expr, fact: str) -> bool:
        """B*M*B.T is semidefinite with M, and definite when B has full row rank."""
        factors, graph = node.args, self.graph
        half = len(factors) // 2
        if graph.T(node) is not node or (node.shape == (1, 1) and not self._is_palindrome(factors)):
            return self.all_hold(factors, "diagonal") and self.all_hold(factors, fact)
        if not self._is_palindrome(factors):
            return False
        if len(factors) % 2 and not self.holds(factors[half], fact):
            return False
        return fact == "psd" or self.all_hold(factors[:half], "row_rank")

    def _is_palindrome(self, factors: tuple[Expr, ...]) -> bool:
        pairs = zip(factors, reversed(factors), strict=True)
        return all(self.graph.T(left) is right for left, right in list(pairs)[: len(factors) // 2])

    def _definite_sum(self, node: Expr, fact: str) -> bool:
        signs = [self.sign(coef) for coef in node.data]
        if any(sign <= 0 for sign in signs) or not self.all_hold(node.args, "psd"):
            return False
        return fact == "psd" or any(self.holds(part, "pd") for part in node.args)

    def _posterior(self, prior: Expr, noise: Expr, fact: str) -> bool:
        """Sigma - Sigma*U.T*(U*Sigma*U.T + R).I*U*Sigma is (Sigma.I + U.T*R.I*U).I in the limit."""
        return self.holds(prior, fact) and self.holds(noise, "psd" if fact == "psd" else "pd")

    def _schur_complement(self, node: Expr, fact: str) -> bool:
        for case in self.conditionings(node):
            rest = posterior_terms(self.graph, node, case)
            if rest is not None and self._posterior(case.prior, case.noise, fact):
                extra = [(coef, part) for coef, part in rest if part is not case.prior]
                if all(self.sign(c) > 0 and self.holds(p, "psd") for c, p in extra):
                    return True
        return any(self.holds(block, fact) for block in self._blocks_with_complement(node))

    def conditionings(self, node: Expr) -> list[Conditioning]:
        return find_conditionings(self.graph, [node])

    def _blocks_with_complement(self, node: Expr) -> list[Expr]:
        """Return 2×2 block matrices [[A, B], [B.T, C]] that are known definite and whose complement this is."""
        found = []
        graph = self.graph
        for block, said in list(graph.assumed.items()):
            if block.op == "block" and len(block.args) == 4 and said & {"pd", "psd"}:
                a, b, b_t, c = block.args
                if graph.T(b) is b_t and a.is_square:
                    lower = graph.plus(c, graph.mul(b_t, graph.inv(a), b), -1.0)
                    upper = graph.plus(a, graph.mul(b, graph.inv(c), b_t), -1.0)
                    if node in (lower, upper):
                        found.append(block)
        return found
