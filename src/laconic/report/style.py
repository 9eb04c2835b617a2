"""The style sheet of the report page: paper and ink, one quiet and one warm colour, light and dark."""

STYLE = """
:root {
  --paper: #fbf9f5; --raised: #ffffff; --ink: #211e1a; --soft: #6f6a62; --rule: #e4dfd6;
  --dense: #8a94a3; --pruned: #c2552d;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17171a; --raised: #1f1f23; --ink: #ebe7df; --soft: #a09a90; --rule: #323237;
    --dense: #7f8a9b; --pruned: #ec8358;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 var(--sans); }
main {
  display: grid; grid-template-columns: minmax(0, 68rem); justify-content: center; gap: 4.5rem;
  padding: clamp(2.5rem, 8vw, 6rem) 1.25rem 6rem;
}
.pair {
  display: grid; gap: 3rem 4rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
}
h1, h2, h3, p, figure, ul, dl, dd, pre { margin: 0; padding: 0; }
.eyebrow { font: italic 1.05rem var(--serif); color: var(--soft); margin-bottom: 1.4rem; }
h1 {
  font: 400 clamp(2.5rem, 8.5vw, 4.4rem)/1.04 var(--serif); letter-spacing: -0.022em; text-wrap: balance;
}
h1 em { font-style: italic; color: var(--pruned); }
.lead { margin-top: 1.7rem; max-width: 38rem; font: 1.2rem/1.6 var(--serif); text-wrap: pretty; }
.figures {
  margin-top: 2.6rem; padding-top: 1.3rem; border-top: 1px solid var(--rule);
  display: grid; gap: 1.6rem 2rem; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr));
}
.figures div { display: flex; flex-direction: column; }
.figures dt { order: 1; font-size: 0.93rem; }
.figures dd { font: 400 2.2rem/1.2 var(--serif); color: var(--pruned); font-variant-numeric: tabular-nums; }
.figures dd.beside { order: 2; font: 0.93rem/1.5 var(--sans); color: var(--soft); }
h2 { font: 400 1.7rem/1.2 var(--serif); letter-spacing: -0.01em; }
h3 { font: 600 0.82rem/1.4 var(--sans); margin-bottom: 0.5rem; }
.note { color: var(--soft); font-size: 0.93rem; margin: 0.35rem 0 1.5rem; }
.legend { display: flex; gap: 1.4rem; }
.swatch { display: inline-block; width: 0.62em; height: 0.62em; border-radius: 50%; margin-right: 0.5em; }
i.dense, .fill.dense { background: var(--dense); }
i.pruned, .fill.pruned { background: var(--pruned); }

table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.7rem 0 0.7rem 0.8rem; text-align: right; font-weight: 400; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-size: 0.82rem; padding-bottom: 0.35rem; }
tbody tr { border-top: 1px solid var(--rule); }
tbody tr:last-child { border-bottom: 1px solid var(--rule); }
tr.pruned { font-weight: 600; }
tr.pruned * { font-weight: inherit; }

.bars { display: grid; gap: 0.9rem; }
.bar { display: grid; gap: 0.35rem; }
.bar .fill { height: 1.35rem; min-width: 3px; border-radius: 3px; }
.bar .label { font-size: 0.88rem; color: var(--soft); font-variant-numeric: tabular-nums; }

.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(14.5rem, 1fr)); gap: 2rem 1.4rem; }
figure img {
  display: block; width: 100%; aspect-ratio: 1; object-fit: cover; background: var(--rule);
  border-radius: 6px;
}
figcaption { margin-top: 0.75rem; display: grid; gap: 0.3rem; line-height: 1.4; }
figcaption p { font: 1.02rem/1.38 var(--serif); padding-left: 1.15em; text-indent: -1.15em; }
figcaption .swatch { width: 0.55em; height: 0.55em; margin-right: 0.6em; text-indent: 0; }
figcaption .reference {
  color: var(--soft); font: italic 0.92rem/1.4 var(--serif); text-indent: 0; padding-left: 1.25em;
}

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 2rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.grid { stroke: var(--rule); stroke-width: 1; }
.tick { fill: var(--soft); font: 10.5px var(--sans); }
.tick.end { text-anchor: end; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line.dense { stroke: var(--dense); } .line.pruned { stroke: var(--pruned); }
.dot.dense { fill: var(--dense); } .dot.pruned { fill: var(--pruned); }

.layers { list-style: none; columns: 19rem; column-gap: 2.5rem; font-size: 0.82rem; }
.layers li {
  display: grid; grid-template-columns: minmax(0, 11rem) 1fr 3.6rem; align-items: center; gap: 0.8rem;
  padding: 0.2rem 0; break-inside: avoid;
}
.layers .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.layers .kept { text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
.track { height: 0.5rem; background: var(--rule); border-radius: 2px; overflow: hidden; }
.track .fill { display: block; height: 100%; }

pre {
  margin-top: 1rem; padding: 1.1rem 1.25rem; overflow-x: auto; background: var(--raised);
  border: 1px solid var(--rule); border-radius: 6px; font: 0.86rem/1.75 var(--mono);
}
@media (max-width: 34rem) {
  main { gap: 3.4rem; }
  th, td { font-size: 0.9rem; padding-left: 0.5rem; }
  .gallery { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.6rem 0.9rem; }
  figcaption p { font-size: 0.93rem; }
}
"""
