// Package chart draws the results of benchmarks as SVG. It knows nothing of what was measured, and the same data gives
// the same bytes. It alone imports the library that draws.
package chart

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"strconv"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colors of series. People who see no red or no green can tell them apart (Okabe and Ito, "Color Universal
// Design").
var (
	Blue       = color.RGBA{0x00, 0x72, 0xB2, 0xFF}
	Sky        = color.RGBA{0x56, 0xB4, 0xE9, 0xFF}
	Orange     = color.RGBA{0xE6, 0x9F, 0x00, 0xFF}
	Vermillion = color.RGBA{0xD5, 0x5E, 0x00, 0xFF}
	Green      = color.RGBA{0x00, 0x9E, 0x73, 0xFF}

	ink  = color.Gray{0x22}
	grid = color.Gray{0xCC}
)

// Chart is one drawing: panels below each other, with one legend for all.
type Chart struct {
	Title string
	// Series are what each panel shows, in order.
	Series []Series
	Panels []Panel
}

// Series is an entry of the legend.
type Series struct {
	Name  string
	Color color.Color
}

// Panel is Bars or Waits.
type Panel interface {
	// plot is the panel with its axes.
	plot(series []Series) *plot.Plot
	// height is that of everything inside of the axes.
	height() vg.Length
}

// Lengths are in points of 1/72 inch. A browser shows the drawing 700 pixels wide.
const (
	width   vg.Length = 525
	margin  vg.Length = 10
	swatch  vg.Length = 14 // the width of a sample of a color in the legend
	spacing vg.Length = 14
	// slack is how much wider than measured a text may be, where a reader has none of the fonts.
	slack              = 0.16
	axisRoom vg.Length = 50 // for the numbers and the title of a horizontal axis, and the title of the panel
)

// SVG is the drawing. Its background is white, so that it can be read on a dark page too.
func (c Chart) SVG() ([]byte, error) {
	rows := c.legendRows()
	line := style(9).Height("Mg") + 4
	top := margin + heading().Height(c.Title) + 6 + vg.Length(len(rows))*line + 6
	height := top + margin + spacing*vg.Length(len(c.Panels)-1)
	var plots [][]*plot.Plot
	for _, p := range c.Panels {
		height += p.height() + axisRoom
		plots = append(plots, []*plot.Plot{p.plot(c.Series)})
	}

	svg := vgsvg.NewWith(vgsvg.UseWH(width, height))
	canvas := draw.New(svg)
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Path())

	y := height - margin
	canvas.FillText(heading(), vg.Point{X: margin, Y: y}, c.Title)
	y -= heading().Height(c.Title) + 6
	for _, row := range rows {
		x := margin
		for _, s := range row {
			fill(canvas, s.Color, x, y-2, x+swatch, y-line+4)
			left := style(9)
			left.YAlign = draw.YCenter
			canvas.FillText(left, vg.Point{X: x + swatch + 4, Y: y - line/2 + 1}, s.Name)
			x += legendWidth(s)
		}
		y -= line
	}

	inner := draw.Crop(canvas, margin, -margin, margin, -top)
	tiles := plot.Align(plots, draw.Tiles{Rows: len(plots), Cols: 1, PadY: spacing}, inner)
	for i := range plots {
		plots[i][0].Draw(tiles[i][0])
	}
	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("draw %q: %w", c.Title, err)
	}
	// The library names the one font with which it measured. The others are as wide, and one of them is on every
	// machine.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

// legendRows puts as many entries into a row as fit.
func (c Chart) legendRows() (rows [][]Series) {
	x := width
	for _, s := range c.Series {
		if x+legendWidth(s) > width-margin {
			rows, x = append(rows, nil), margin
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], s)
		x += legendWidth(s)
	}
	return rows
}

func legendWidth(s Series) vg.Length { return swatch + 4 + (1+slack)*style(9).Width(s.Name) + spacing }

func style(size vg.Length) text.Style {
	return text.Style{
		Color:   ink,
		Font:    font.Font{Typeface: "Liberation", Variant: "Sans", Size: size},
		XAlign:  draw.XLeft,
		YAlign:  draw.YTop,
		Handler: plot.DefaultTextHandler,
	}
}

func heading() text.Style {
	s := style(12)
	s.Font.Weight = xfont.WeightBold
	return s
}

// newPlot is a plot without data, in the style of all panels.
func newPlot(title, axis string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text = title
	p.Title.Padding = 4
	p.Title.TextStyle = style(10)
	p.Title.TextStyle.Font.Weight = xfont.WeightBold
	p.Title.TextStyle.XAlign = draw.XCenter
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = ink, ink
		a.Label.Padding, a.Padding = 3, 0
		a.Label.TextStyle.Font, a.Label.TextStyle.Color = style(9).Font, ink
		a.Tick.Label.Font, a.Tick.Label.Color = style(9).Font, ink
	}
	p.X.Label.Text = axis
	return p
}

func fill(c draw.Canvas, of color.Color, x0, y0, x1, y1 vg.Length) {
	c.FillPolygon(of, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}})
}

// decades are the marks of a logarithmic axis: a number at each power of ten, and small marks between them.
type decades struct{}

func (decades) Ticks(least, most float64) (ticks []plot.Tick) {
	for e := math.Floor(math.Log10(least)); ; e++ {
		power := math.Pow(10, e)
		for n := 1.0; n < 10; n++ {
			v := n * power
			if v > most*1.000001 {
				return ticks
			}
			if v < least*0.999999 {
				continue
			}
			t := plot.Tick{Value: v}
			if n == 1 {
				t.Label = strconv.FormatFloat(v, 'f', -1, 64)
			}
			ticks = append(ticks, t)
		}
	}
}

// steps are the marks of a linear axis: four to ten round numbers.
type steps struct{}

func (steps) Ticks(least, most float64) (ticks []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10(most-least)))
	if n := (most - least) / step; n < 2 {
		step /= 5
	} else if n < 4 {
		step /= 2
	}
	for n := math.Ceil(least / step); n*step <= most; n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: strconv.FormatFloat(n*step, 'g', 6, 64)})
	}
	return ticks
}

// number is a value in three digits.
func number(v float64) string {
	digits := 2
	if v >= 100 {
		digits = 0
	} else if v >= 10 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}
