"""The HTML report of an evaluation: one file that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from smp.episodes.metric import Metric
from smp.episodes.protocol import COMMAND, PUSH
from smp.evaluation.policy.episode_plots import COLORS, curve
from smp.evaluation.policy.summary import ALL, metrics_in

GROUPS = {"task": "Task", "naturalness": "Naturalness", "effort": "Effort"}
SWEEPS = {COMMAND: "Commands", PUSH: "Pushes"}

STYLE = """
:root { color-scheme: light dark; --bg: #fdfdfc; --ink: #1d2126; --dim: #646b73;
  --line: #d9dde1; --soft: #f1f3f4; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --bg: #15181b; --ink: #e4e7ea;
  --dim: #99a1a9; --line: #353b41; --soft: #1f2428; --warn: #e5b567; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 1.5rem; background: var(--bg);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem;
  border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 75ch; } .dim { color: var(--dim); } .warn { color: var(--warn); }
code { font-size: .85em; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr));
  gap: 1rem 1.4rem; }
.plots figure { margin: 0; } .plots svg { width: 100%; height: auto;
  overflow: visible; }
.plots figcaption { font-weight: 600; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--bg); }
tr.group th { background: var(--soft); text-align: left; }
td small { color: var(--dim); } td div + div { margin-top: .1rem; }
.strip { margin: .7rem 0; } .strip img { width: 100%; display: block; border-radius: 3px; }
.strip figcaption { font-size: .82rem; }
figure { margin: 0; } .key { display: inline-block; width: .75em; height: .75em;
  border-radius: 50%; margin-right: .4em; }
details { margin-top: 1rem; } summary { cursor: pointer; font-weight: 600; }
"""


def render_report(result: dict[str, Any], strips: dict[tuple[int, str], bytes]) -> str:
  """Return the HTML page.

  Args:
    result: The contents of the JSON.
    strips: JPEG of each policy (by index) and condition (by label).
  """
  task, policies = result["protocol"]["task"], result["policies"]
  metrics = metrics_in(result)
  body = [_head(result), _overview(metrics, policies)]
  for sweep, title in SWEEPS.items():
    axis = result["protocol"]["axes"][sweep]
    labels = [
      row["label"]
      for row in policies[0]["conditions"]
      if row["sweep"] == sweep and row["label"] != ALL
    ]
    body.append(f"<h2>{title}: {escape(axis)}</h2>")
    body.append(_legend(policies))
    body.append(_plots(metrics, policies, sweep, axis))
    body.append(_strips(labels, policies, strips, result["strips"]))
    body.append("<details><summary>All metrics</summary>")
    body.append(_table(metrics, policies, sweep, labels) + "</details>")
  body.append(_method(result, metrics))
  title = f"Evaluation of {task}"
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
    + "\n".join(body)
    + "</body></html>\n"
  )


def _dot(index: int) -> str:
  return f'<span class="key" style="background:{COLORS[index % len(COLORS)]}"></span>'


def _legend(policies: Sequence[dict[str, Any]]) -> str:
  if len(policies) < 2:
    return ""
  names = (f"{_dot(i)}{escape(p['name'])}" for i, p in enumerate(policies))
  return f'<p class="dim">{" &emsp; ".join(names)}</p>'


def _head(result: dict[str, Any]) -> str:
  protocol = result["protocol"]
  lines = [f"<h1>Evaluation of {escape(protocol['task'])}</h1>"]
  for i, policy in enumerate(result["policies"]):
    file = ""
    if policy["file"]:
      what = "" if policy["agent"] == "trained" else "r_smp normalised by the means of "
      file = (
        f"{what}<code>{escape(policy['file'])}</code> &middot; "
        f"sha256 <code>{policy['sha256'][:16]}</code>"
      )
    lines.append(f"<div>{_dot(i)}<b>{escape(policy['name'])}</b> {file}</div>")
  seeds = ", ".join(str(seed) for seed in result["seeds"])
  lines.append(
    f'<p class="dim">Protocol version {protocol["version"]}, {protocol["seconds"]:g} s '
    f"episodes, {result['num_envs']} for each seed; seeds {seeds}. Intervals are "
    "for 95 % confidence.</p>"
  )
  if not protocol["standard"]:
    notes = escape("; ".join(protocol["notes"]))
    lines.append(f'<p class="warn">Not the standard protocol: {notes}.</p>')
  return "\n".join(lines)


def _overview(metrics: Sequence[Metric], policies: Sequence[dict[str, Any]]) -> str:
  rows = []
  for figure in metrics:
    if figure.short:
      cells = "".join(
        f"<td>{cell(figure, _find(p, COMMAND, ALL))}</td>" for p in policies
      )
      rows.append(f"<tr><td>{escape(_name(figure))}</td>{cells}</tr>")
  heads = "".join(
    f"<th>{_dot(i)}{escape(p['name'])}</th>" for i, p in enumerate(policies)
  )
  return (
    "<h2>All commands, without pushes</h2>"
    f'<div class="scroll"><table><tr><th></th>{heads}</tr>{"".join(rows)}</table></div>'
  )


def _plots(
  metrics: Sequence[Metric],
  policies: Sequence[dict[str, Any]],
  sweep: str,
  axis: str,
) -> str:
  panels = [
    f"<figure><figcaption>{escape(_name(figure))}</figcaption>"
    f"{curve(figure, policies, sweep, axis)}</figure>"
    for figure in metrics
    if figure.short and any(_has(policy, sweep, figure.key) for policy in policies)
  ]
  return f'<div class="plots">{"".join(panels)}</div>'


def _has(policy: dict[str, Any], sweep: str, key: str) -> bool:
  return any(
    row["figures"][key]["value"] is not None
    for row in policy["conditions"]
    if row["sweep"] == sweep
  )


def _strips(
  labels: Sequence[str],
  policies: Sequence[dict[str, Any]],
  strips: dict[tuple[int, str], bytes],
  note: str,
) -> str:
  if not strips:
    return f'<h3>Frames</h3><p class="dim">{escape(note)}</p>'
  parts = [f'<h3>Frames</h3><p class="dim">{escape(note)}</p>']
  for label in labels:
    for i, policy in enumerate(policies):
      picture = base64.b64encode(strips[i, label]).decode()
      name = f"{_dot(i)}{escape(policy['name'])}: " if len(policies) > 1 else ""
      parts.append(
        f'<figure class="strip"><figcaption>{name}{escape(label)}</figcaption>'
        f'<img alt="frames, {escape(label)}" src="data:image/jpeg;base64,{picture}">'
        "</figure>"
      )
  return "\n".join(parts)


def _table(
  metrics: Sequence[Metric],
  policies: Sequence[dict[str, Any]],
  sweep: str,
  labels: Sequence[str],
) -> str:
  labels = [*labels, ALL] if sweep == COMMAND else labels
  heads = "".join(f"<th>{escape(label)}</th>" for label in labels)
  rows, group = [f"<tr><th></th>{heads}</tr>"], ""
  for figure in metrics:
    if figure.group != group:
      group = figure.group
      span = len(labels) + 1
      rows.append(f'<tr class="group"><th colspan="{span}">{GROUPS[group]}</th></tr>')
    cells = []
    for label in labels:
      parts = (
        f"<div>{_dot(i) if len(policies) > 1 else ''}"
        f"{cell(figure, _find(policy, sweep, label))}</div>"
        for i, policy in enumerate(policies)
      )
      cells.append(f"<td>{''.join(parts)}</td>")
    rows.append(f"<tr><td>{escape(_name(figure))}</td>{''.join(cells)}</tr>")
  return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _find(policy: dict[str, Any], sweep: str, label: str) -> dict[str, Any]:
  return next(
    row["figures"]
    for row in policy["conditions"]
    if (row["sweep"], row["label"]) == (sweep, label)
  )


def _name(figure: Metric) -> str:
  return f"{figure.label} ({figure.unit})" if figure.unit else figure.label


def cell(figure: Metric, found: dict[str, Any]) -> str:
  """Return a metric and its interval as HTML."""
  value, interval = in_words(figure, found[figure.key])
  return f"{value} <small>{interval}</small>" if interval else value


def in_words(figure: Metric, one: dict[str, Any]) -> tuple[str, str]:
  """Return a metric and its interval as text, with three significant digits."""
  if one["value"] is None:
    return "–", ""
  scale = 100.0 if figure.kind == "rate" else 1.0
  ends = [one[end] for end in ("low", "high")]
  if None in ends:
    return _number(scale * one["value"]), ""
  low, high = (_number(scale * end) for end in ends)
  return _number(scale * one["value"]), f"[{low}, {high}]"


def _number(value: float) -> str:
  """Format a number with about three significant digits and no exponent."""
  size = abs(value)
  if size >= 100:
    return f"{value:.0f}"
  if size >= 10:
    return f"{value:.1f}"
  if size >= 0.1 or size == 0.0:
    return f"{value:.2f}"
  return f"{value:.4f}"


def _method(result: dict[str, Any], metrics: Sequence[Metric]) -> str:
  text = [f"<h2>Method</h2><p>{escape(result['method'])}</p>"]
  data = result["data"]
  if data is not None:
    text.append(
      f"<p>Distances and amplitudes are relative to {escape(data['what'])}. "
      f"{escape(data['itself'])}</p>"
    )
  if (style := result.get("style_judge")) is not None:
    text.append(f"<p>{escape(_of_style(style))}</p>")
  ways = {
    "rate": "Wilson interval",
    "mean": "mean over episodes, Student's t interval",
    "other": "Poisson interval (failures per minute) or jackknife (Fréchet, diversity)",
  }
  rows = "".join(
    f"<tr><td>{escape(_name(f))}</td><td>{f.better or '-'}</td>"
    f"<td>{ways[f.kind]}</td></tr>"
    for f in metrics
  )
  text.append(
    '<details><summary>Metrics and their intervals</summary><div class="scroll"><table>'
    f"<tr><th>metric</th><th>better</th><th>interval</th></tr>{rows}</table></div>"
    "</details>"
  )
  text.append(f"<p>Created by <code>{escape(result['command'])}</code></p>")
  return "\n".join(text)


def _of_style(style: dict[str, Any]) -> str:
  """Return what judged the style, in words."""
  parts = []
  for part, asked in style["asked"].items():
    known = style["held_out_accuracy"][part]
    of = "" if known is None else f"; right on {100 * known:.0f} % of held-out clips"
    seen = "the whole body" if part == "whole" else f"the {part} body alone"
    parts.append(f"{asked}, from {seen}{of}")
  return f"Style asked for, and judged by {style['classifier']}: {'. '.join(parts)}."
