package chart

import (
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Waits show how long operations took, by the share of them that took no longer: a line for each series, from the
// median to the longest. The step from one 9 of the share to the next is always as wide, so that the few that waited
// longest are seen as well as the many.
type Waits struct {
	Title  string // of the panel; "" for none
	Series [][]time.Duration
}

// perDecade is how many points a line has.
const perDecade = 24

func (Waits) height() vg.Length { return 150 }

func (w Waits) plot(series []Series) *plot.Plot {
	p := newPlot(w.Title, "share of the operations that took no longer")
	p.Y.Label.Text = "milliseconds"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = grid, grid
	p.Add(lines)
	least, most := math.Inf(1), 0.0
	for i, waits := range w.Series {
		points := percentiles(waits)
		if len(points) == 0 {
			continue
		}
		line := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: series[i].Color, Width: 1.75}}
		end := &plotter.Scatter{XYs: points[len(points)-1:], GlyphStyle: draw.GlyphStyle{Color: series[i].Color, Radius: 3, Shape: draw.CircleGlyph{}}}
		p.Add(line, end)
		least, most = min(least, points[0].Y), max(most, points[len(points)-1].Y)
	}
	if most == 0 { // nothing was measured
		least, most, p.X.Max = 1, 10, 1
	}
	// Whole decades, at least one.
	lowest := math.Floor(math.Log10(least))
	p.Y.Min, p.Y.Max = math.Pow(10, lowest), math.Pow(10, max(math.Ceil(math.Log10(most)), lowest+1))
	p.X.Min = nines(0.5)
	p.X.Tick.Marker = shares{}
	return p
}

// nines is where a share is on the horizontal axis: 0.9 at 1, 0.99 at 2.
func nines(share float64) float64 { return -math.Log10(1 - share) }

// percentiles are the points of a line, in milliseconds. The last is the longest wait. It stands where the share of one
// operation would be.
func percentiles(waits []time.Duration) (points plotter.XYs) {
	if len(waits) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(waits))
	n := float64(len(sorted))
	end := max(math.Log10(n), nines(0.5))
	for x := nines(0.5); x < end; x += 1.0 / perDecade {
		at := int(math.Ceil((1-math.Pow(10, -x))*n)) - 1
		points = append(points, plotter.XY{X: x, Y: milliseconds(sorted[max(at, 0)])})
	}
	return append(points, plotter.XY{X: end, Y: milliseconds(sorted[len(sorted)-1])})
}

// milliseconds is at least a microsecond, since a logarithmic axis has no 0.
func milliseconds(d time.Duration) float64 { return max(d, time.Microsecond).Seconds() * 1000 }

// shares are the marks at 50 %, 90 %, 99 % and so on.
type shares struct{}

func (shares) Ticks(_, most float64) []plot.Tick {
	ticks := []plot.Tick{{Value: nines(0.5), Label: "50 %"}}
	for n := 1; float64(n) <= most; n++ {
		label := "90"
		if n > 1 {
			label = "99"
		}
		if n > 2 {
			label += "." + strings.Repeat("9", n-2)
		}
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: label + " %"})
	}
	return ticks
}
