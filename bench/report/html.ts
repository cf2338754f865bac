// The report as one page that asks the network for nothing: plots drawn beforehand, tables, light and dark.

import { type Figure, figuresOf } from './figures.js'
import { librariesLine, machineLine } from './machine.js'
import type { Report } from './model.js'
import { PAGE_STYLE } from './page-style.js'
import { drawPlot } from './plot.js'

// CSS pixels: one drawing for phones, so that its letters keep their size, and one for the rest.
const NARROW = [340, 270] as const
const WIDE = [560, 340] as const

export function formatHtml(report: Report): string {
  const { machine, date, form, seconds, definitions, remarks } = report
  const when = `${date.slice(0, 16).replace('T', ' ')} UTC`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>multifd, measured ${when}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<header>
<h1>multifd, measured</h1>
<p>${when}, ${form} form, ${seconds} s. ${escapeText(machineLine(machine))}; ${escapeText(librariesLine(machine))}.</p>
<p>Everything over tcp within this machine, pairings in turns. Points and bars are medians, whiskers reach from the lowest to the
highest run. Absolute figures of a shared machine say little; ratios within one run do.</p>
</header>
<main>
${figuresOf(report)
  .map((figure) => section(figure, `${when}, ${machine.cpu}, ${machine.cores} cores`))
  .join('\n')}
</main>
<footer>
${remarks.length > 0 ? `<h2>Remarks</h2><ul>${remarks.map((one) => `<li>${escapeText(one)}</li>`).join('')}</ul>` : ''}
<h2>What the figures mean</h2>
<ul>${sentences(definitions)
    .map((one) => `<li>${escapeText(one)}</li>`)
    .join('')}</ul>
</footer>
</body>
</html>
`
}

function section({ title, sentence, plot, head, rows }: Figure, where: string): string {
  const legend = plot.lines.map(
    ({ name, colour, dashed }) =>
      `<li><svg width="22" height="10" aria-hidden="true"><line x1="1" y1="5" x2="21" y2="5" stroke="var(--s${colour})" stroke-width="${plot.kind === 'bar' ? 9 : 3}"${dashed ? ' stroke-dasharray="5 3"' : ''}/></svg>${escapeText(name)}</li>`,
  )
  const label = escapeText(`${title}. ${sentence}`)
  const drawn = ([width, height]: readonly [number, number], name: string): string =>
    `<div class="${name}" role="img" aria-label="${label}">${drawPlot(plot, width, height)}</div>`
  return `<section>
<h2>${escapeText(title)}</h2>
<p>${escapeText(sentence)}</p>
<div class="pair">
<figure>
<ul class="legend">${legend.join('')}</ul>
${drawn(NARROW, 'narrow')}
${drawn(WIDE, 'wide')}
<figcaption>${escapeText(where)}</figcaption>
</figure>
<div class="scroll"><table>
<thead><tr>${head.map((cell) => `<th scope="col">${escapeText(cell)}</th>`).join('')}</tr></thead>
<tbody>${rows.map(([first, ...rest]) => `<tr><th scope="row">${escapeText(first!)}</th>${rest.map((cell) => `<td>${cellHtml(cell)}</td>`).join('')}</tr>`).join('\n')}</tbody>
</table></div>
</div>
</section>`
}

/** The range goes below its median. */
function cellHtml(cell: string): string {
  return escapeText(cell).replace(/ \((.*)\)$/, '<br><small>$1</small>')
}

/** Definitions go on over lines that begin with a space. */
function sentences(lines: readonly string[]): string[] {
  return lines.join('\n').replaceAll('\n  ', ' ').split('\n')
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
