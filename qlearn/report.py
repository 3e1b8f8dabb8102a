"""The doctor's report: one HTML file with figures inside, which needs no network and no program (paper §7.4)."""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path
from typing import TYPE_CHECKING

from qlearn import __version__
from qlearn.analysis.doctor.faults import FAULTS
from qlearn.analysis.text import db_text
from qlearn.viz.frames import png
from qlearn.viz.layers import channel_ranges, layer_rmse, layer_sqnr

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from qlearn.analysis.doctor.finding import Diagnosis, Finding
    from qlearn.analysis.layers import LayerRow, LayerTable

MOST_FIGURES = 3
"""So many layers with bad weights are drawn; the table has all."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #f2f4f6; --line: #c9ced4; --link: #00558c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #16181b; --soft: #23272c; --line: #454b52; --link: #7cc4f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.3rem; margin-top: 2rem; } h3 { font-size: 1.05rem; margin: 0; }
a { color: var(--link); }
.finding { border: 1px solid var(--line); border-left-width: .5rem; border-radius: .3rem; padding: .7rem 1rem;
  margin: .8rem 0; }
.finding.error { border-left-color: #c00000; } .finding.warning { border-left-color: #e08a00; }
.finding.note { border-left-color: #0072b2; }
.finding p { margin: .4rem 0; } .finding ul { margin: .4rem 0; padding-left: 1.2rem; }
.tag { display: inline-block; background: var(--soft); border-radius: .2rem; padding: 0 .45rem; font-size: .85rem; }
.fine { border-left: .5rem solid #2e8b57; background: var(--soft); padding: .7rem 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; width: 100%; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th[scope=row], thead th:first-child, td.name { text-align: left; } thead th { background: var(--soft); }
figure { margin: 1rem 0; }
figure img { max-width: none; height: auto; background: #ffffff; padding: .4rem; border-radius: .3rem; }
figcaption { font-size: .9rem; } footer { margin-top: 2rem; font-size: .85rem; border-top: 1px solid var(--line); }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{headline}.</p>
{body}
</main>
<footer><p>Written by qlearn {version}. SQNR is the ratio of signal to quantization noise; RMSE / S is the error in
steps, 0.289 if there is rounding alone.</p></footer>
</body>
</html>
"""


def write_report(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> None:
    """Write the report of a diagnosis to a file; see `html_report`."""
    Path(path).write_text(html_report(diagnosis), encoding="utf-8")


def html_report(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as one HTML page: findings with remedies, figures, the table of layers, the limits.

    Parameters
    ----------
    diagnosis : Diagnosis

    Returns
    -------
    str
        Self-contained: figures are PNGs inside the page, each with a text for those who cannot see it.

    References
    ----------
    Paper §7.1, §7.4.

    Examples
    --------
    >>> from qlearn.analysis.doctor.finding import Diagnosis
    >>> page = html_report(Diagnosis("net", 3, ()))
    >>> page.startswith("<!DOCTYPE html>"), "No finding" in page, "http" in page
    (True, True, False)
    """
    parts = [f"<p><b>Warning:</b> {html.escape(one)}.</p>" for one in diagnosis.warnings]
    parts.append(_findings(diagnosis))
    if diagnosis.layers is not None:
        parts += [_figures(diagnosis, diagnosis.layers), _table(diagnosis.layers)]
    parts.append(_limits(diagnosis))
    return _PAGE.format(
        title=html.escape(f"Diagnosis of {diagnosis.model}"),
        style=_STYLE,
        headline=html.escape(diagnosis.headline),
        body="\n".join(parts),
        version=html.escape(__version__),
    )


def _findings(diagnosis: Diagnosis) -> str:
    if diagnosis.healthy:
        return f'<h2>Findings</h2>\n<p class="fine">{html.escape(diagnosis.verdict.capitalize())}.</p>'
    cards = "\n".join(_card(finding) for finding in diagnosis.findings)
    text = f"<h2>Findings</h2>\n<p>{html.escape(diagnosis.verdict)}, the worst first.</p>\n{cards}"
    if diagnosis.symptoms:
        listed = ", ".join(sorted({f"{one.fault} at {one.site}" for one in diagnosis.symptoms}))
        text += f"\n<p>Explained by these: {html.escape(listed)}.</p>"
    return text


def _card(finding: Finding) -> str:
    remedies = "".join(f"<li>{html.escape(str(remedy))}</li>" for remedy in finding.remedies)
    channels = ""
    if finding.channels:
        shown = ", ".join(map(str, finding.channels[:20])) + (", …" if len(finding.channels) > 20 else "")
        channels = f"<p>Channels: {shown}.</p>"
    numbers = "; ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in finding.evidence.items())
    return (
        f'<section class="finding {finding.severity}">\n<h3>{html.escape(finding.site)}: '
        f"{html.escape(FAULTS[finding.fault].title)}</h3>\n"
        f'<p><span class="tag">{finding.severity}</span> <span class="tag">{finding.sure}</span> '
        f'<span class="tag">{finding.fault}</span></p>\n<p>{html.escape(finding.sentence)}.</p>\n{channels}'
        f"<p>Remedies:</p>\n<ul>{remedies}</ul>\n" + (f"<p>Measured: {html.escape(numbers)}.</p>\n" if numbers else "")
        + "</section>"
    )  # fmt: skip


def _figures(diagnosis: Diagnosis, layers: LayerTable) -> str:
    sites = [row.site for row in layers]
    total, own = ([getattr(row, key) for row in layers] for key in ("sqnr_db", "own_sqnr_db"))
    steps, mine = ([getattr(row, key) for row in layers] for key in ("rmse_over_scale", "own_rmse_over_scale"))
    points = f"Points on a logarithmic axis, one for each layer, beside a dashed line at 0.289. {_ends(layers)}"
    figures = [
        _figure(layer_sqnr(sites, total, own), "SQNR at every layer", f"Bars, one for each layer. {_ends(layers)}"),
        _figure(layer_rmse(sites, steps, mine), "Error in steps at every layer", points),
    ]
    bad = {f.site: None for f in diagnosis.findings if f.fault in ("dead_channels", "unequal_channels")}
    figures += [_weights(layers[site]) for site in list(bad)[:MOST_FIGURES]]
    return "<h2>Layer by layer</h2>\n" + "\n".join(figures)


def _ends(layers: LayerTable) -> str:
    finite = [row for row in layers if math.isfinite(row.sqnr_db)]
    if not finite:
        return "No layer has an error."
    worst, last = min(finite, key=lambda row: row.sqnr_db), finite[-1]
    return f"The lowest SQNR is {worst.sqnr_db:.1f} dB at {worst.site}; the last layer has {last.sqnr_db:.1f} dB."


def _weights(row: LayerRow) -> str:
    assert row.weights is not None
    largest = row.weights.largest
    alt = f"One upright bar for each of {len(largest)} channels. The largest weight is {largest.max():.3g}, "
    alt += f"{row.weights.max_over_median:.3g} times the median of the channels."
    axes = channel_ranges({row.site: row.weights.ranges}, steps=127)
    return _figure(axes, f"Range of the weights of {row.site}, channel by channel", alt)


def _figure(axes: Axes, caption: str, alt: str) -> str:
    data = base64.b64encode(png(axes)).decode()
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{html.escape(caption, quote=True)}">'
        f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{html.escape(caption)}. {html.escape(alt)}</figcaption></figure>"
    )


def _table(layers: LayerTable) -> str:
    heads = ("layer", "op", "SQNR dB", "own dB", "RMSE / S", "clipped", "codes used", "largest / median weight")
    head = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in heads)
    return (
        f"<h2>Table of layers</h2>\n<p>{layers.images} pictures. Own: the error that the layer adds by itself.</p>\n"
        '<div class="wide" tabindex="0" role="region" aria-label="Table of layers"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(map(_row, layers)) + "\n</tbody></table></div>"
    )


def _row(row: LayerRow) -> str:
    codes, weights = row.codes, row.weights
    cells = [
        row.op, db_text(row.sqnr_db), db_text(row.own_sqnr_db),
        "-" if row.scale is None else f"{row.rmse_over_scale:.3f}",
        "-" if codes is None else f"{codes.clipped_share:.2%}",
        "-" if codes is None else f"{codes.used} of {codes.reachable}",
        "-" if weights is None else f"{weights.max_over_median:.1f}",
    ]  # fmt: skip
    body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{html.escape(row.site)}</th>{body}</tr>'


def _limits(diagnosis: Diagnosis) -> str:
    looked = [f"<li><code>{code}</code>: {html.escape(fault.sign)}</li>" for code, fault in FAULTS.items()
              if code not in diagnosis.skipped]  # fmt: skip
    text = f"<h2>What was looked for</h2>\n<ul>{''.join(looked)}</ul>"
    if diagnosis.skipped:
        listed = "".join(f"<li><code>{code}</code>: {html.escape(why)}</li>" for code, why in diagnosis.skipped.items())
        text += f"\n<h2>What could not be looked for</h2>\n<ul>{listed}</ul>"
    return text
