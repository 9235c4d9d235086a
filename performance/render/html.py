"""The report as one page that needs no network."""

from __future__ import annotations

import re
from typing import Final

from jinja2 import Environment

from embconform.performance.render import plot
from embconform.performance.render.rows import (
    GROWTH_HEADS,
    RESULT_HEADS,
    ceilings,
    growth_rows,
    heading,
    result_blocks,
)
from embconform.performance.run import BenchReport

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>embconform bench: {{ report.targets | join(", ") }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tbody th { padding-top: .9rem; font-weight: 600; }
td:last-child { white-space: normal; }
.unranked { color: #c0392b; }
.note { border-left: 3px solid #d4a017; padding-left: .8rem; }
.quiet { opacity: .75; }
figure { margin: 0; background: white; } svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>embconform bench</h1>
<p>{{ heading }}</p>
<p class="quiet">{{ ceilings }}</p>
{% for note in report.notes %}<p class="note">{{ note }}</p>
{% endfor %}
{% if picture %}<figure role="img" aria-label="Roofline, and cost by size">{{ picture | safe }}
</figure>
{% else %}<p class="quiet">No picture: {{ no_picture }}.</p>
{% endif %}
<h2>Times</h2>
<p class="quiet">Ratios are to {{ report.request.against }}, round by round, with 95% intervals of
the median. Ceiling is the time that the bytes which must move take at this run's copy bandwidth,
over the time measured.</p>
<div class="scroll"><table>
<thead><tr>{% for head in result_heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
{% for block in blocks %}<tbody>
<tr><th colspan="{{ result_heads | length }}" scope="rowgroup">{{ block.title }}</th></tr>
{% for row in block.rows %}<tr{% if not row.ranked %} class="unranked"{% endif %}>
{% for cell in row.cells %}<td{% if loop.index0 in (1, 2, 3, 4, 5) %} class="number"{% endif %}>
{{- cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
{% endfor %}</table></div>
{% if growth %}<h2>Growth</h2>
<div class="scroll"><table>
<thead><tr>{% for head in growth_heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in growth %}<tr{% if not row.ranked %} class="unranked"{% endif %}>
{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% if report.left_out %}<h2>Left out for lack of time</h2>
<ul>{% for name in report.left_out %}<li>{{ name }}</li>{% endfor %}</ul>
{% endif %}
<h2>Where</h2>
<table><tbody>{% for name, value in report.environment.items() %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</tbody></table>
</body>
</html>
"""


def render(report: BenchReport) -> str:
    """Write a report as one HTML page, with the picture in it where Matplotlib is installed.

    Parameters
    ----------
    report : BenchReport

    Returns
    -------
    str
    """
    reason = plot.why_not()
    environment = Environment(autoescape=True)
    return environment.from_string(_PAGE).render(
        report=report,
        heading=heading(report),
        ceilings=ceilings(report),
        picture="" if reason else _svg(report),
        no_picture=reason,
        result_heads=RESULT_HEADS,
        growth_heads=GROWTH_HEADS,
        blocks=result_blocks(report),
        growth=growth_rows(report),
    )


def _svg(report: BenchReport) -> str:
    """Draw the picture and leave off the XML head, which has no place inside a page."""
    text = plot.render(report, "svg").decode()
    return re.sub(r"^.*?(?=<svg)", "", text, flags=re.DOTALL)
