"""The registry as a document: ``python -m embconform.reference.spec > reference/SPEC.md``."""

from __future__ import annotations

import sys
from itertools import groupby

from embconform.reference.clause import DEVICES, Clause, registry

_HEAD = """\
# The Embedding specification

Generated from the clause registry in `reference/clauses` by
`python -m embconform.reference.spec > reference/SPEC.md`; a test fails when it is stale.

Two profiles: **torch** is what `torch.nn.functional.embedding` and `torch.nn.Embedding` do,
**textbook** the hand-written layer of the founding document. The words MUST, SHOULD and MAY are
those of RFC 2119; a MAY clause can be refused with an exception, but not answered wrongly.
*Policy* marks behaviour that PyTorch leaves undocumented, where this specification had to choose.

`embedding` stands for the target, `weight` for a float32 table that requires grad, `ids` for
int64 indices.
"""


def render() -> str:
    """Write the specification.

    Returns
    -------
    str
        Markdown: a section a group, in the order of the registry.
    """
    parts = [_HEAD]
    groups = groupby(registry().values(), key=lambda clause: clause.group)
    for number, (group, clauses) in enumerate(groups, 1):
        parts.append(f"## {number}. {group}\n")
        parts += [_section(clause) for clause in clauses]
    return "\n".join(parts)


def _section(clause: Clause) -> str:
    profile = "both profiles" if clause.profile == "both" else f"{clause.profile} profile"
    policy = ", policy" if clause.policy else ""
    where = "" if clause.devices == DEVICES else f" On {', '.join(sorted(clause.devices))} only."
    needs = f" Needs: {', '.join(sorted(clause.needs))}." if clause.needs else ""
    return (
        f"### {clause.id}\n\n"
        f"**{clause.level.value}**, {profile}{policy}. {clause.sentence}\n\n"
        f"Source: {clause.source}.{needs}{where}\n\n"
        f"```python\n{clause.example}\n```\n"
    )


if __name__ == "__main__":
    sys.stdout.write(render())
