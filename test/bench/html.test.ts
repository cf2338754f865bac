// The page of a report that was measured: the baseline's.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { figuresOf } from '../../bench/report/figures.js'
import { formatHtml } from '../../bench/report/html.js'
import { parseReport } from '../../bench/report/model.js'
import { drawPlot } from '../../bench/report/plot.js'

const baseline = parseReport(readFileSync(new URL('../../../bench/baseline.json', import.meta.url), 'utf8'))

t.test('every part of the report has its figures', async (t) => {
  const titles = figuresOf(baseline).map(({ title }) => title)
  for (const title of [
    'Rate by channels',
    'Processor time per GiB',
    'Rate by method: text',
    'Scale with the size of RAM',
    'Scale with channels: rate',
    'Scale with channels: set-up',
    'Scale with channels: memory',
    'Downtime by dirty rate',
    'Barrier by channels',
  ]) {
    t.ok(titles.includes(title), title)
  }
})

t.test(
  'the page has each figure with plots for both widths, a table and the machine, and asks the network for nothing',
  async (t) => {
    const page = formatHtml(baseline)
    const figures = figuresOf(baseline)
    const count = (text: string): number => page.split(text).length - 1
    t.equal(count('<section>'), figures.length)
    t.equal(count('<table>'), figures.length)
    t.equal(count('class="narrow"'), figures.length)
    t.equal(count('class="wide"'), figures.length)
    t.equal(count(`${baseline.machine.cpu}, ${baseline.machine.cores} cores</figcaption>`), figures.length)
    t.match(page, /prefers-color-scheme: dark/)
    // Names of namespaces are nothing that is fetched.
    const fetched = page
      .replaceAll(/xmlns(:\w+)?="[^"]*"/g, '')
      .match(/https?:|<script|<link|<img|url\((?!#)|@import|src=/g)
    t.equal(fetched, null)
    t.ok(page.length < 1024 ** 2, `${page.length} characters`)
  },
)

t.test("every colour of a plot is the page's, which has it for light and for dark", async (t) => {
  for (const { plot, title } of figuresOf(baseline)) {
    // What is clipped away has no colour of its own.
    const svg = drawPlot(plot, 340, 270).replaceAll(/<clipPath.*?<\/clipPath>/gs, '')
    const colours = [...svg.matchAll(/(?:fill|stroke)(?:="|:)([^";]+)/g)].map(([, colour]) => colour)
    t.ok(
      colours.some((colour) => colour!.startsWith('var(--s')),
      title,
    )
    t.same(
      colours.filter((colour) => !/^(var\(--\w+\)|none|transparent)$/.test(colour!)),
      [],
      title,
    )
  }
})

t.test('a name is text on the page, whatever it contains', async (t) => {
  const machine = { ...baseline.machine, cpu: '<script>"&' }
  t.notMatch(formatHtml({ ...baseline, machine }), '<script')
})
