// The page's style. --s1 … --s6 are the colours of the pairings.

export const PAGE_STYLE = `
:root {
  --ground: #ffffff; --text: #1f2328; --muted: #57606a; --rule: #d8dee4;
  --s1: #0b62c4; --s2: #c2410c; --s3: #1a7f4b; --s4: #8b35b8; --s5: #6b7280; --s6: #a1660a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --text: #e6e8eb; --muted: #a3abb5; --rule: #343a41;
    --s1: #5aa9f8; --s2: #ff9457; --s3: #5fd08c; --s4: #cf8df2; --s5: #a8b0ba; --s6: #e3b341;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 0 0 0.25rem; }
p { margin: 0 0 0.75rem; max-width: 46rem; }
header p, footer li { color: var(--muted); }
section { border-top: 1px solid var(--rule); padding: 1.25rem 0; }
figure { margin: 0; min-width: 0; }
figcaption { color: var(--muted); font-size: 0.75rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; margin: 0 0 0.25rem; padding: 0;
  font-size: 0.85rem; }
.legend svg { margin-right: 0.35rem; }
.narrow svg, .wide svg { display: block; max-width: 100%; height: auto; }
.wide { display: none; }
.scroll { overflow-x: auto; min-width: 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { white-space: normal; vertical-align: bottom; color: var(--muted); font-weight: 600; min-width: 4.5rem; }
tbody th { font-weight: 600; }
td small { color: var(--muted); font-size: 0.75rem; }
tbody th, td { vertical-align: top; line-height: 1.3; }
footer { border-top: 1px solid var(--rule); padding-top: 1.25rem; font-size: 0.85rem; }
footer ul { padding-left: 1.1rem; }
@media (min-width: 40rem) {
  .wide { display: block; }
  .narrow { display: none; }
}
@media (min-width: 64rem) {
  .pair { display: grid; grid-template-columns: 35rem minmax(0, 1fr); gap: 1.5rem; align-items: center; }
}
`
