// Plots as SVG, drawn here so that the page needs no script. Colours are the page's, which knows light from dark.

import type { CustomSeriesRenderItemReturn } from 'echarts'
import { BarChart, CustomChart, LineChart } from 'echarts/charts'
import { GridComponent, MarkLineComponent } from 'echarts/components'
import { type EChartsCoreOption, init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'
import type { Spread } from '../statistics.js'

use([LineChart, BarChart, CustomChart, GridComponent, MarkLineComponent, SVGRenderer])

export interface Line {
  name: string
  /** Of the palette: see page.css. */
  colour: number
  dashed?: boolean
  /** At each place of the x axis; undefined where nothing was measured. */
  values: (Spread | undefined)[]
}

export interface Plot {
  kind: 'line' | 'bar'
  x: string
  /** Names of the places, or numbers where `linear`. */
  places: (string | number)[]
  /** Whether the distance of the places is that of the numbers. */
  linear?: boolean
  y: string
  logarithmic?: boolean
  /** A limit that the values are to keep. */
  limit?: { name: string; value: number }
  lines: Line[]
}

const TEXT = 'var(--text)'
const MUTED = 'var(--muted)'
const RULE = 'var(--rule)'
const FONT = 12
const CAP = 3
const BAR_GAP = '10%'
const BAR_CATEGORY_GAP = '25%'
// Nothing happens under a pointer.
const STILL = { silent: true, clip: false, emphasis: { disabled: true } }

/** As an SVG element of that size, CSS pixels. */
export function drawPlot(plot: Plot, width: number, height: number): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height })
  chart.setOption(optionOf(plot))
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}

function optionOf(plot: Plot): EChartsCoreOption {
  const { kind, x, places, linear, y, logarithmic, lines } = plot
  const label = { color: TEXT, fontSize: FONT }
  const line = { lineStyle: { color: RULE } }
  return {
    animation: false,
    textStyle: { fontFamily: 'system-ui, sans-serif' },
    grid: { left: 4, right: 14, top: 34, bottom: 26, outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' },
    xAxis: {
      type: linear ? 'value' : 'category',
      ...(linear ? {} : { data: places.map(String) }),
      name: x,
      nameLocation: 'middle',
      nameGap: 28,
      nameTextStyle: { color: MUTED, fontSize: FONT },
      axisLabel: { ...label, hideOverlap: true },
      axisLine: line,
      axisTick: line,
      splitLine: { show: false },
    },
    yAxis: {
      type: logarithmic ? 'log' : 'value',
      ...(logarithmic ? {} : { min: 0 }),
      ...(plot.limit &&
        !logarithmic && { max: ({ max }: { max: number }) => Math.ceil(Math.max(max, plot.limit!.value * 1.1)) }),
      name: y,
      nameLocation: 'end',
      nameTextStyle: { color: MUTED, fontSize: FONT, align: 'left', padding: [0, 0, 0, -14] },
      axisLabel: label,
      axisLine: { show: false },
      axisTick: { show: false },
      splitLine: line,
      splitNumber: 4,
    },
    series: lines.flatMap((one, index) => [
      { ...(kind === 'line' ? lineOf(plot, one) : barOf(one)), ...(index === 0 && plot.limit && limitOf(plot.limit)) },
      whiskersOf(plot, one, index),
    ]),
  }
}

function placeOf({ places, linear }: Plot, index: number): number {
  return linear ? (places[index] as number) : index
}

function lineOf(plot: Plot, { name, colour, dashed, values }: Line): object {
  return {
    name,
    type: 'line',
    ...STILL,
    data: values.flatMap((value, at) => (value ? [[placeOf(plot, at), value.median]] : [])),
    symbol: 'circle',
    symbolSize: 7,
    lineStyle: { color: `var(--s${colour})`, width: 2, type: dashed ? 'dashed' : 'solid' },
    itemStyle: { color: `var(--s${colour})` },
  }
}

function barOf({ name, colour, values }: Line): object {
  return {
    name,
    type: 'bar',
    ...STILL,
    data: values.map((value) => value?.median ?? '-'),
    barGap: BAR_GAP,
    barCategoryGap: BAR_CATEGORY_GAP,
    itemStyle: { color: `var(--s${colour})` },
  }
}

function limitOf({ name, value }: { name: string; value: number }): object {
  return {
    markLine: {
      silent: true,
      symbol: 'none',
      data: [{ yAxis: value }],
      lineStyle: { color: MUTED, type: 'dashed', width: 1.5 },
      label: { formatter: name, position: 'insideStartTop', color: TEXT, fontSize: FONT },
    },
  }
}

/** From the lowest to the highest run. */
function whiskersOf(plot: Plot, { colour, values }: Line, index: number): object {
  const stroke = plot.kind === 'bar' ? TEXT : `var(--s${colour})`
  return {
    type: 'custom',
    ...STILL,
    z: 3,
    data: values.flatMap((value, at) => (value ? [[placeOf(plot, at), value.min, value.max]] : [])),
    encode: { x: 0, y: [1, 2] },
    renderItem(_: unknown, api: WhiskerApi): CustomSeriesRenderItemReturn {
      const offset = plot.kind === 'bar' ? barCentre(api, plot.lines.length, index) : 0
      const [x, low] = api.coord([api.value(0), api.value(1)]) as [number, number]
      const [, high] = api.coord([api.value(0), api.value(2)]) as [number, number]
      const at = x + offset
      const segment = (x1: number, y1: number, x2: number, y2: number) =>
        ({ type: 'line', shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: 1, fill: 'none' } }) as const
      return {
        type: 'group',
        children: [
          segment(at, low, at, high),
          segment(at - CAP, low, at + CAP, low),
          segment(at - CAP, high, at + CAP, high),
        ],
      }
    },
  }
}

interface WhiskerApi {
  value(dimension: number): number
  coord(value: number[]): number[]
  barLayout(options: { count: number; barGap: string; barCategoryGap: string }): { offsetCenter: number }[]
}

function barCentre(api: WhiskerApi, count: number, index: number): number {
  return api.barLayout({ count, barGap: BAR_GAP, barCategoryGap: BAR_CATEGORY_GAP })[index]!.offsetCenter
}
