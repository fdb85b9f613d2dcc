package chart

import (
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Bars are groups of horizontal bars, one for each series, with their values beside them.
type Bars struct {
	Title string // of the panel; "" for none
	Axis  string // what the bars count, with its unit
	// Log makes the axis logarithmic. Bars then begin at From, which is greater than 0.
	Log bool
	// From is where bars begin. A value below it points to the left.
	From float64
	// Mark, if it is not 0, is a value that a line marks in all groups.
	Mark   float64
	Groups []Group
}

// Group has a value for each series. NaN leaves a bar out: what it stands for was not measured.
type Group struct {
	Name   string
	Values []float64
}

const (
	barHeight vg.Length = 9
	groupGap  vg.Length = 8
)

func (b Bars) height() vg.Length {
	return vg.Length(len(b.Groups)) * (groupGap + barHeight*vg.Length(b.series()))
}

// series is how many there are.
func (b Bars) series() int {
	if len(b.Groups) == 0 {
		return 0
	}
	return len(b.Groups[0].Values)
}

func (b Bars) plot(series []Series) *plot.Plot {
	p := newPlot(b.Title, b.Axis)
	p.X.Tick.Marker = steps{}
	if b.Log {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Width = grid, 0
	p.Add(lines, bars{b, series})
	var names []plot.Tick
	var longest vg.Length
	for i, g := range b.Groups {
		names = append(names, plot.Tick{Value: -float64(i), Label: g.Name})
		longest = max(longest, p.Y.Tick.Label.Width(g.Name))
	}
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Tick.Width, p.Y.Tick.Length, p.Y.Width = 0, 0, 0
	p.Y.Padding = 6 + slack*longest
	return p
}

// bars draw themselves on a plot whose groups are one apart, the first at 0 and the next below.
type bars struct {
	Bars
	of []Series
}

func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) {
	xmin, xmax = b.From, b.From
	b.each(func(_ int, _, v float64) { xmin, xmax = min(xmin, v), max(xmax, v) })
	if b.Mark != 0 {
		xmin, xmax = min(xmin, b.Mark), max(xmax, b.Mark)
	}
	if xmax <= b.From {
		xmax = b.From + 1
	}
	return xmin, xmax, 0.5 - float64(len(b.Groups)), 0.5
}

// each visits the bars that are drawn, with the middle of each.
func (b bars) each(visit func(series int, y, v float64)) {
	gap := float64(groupGap / (groupGap + barHeight*vg.Length(b.series())))
	each := (1 - gap) / float64(b.series())
	for i, g := range b.Groups {
		for s, v := range g.Values {
			if math.IsNaN(v) || math.IsInf(v, 0) || b.Log && v <= 0 {
				continue
			}
			visit(s, -float64(i)+0.5-gap/2-each*(float64(s)+0.5), v)
		}
	}
}

func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	b.each(func(series int, at, v float64) {
		fill(c, b.of[series].Color, x(b.From), y(at)-barHeight/2+0.5, x(v), y(at)+barHeight/2-0.5)
		label := style(8)
		label.YAlign = draw.YCenter
		to := x(v) + 3
		if v < b.From {
			label.XAlign, to = draw.XRight, x(v)-3
		}
		c.FillText(label, vg.Point{X: to, Y: y(at)}, number(v))
	})
	for _, v := range []float64{b.From, b.Mark} {
		if v != 0 {
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.75}, x(v), c.Min.Y, x(v), c.Max.Y)
		}
	}
}

// GlyphBoxes keep room for the values beside the bars.
func (b bars) GlyphBoxes(p *plot.Plot) (boxes []plot.GlyphBox) {
	b.each(func(_ int, at, v float64) {
		box := plot.GlyphBox{X: p.X.Norm(v), Y: p.Y.Norm(at)}
		wide := style(8).Width(number(v)) + 4
		if v < b.From {
			box.Min.X = -wide
		} else {
			box.Max.X = wide
		}
		boxes = append(boxes, box)
	})
	return boxes
}
