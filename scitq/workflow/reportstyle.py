"""How a report looks: one style sheet, for light and dark screens, narrow ones, and paper. Nothing is loaded from elsewhere."""

from __future__ import annotations

_LIGHT = """
--paper:#fff; --ink:#1c2430; --soft:#5b6675; --line:#dfe4ea; --panel:#f6f8fa; --box:#fff; --accent:#1f6feb;
--good:#2e8540; --bad:#c8321f; --warn:#b7791f; --busy:#1f6feb; --idle:#aab4c0;"""
_DARK = """
--paper:#12161c; --ink:#e3e8ee; --soft:#98a4b3; --line:#2b333d; --panel:#1a2028; --box:#1d242d; --accent:#6cb0ff;
--good:#57b56a; --bad:#f0705c; --warn:#d9a441; --busy:#6cb0ff; --idle:#566270;"""
# Told apart by people who see colours differently as well as may be, on both papers; none is the red of what failed.
_STEPS = ("#4c78a8", "#f2a03d", "#59a46a", "#9d7bb8", "#6bb7b5", "#c98aa8", "#b5a136", "#8c6d5a", "#7f95ad", "#a3c26b")
_STAGES = ("idle", "warn", "good", "busy")
_STATES = {
    "succeeded": "good", "failed": "bad", "blocked": "warn", "cancelled": "warn", "paused": "warn", "running": "busy",
    "collecting": "busy", "staging": "busy", "assigned": "busy", "debug": "idle", "pending": "idle", "waiting": "idle",
}  # fmt: skip

# What graphs and timelines need, on whatever page they stand.
PICTURES = (
    "".join(f".s{number}{{fill:{colour};background:{colour}}}" for number, colour in enumerate(_STEPS))
    + """
svg text{font-size:12px;fill:var(--ink)}
svg .name{font-weight:600}
svg .small{font-size:11px;fill:var(--soft)}
svg .middle{text-anchor:middle}
svg .sign{text-anchor:end;font-weight:700}
.graph{display:block;max-width:100%;height:auto}
.graph .box{fill:var(--box);stroke:var(--idle)}
.graph .away{stroke-dasharray:4 3}
.graph .edges path{fill:none;stroke:var(--idle);stroke-width:1.3}
.graph .edges .back{stroke-dasharray:5 4;stroke:var(--warn)}
.graph .tip{fill:var(--idle)!important;stroke:none}
.timeline{display:block;width:100%;min-width:640px;height:auto}
.timeline .rule{stroke:var(--line)}
.timeline .tick{stroke:var(--line);stroke-dasharray:1 3}
.timeline .cut{stroke:var(--warn);stroke-dasharray:3 2}
.timeline .faint{opacity:.38}
.timeline .bad{stroke:var(--bad);stroke-width:1.6}
.timeline .live{stroke:var(--busy);stroke-dasharray:2 2}
"""
)

STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    + "".join(f".st-{state}{{fill:var(--{colour});color:var(--{colour})}}" for state, colour in _STATES.items())
    + "".join(f".t{number}{{fill:var(--{colour});background:var(--{colour})}}" for number, colour in enumerate(_STAGES))
    + """
*{box-sizing:border-box}
html{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif;
-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink)}
main,header,footer,nav{max-width:1140px;margin:0 auto;padding:0 24px}
header{padding-top:32px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;margin:40px 0 10px;padding-top:10px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:18px 0 6px;overflow-wrap:anywhere}
p{margin:6px 0 10px;max-width:80ch}
.soft,.note{color:var(--soft)}
.note{font-size:13px;max-width:none}
.verdict{font-weight:600}
a{color:var(--accent)}
nav{font-size:13px;margin-top:14px}
nav a{margin-right:14px;white-space:nowrap;display:inline-block}
code,pre,.mono{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:9px 12px;margin:6px 0 10px;white-space:pre-wrap;
overflow-wrap:anywhere;max-height:26em;overflow:auto}
code{overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(118px,1fr));gap:10px;margin:18px 0 0;padding:0}
.cards div{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:9px 12px}
.cards dt{font-size:12px;color:var(--soft)}
.cards dd{margin:0;font-size:18px;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.cards small{display:block;font-size:12px;font-weight:400;color:var(--soft)}
.scroll{overflow-x:auto;margin:6px 0 10px}
table{border-collapse:collapse;width:100%;font-size:13.5px}
caption{text-align:left;color:var(--soft);font-size:13px;padding:0 0 6px}
th,td{text-align:left;vertical-align:top;padding:5px 14px 5px 0;border-bottom:1px solid var(--line)}
thead th{font-weight:600;color:var(--soft);font-size:12.5px;vertical-align:bottom;white-space:nowrap}
tbody th{font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.wide{overflow-wrap:anywhere;min-width:16em}
td small{color:var(--soft);white-space:nowrap}
.chip{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.step{display:inline-flex;align-items:baseline;min-width:7em}
.chip{flex:none}
.meter{display:block;width:100%;min-width:70px;height:8px;margin-top:6px}
.over{color:var(--bad);font-weight:600}
.methods{margin:6px 0 10px;background:var(--panel);border-left:4px solid var(--accent);padding:10px 16px;border-radius:0 6px 6px 0;
max-width:none}
.failure{border-left:4px solid var(--bad);padding:0 0 0 14px;margin:14px 0}
details{margin:6px 0 10px}
summary{cursor:pointer;color:var(--accent);font-size:13.5px}
"""
    + PICTURES
    + """
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft);margin:4px 0 10px;padding:0;list-style:none}
footer{color:var(--soft);font-size:12.5px;padding-top:26px;padding-bottom:40px}
@media (max-width:720px){main,header,footer,nav{padding-left:14px;padding-right:14px}h1{font-size:23px}
.graph{max-width:none}.cards{grid-template-columns:repeat(auto-fit,minmax(105px,1fr))}.cards dd{font-size:16px}}
@media print{:root{"""
    + _LIGHT
    + """}html{font-size:10.5pt}body{-webkit-print-color-adjust:exact;print-color-adjust:exact}nav{display:none}
main,header,footer{max-width:none;padding:0}.scroll{overflow:visible}pre{max-height:none}.timeline{min-width:0}
h2,h3{break-after:avoid}.failure,.cards div,tr,svg{break-inside:avoid}table{font-size:9pt}td.wide{min-width:0}}
"""
)
