package portal

import (
	"net/http"
	"time"
)

// counts are the attempts of the last 24 hours, as the API counts them.
type counts struct {
	From      time.Time   `json:"from"`
	To        time.Time   `json:"to"`
	Delivered int64       `json:"delivered"`
	Failed    int64       `json:"failed"`
	AtLeast   bool        `json:"at_least"`
	Steps     []countStep `json:"steps"`
}

// countStep are those that began within five minutes.
type countStep struct {
	From      time.Time `json:"from"`
	Delivered int64     `json:"delivered"`
	Failed    int64     `json:"failed"`
}

// chart shows how many attempts were delivered and failed.
type chart struct {
	Bars              []bar
	Delivered, Failed int64
	AtLeast           bool // they are not all counted yet
	From, To          time.Time
	Span              string // the key of its name: hour, quarter or day
	Median, Slowest   float64
	Newest            int // how many of the newest attempts Median and Slowest are of; 0 for all
}

// bar is one part of the time, as heights in a picture 60 units high.
type bar struct {
	From                                  time.Time
	X, GoodY, GoodHeight, BadY, BadHeight int
	Good, Bad                             int64
}

const (
	newestAttempts = 500 // as many as the API lists at once
	chartWidth     = 480
	chartHeight    = 60
	widestBar      = 20
	leastFailed    = 3 // the height of failures that are few among many
)

// chart counts what path counts. newest are the newest attempts of the same webhooks,
// which say how long they took.
func (v *visit) chart(path string, newest []attempt) chart {
	var all counts
	if r, err := v.call(http.MethodGet, path, nil, nil, &all); err != nil || !r.OK() {
		// The API is busy. The page is of use without a picture, too.
		all = counts{From: time.Now().Add(-24 * time.Hour), To: time.Now(), AtLeast: true}
	}
	return newChart(all, newest)
}

// newChart covers 24 hours, or the last ones of them if there was nothing before.
func newChart(all counts, newest []attempt) chart {
	c := chart{Delivered: all.Delivered, Failed: all.Failed, AtLeast: all.AtLeast, From: all.From, To: all.To, Span: "day"}
	width := 30 * time.Minute
	if len(all.Steps) > 0 && !all.AtLeast {
		switch age := all.To.Sub(all.Steps[0].From); {
		case age < 55*time.Minute:
			c.From, c.Span, width = all.To.Add(-time.Hour), "hour", 5*time.Minute
		case age < 5*time.Hour+50*time.Minute:
			c.From, c.Span, width = all.To.Add(-6*time.Hour), "quarter", 10*time.Minute
		}
	}
	// Each step is wholly in one bar, and the newest bar ends now.
	first := c.From.Truncate(width)
	if first.Before(c.From) {
		first = first.Add(width)
	}
	c.From = first
	n := max(int(c.To.Sub(first)/width)+1, 1)
	c.Bars = make([]bar, n)
	for _, step := range all.Steps {
		b := &c.Bars[min(max(int(step.From.Sub(first)/width), 0), n-1)]
		b.Good += step.Delivered
		b.Bad += step.Failed
	}
	highest := int64(1)
	for _, b := range c.Bars {
		highest = max(highest, b.Good+b.Bad)
	}
	for i := range c.Bars {
		b := &c.Bars[i]
		b.From = first.Add(time.Duration(i) * width)
		b.X = i*chartWidth/n + (chartWidth/n-c.BarWidth())/2
		b.GoodHeight, b.BadHeight = heightOf(b.Good, highest, 1), heightOf(b.Bad, highest, leastFailed)
		b.GoodY = chartHeight - b.GoodHeight
		b.BadY = b.GoodY - b.BadHeight
	}
	var times []float64
	for _, a := range newest {
		if a.Outcome == "delivered" && !a.At.Before(all.From) {
			times = append(times, a.DurationMS)
		}
	}
	if len(newest) >= newestAttempts {
		c.Newest = newestAttempts
	}
	c.Median, c.Slowest = middle(times)
	return c
}

// BarWidth leaves a gap between bars. Few bars do not become walls.
func (c chart) BarWidth() int { return min(max(chartWidth/len(c.Bars)-2, 1), widestBar) }

// heightOf leaves room above the highest bar for failures that would be too low to be seen.
func heightOf(n, highest, least int64) int {
	if n == 0 {
		return 0
	}
	return int(max(n*(chartHeight-leastFailed-1)/highest, least))
}
