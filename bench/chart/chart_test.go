package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	xfont "golang.org/x/image/font"
)

var series = []Series{{"sidecar, locked mode", Blue}, {"no sidecar, redislock, 5 ms back-off", Orange}, {"no sidecar, redislock, exponential back-off", Vermillion}}

func crowd(n int, longest time.Duration) (ds []time.Duration) {
	for i := range n {
		ds = append(ds, longest/time.Duration(n-i))
	}
	return ds
}

var charts = map[string]Chart{
	"bars": {Title: "Time of some operations", Series: series, Panels: []Panel{
		Bars{Title: "near", Axis: "milliseconds", Groups: []Group{{"1 process", []float64{1.5, 2, 3}}, {"2 processes", []float64{4.25, 0, math.NaN()}}}},
		Bars{Title: "far", Axis: "milliseconds", Mark: 1, Groups: []Group{{"1 process", []float64{147, 457.3, 458}}, {"2 processes", []float64{141, 449, 465}}}},
	}},
	"ratios": {Title: "How many times as many", Series: series, Panels: []Panel{
		Bars{Axis: "times as many", Log: true, From: 1, Groups: []Group{{"Redis", []float64{0.7, 31, 1.01}}, {"Database (MySQL)", []float64{0.05, 176, 0}}}},
	}},
	"waits": {Title: "How long operations wait", Series: series, Panels: []Panel{
		Waits{Title: "near", Series: [][]time.Duration{crowd(250_000, 28*time.Millisecond), crowd(2_000, 2*time.Second), crowd(1, time.Second)}},
		Waits{Title: "far", Series: [][]time.Duration{crowd(100, 28*time.Millisecond), nil, crowd(200_000, 12*time.Second)}},
	}},
	"nothing measured": {Title: "Nothing", Series: series, Panels: []Panel{Waits{}, Bars{Axis: "milliseconds", Groups: []Group{{"none", []float64{math.NaN(), 0, 0}}}}}},
}

// box is where a text is.
type box struct {
	text           string
	x0, y0, x1, y1 float64
}

var step = regexp.MustCompile(`(scale|translate|rotate)\(([^)]+)\)`)

// texts are those of a drawing, and the width and height of that. It follows the transformations that the library uses.
func texts(t *testing.T, svg []byte) (boxes []box, width, height float64) {
	t.Helper()
	type matrix [6]float64 // x' = m0 x + m2 y + m4; y' = m1 x + m3 y + m5
	stack := []matrix{{1, 0, 0, 1, 0, 0}}
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return boxes, width, height
		} else if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			m := stack[len(stack)-1]
			for _, s := range step.FindAllStringSubmatch(attr["transform"], -1) {
				var v []float64
				for _, f := range strings.FieldsFunc(s[2], func(r rune) bool { return r == ',' || r == ' ' }) {
					n, err := strconv.ParseFloat(f, 64)
					if err != nil {
						t.Fatal(err)
					}
					v = append(v, n)
				}
				by := matrix{1, 0, 0, 1, 0, 0}
				switch s[1] {
				case "scale":
					by[0], by[3] = v[0], v[1]
				case "translate":
					by[4], by[5] = v[0], v[1]
				case "rotate":
					sin, cos := math.Sincos(v[0] * math.Pi / 180)
					by = matrix{cos, sin, -sin, cos, 0, 0}
				}
				m = matrix{m[0]*by[0] + m[2]*by[1], m[1]*by[0] + m[3]*by[1], m[0]*by[2] + m[2]*by[3], m[1]*by[2] + m[3]*by[3],
					m[0]*by[4] + m[2]*by[5] + m[4], m[1]*by[4] + m[3]*by[5] + m[5]}
			}
			stack = append(stack, m)
			switch e.Name.Local {
			case "svg":
				var x, y float64
				if _, err := fmt.Sscan(attr["viewBox"], &x, &y, &width, &height); err != nil {
					t.Fatal(err)
				}
			case "text":
				var text string
				if err := d.DecodeElement(&text, &e); err != nil {
					t.Fatal(err)
				}
				stack = stack[:len(stack)-1]
				size, err := strconv.ParseFloat(regexp.MustCompile(`font-size:([0-9.]+)px`).FindStringSubmatch(attr["style"])[1], 64)
				if err != nil || size < 8 {
					t.Errorf("%q is %v points high, %v: too small to read", text, size, err)
				}
				if !strings.Contains(attr["style"], "sans-serif") {
					t.Errorf("%q has no font that every machine has: %s", text, attr["style"])
				}
				like := style(1)
				if strings.Contains(attr["style"], "bold") {
					like.Font.Weight = xfont.WeightBold
				}
				long := float64(like.Width(text)) * size
				var x, y float64
				if _, err := fmt.Sscan(attr["x"], &x); err != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Sscan(attr["y"], &y); err != nil {
					t.Fatal(err)
				}
				b := box{text: text, x0: math.Inf(1), y0: math.Inf(1), x1: math.Inf(-1), y1: math.Inf(-1)}
				for _, corner := range [][2]float64{{x, y}, {x + long, y - 0.7*size}} {
					px, py := m[0]*corner[0]+m[2]*corner[1]+m[4], m[1]*corner[0]+m[3]*corner[1]+m[5]
					b.x0, b.x1, b.y0, b.y1 = min(b.x0, px), max(b.x1, px), min(b.y0, py), max(b.y1, py)
				}
				boxes = append(boxes, b)
			}
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		}
	}
}

// A drawing says what it shows and in which unit, no text covers another or leaves the drawing, and the same data gives
// the same bytes.
func TestCharts(t *testing.T) {
	for name, c := range charts {
		t.Run(name, func(t *testing.T) {
			svg, err := c.SVG()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := c.SVG(); err != nil || !bytes.Equal(svg, again) {
				t.Errorf("drawn again it is another one, %v", err)
			}
			if !bytes.Contains(svg, []byte("fill:#FFFFFF")) {
				t.Error("it has no white background")
			}
			boxes, width, height := texts(t, svg)
			want := []string{c.Title}
			for _, s := range c.Series {
				want = append(want, s.Name)
			}
			for _, p := range c.Panels {
				switch p := p.(type) {
				case Bars:
					want = append(want, p.Axis)
					for _, g := range p.Groups {
						want = append(want, g.Name)
						for _, v := range g.Values {
							if !math.IsNaN(v) && (v > 0 || !p.Log) {
								want = append(want, number(v))
							}
						}
					}
				case Waits:
					want = append(want, "milliseconds", "50 %")
				}
			}
			for _, text := range want {
				if !slices.ContainsFunc(boxes, func(b box) bool { return b.text == text }) {
					t.Errorf("it does not say %q", text)
				}
			}
			for i, a := range boxes {
				if a.x0 < 0 || a.y0 < 0 || a.x1 > width || a.y1 > height {
					t.Errorf("%+v leaves the drawing of %v by %v", a, width, height)
				}
				for _, b := range boxes[i+1:] {
					if a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1 {
						t.Errorf("%+v covers %+v", a, b)
					}
				}
			}
		})
	}
}

// A line of waits goes from the median to the longest, and rises.
func TestPercentiles(t *testing.T) {
	var waits []time.Duration
	for n := range 1000 {
		waits = append(waits, time.Duration(1000-n)*time.Millisecond)
	}
	points := percentiles(waits)
	if first, last := points[0], points[len(points)-1]; first.Y != 500 || first.X != nines(0.5) || last.Y != 1000 || last.X != 3 {
		t.Errorf("from %v to %v", first, last)
	}
	for i, p := range points[1:] {
		if p.X <= points[i].X || p.Y < points[i].Y {
			t.Errorf("%v comes after %v", p, points[i])
		}
	}
	if got := percentiles(nil); got != nil {
		t.Errorf("nothing has the line %v", got)
	}
}

// A linear axis has some round marks, whatever its length.
func TestSteps(t *testing.T) {
	for _, most := range []float64{0.7, 1, 3.25, 9.55, 43, 275, 529.8, 13760} {
		ticks := steps{}.Ticks(0, most)
		if len(ticks) < 4 || len(ticks) > 11 || ticks[0].Label != "0" {
			t.Errorf("to %v: %v", most, ticks)
		}
		for _, tick := range ticks {
			if len(tick.Label) > 5 {
				t.Errorf("to %v: %q", most, tick.Label)
			}
		}
	}
}
