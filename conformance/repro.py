"""A failing case as a script of its own: torch and the target only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embconform.backends.backend import Described
from embconform.conformance.cases.case import (
    FROZEN,
    Backward,
    Call,
    Case,
    ClearGradient,
    DoubleBackward,
    Placed,
    Step,
    WriteIndices,
    WriteWeight,
    keyword_options,
)
from embconform.conformance.cases.layouts import lay_out
from embconform.conformance.cases.literals import tensor_code
from embconform.conformance.finding import Check, Finding

_MODES = {
    "no_grad": "torch.no_grad()",
    "inference": "torch.inference_mode()",
    "served": "torch.inference_mode()",
}
_BITS = {1: "torch.uint8", 2: "torch.int16", 4: "torch.int32", 8: "torch.int64"}


class _Writer:
    """Writes the steps of a case as torch code."""

    def __init__(self, case: Case, *, whole: bool, device: str = "cpu") -> None:
        self.case, self.whole, self.device = case, whole, device
        self.lines: list[str] = []
        self.made = case.entry == "functional"

    @property
    def moved(self) -> str:
        """What follows a tensor that is to be on the device."""
        return "" if self.device == "cpu" else f".to({self.device!r})"

    def tensor(self, name: str, placed: Placed) -> None:
        """Write a tensor with its layout in memory."""
        if placed.layout == "contiguous":
            self.lines.append(f"{name} = {self._code(placed.values)}{self.moved}")
            return
        laid = lay_out(placed)
        self.lines.append(f"{name}_base = {self._code(laid.base)}{self.moved}")
        self.lines.append(
            f"{name} = {name}_base.as_strided({laid.shape}, {laid.strides}, {laid.offset})"
            f"  # {placed.layout}"
        )

    def _code(self, values: np.ndarray) -> str:
        return tensor_code(values, whole=self.whole)

    def weight(self) -> None:
        """Write the table."""
        self.tensor("weight", self.case.weight)
        if self.case.weight.layout != "contiguous":
            self.lines.append("weight = weight.detach()")
        if self.case.mode not in FROZEN:
            self.lines.append("weight.requires_grad_()")

    def step(self, position: int, step: Step) -> None:
        """Write one step."""
        match step:
            case Call():
                self.call(position, step)
            case Backward():
                self.backward(position, step)
            case DoubleBackward():
                self.double_backward(step)
            case ClearGradient():
                self.lines += ["first_grad = weight.grad", "weight.grad = None"]
            case WriteWeight():
                self.lines.append(f"weight.data.copy_({self._code(step.values)})")
            case WriteIndices():
                given = f"ids{step.call}" + ".data" * self.case.is_silent(position)
                self.lines.append(f"{given}.copy_({self._code(step.values)})")

    def call(self, position: int, step: Call) -> None:
        """Write a call, caught where it must raise."""
        if step.reuse is None:
            self.tensor(f"ids{position}", step.indices)
        ids = f"ids{position if step.reuse is None else step.reuse}"
        body = []
        options = "".join(f", {k}={v!r}" for k, v in keyword_options(self.case.options).items())
        options = options.replace("=inf", "=float('inf')")
        if self.case.entry == "functional":
            body.append(f"out{position} = embedding({ids}, weight{options})")
        else:
            if not self.made:
                self.made = True
                rows, width = self.case.weight.values.shape
                frozen = ", requires_grad=False" if self.case.mode in FROZEN else ""
                body += [
                    f"module = Embedding({rows}, {width}, dtype=weight.dtype{options})",
                    f"module.weight = torch.nn.Parameter(weight.detach(){frozen})",
                    "weight = module.weight",
                ]
            body.append(f"out{position} = module({ids})")
        mode = step.context or self.case.mode
        if mode in _MODES:
            body[-1:] = [f"with {_MODES[mode]}:", f"    {body[-1]}"]
        if step.must_raise:
            body += [f"torch.{self.device}.synchronize()"] * (self.device != "cpu")
            caught = [f"    {line}" for line in body]
            body = ["raised = None", "try:", *caught, "except (Exception, SystemExit) as error:"]
            body.append("    raised = error")
        self.lines += body

    def backward(self, position: int, step: Backward) -> None:
        """Write a backward pass."""
        names = []
        for number, placed in enumerate(step.upstream):
            names.append(f"upstream{position}_{number}")
            self.tensor(names[-1], placed)
        outputs = ", ".join(f"out{call}" for call in step.calls)
        retain = ", retain_graph=True" if step.retain_graph else ""
        self.lines.append(f"torch.autograd.backward([{outputs}], [{', '.join(names)}]{retain})")

    def double_backward(self, step: DoubleBackward) -> None:
        """Write a second derivative."""
        self.tensor("upstream", step.upstream)
        self.lines += [
            "upstream = upstream.detach().requires_grad_()",
            f"direction = {self._code(step.direction)}{self.moved}",
            f"output = out{step.call}",
            "(gradient,) = torch.autograd.grad(output, weight, upstream, create_graph=True)",
            "(second,) = torch.autograd.grad((gradient * direction).sum(), upstream)",
        ]

    def write(self, last: int) -> list[str]:
        """Write the case up to a step."""
        if self.case.deterministic:
            self.lines.append("torch.use_deterministic_algorithms(True)")
        self.weight()
        for position, step in enumerate(self.case.steps[: last + 1]):
            self.step(position, step)
        if self.device != "cpu":
            self.lines.append(f"torch.{self.device}.synchronize()")
        return self.lines


def _imports(case: Case, backend: Described, target: str) -> list[str]:
    """Write how a script gets at the target."""
    name = "embedding" if case.entry == "functional" else "Embedding"
    if backend.source:
        return backend.source.splitlines()
    place, _, attribute = target.rpartition(":")
    form = "" if backend.name == target else f".{case.entry}"
    if not place.endswith(".py"):
        return [
            "from importlib import import_module",
            "",
            f"{name} = import_module({place!r}).{attribute}{form}",
        ]
    first, *rest = attribute.split(".")
    tail = "".join(f".{part}" for part in rest) + form
    folder = str(Path(place).parent)
    return [
        "import runpy",
        "",
        f"sys.path.insert(0, {folder!r})",
        f"{name} = runpy.run_path({place!r})[{first!r}]{tail}",
    ]


def _verdict(check: Check) -> list[str]:
    """Write the lines that set `expected`, `got` and `right`."""
    if check.relation == "works":
        return ["expected, got, right = 'no exception', 'no exception', True"]
    if check.relation == "raises":
        return [
            "expected = 'an exception'",
            "got = repr(raised) if raised else f'no exception, but {out0}'",
            "right = raised is not None",
        ]
    if check.relation == "equal":
        return [
            f"expected = {check.exact!r}",
            f"got = {check.expression}",
            "right = got == expected",
        ]
    exact = np.asarray(check.exact)
    lines = [f"expected = {tensor_code(exact)}", f"got = {check.expression}.detach()"]
    if check.relation == "bits":
        carrier = _BITS[exact.dtype.itemsize]
        lines.append(f"close = got.cpu().contiguous().view({carrier}) == expected.view({carrier})")
    else:
        assert check.bound is not None
        lines.append(f"bound = {tensor_code(np.asarray(check.bound))}")
        lines.append("close = (got.cpu().double() - expected).abs() <= bound")
    if check.where is not None and not check.where.all():
        where = np.ascontiguousarray(np.broadcast_to(check.where, exact.shape))
        lines.append(f"close |= ~({tensor_code(where.astype(np.int8))}.bool())")
    return [*lines, "right = bool(close.all())"]


_OUTSIDE = """

def outside_changed(name):
    base, view, before = globals()[f"{name}_base"], globals()[name], globals()[f"{name}_before"]
    now, then = base.clone(), before.clone()
    for copy in (now, then):
        copy.as_strided(view.shape, view.stride(), view.storage_offset()).zero_()
    return not torch.equal(now.view(torch.uint8), then.view(torch.uint8))
"""


def script(
    case: Case,
    finding: Finding,
    backend: Described,
    target: str,
    clause: str = "",
    *,
    device: str = "cpu",
) -> str:
    """Write a standalone script that shows a finding.

    Parameters
    ----------
    case : Case
    finding : Finding
    backend : Described
    target : str
        As the user named it.
    clause : str
        The clause's id and sentence, for the head of the script.
    device : str
        Where tables and indices are.

    Returns
    -------
    str
        Needs torch and the target only; prints what is expected and what is seen; exits 1 while
        the clause is broken and 0 once it holds. Empty where the finding can't be scripted.
    """
    check = finding.check
    if check is None:
        return ""
    steps = _Writer(case, whole=True, device=device).write(finding.step)
    outside = check.expression.startswith("outside_changed")
    if outside:
        name = check.expression.split("'")[1]
        made = next(k for k, line in enumerate(steps) if line.startswith(f"{name}_base = "))
        steps.insert(made + 1, f"{name}_before = {name}_base.clone()")
    body = [*steps, "", *_verdict(check)]
    if check.relation == "works" or check.may_raise:
        body = [
            "try:",
            *(f"    {line}" if line else "" for line in body),
            "except (Exception, SystemExit) as error:",
        ]
        expected = "an answer or a refusal" if check.may_raise else "no exception"
        body.append(f"    expected, got, right = {expected!r}, repr(error), {check.may_raise}")
    head = (
        f"{clause}\n\n{finding.message}".replace("\\", "\\\\")
        .replace('"""', "'''")
        .replace("\0", "")
    )
    return "\n".join(
        [
            f'"""{head}',
            '"""',
            "",
            *(["import base64"] if "base64." in "\n".join(body) else []),
            "import sys",
            *(["import zlib"] if "base64." in "\n".join(body) else []),
            "",
            "import torch",
            *_imports(case, backend, target),
            *(_OUTSIDE.splitlines() if outside else []),
            "",
            *body,
            "print('expected', expected)",
            "print('got     ', got)",
            "sys.exit(0 if right else 1)",
            "",
        ]
    )


def snippet(case: Case, finding: Finding, device: str = "cpu") -> str:
    """Write a finding as a few lines to read and run.

    Parameters
    ----------
    case : Case
    finding : Finding
    device : str

    Returns
    -------
    str
        `embedding` or `Embedding` stands for the target; large arrays are left out.
    """
    lines = _Writer(case, whole=False, device=device).write(finding.step)
    check = finding.check
    if check is not None and check.expression and not check.expression.startswith("outside"):
        lines.append(f"print({check.expression})")
    return "\n".join(lines)
