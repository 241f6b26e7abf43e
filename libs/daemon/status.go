package daemon

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
)

// Status is what a service shows of itself on the page at / of the admin port, beside what every service shows: its name, version and age, and the
// lines of /readyz. It must hold no secret, no trap address and no recipient, because people show such pages to others.
type Status struct {
	Facts  []Fact
	Tables []Table
	// Hide takes out of the lines of /readyz, which say more, what must not stand on the page; nil: nothing.
	Hide func(text string) string
}

// Fact is one thing to know.
type Fact struct {
	Name string
	// Value is a string, an int64, or a time.Time in the past, whose zero value is never.
	Value any
	// Metric names the family whose sum is the value, where Value is nil.
	Metric string
	// Bad tells that somebody should look at it.
	Bad bool
}

// Table is a table that can be sorted by each of its columns.
type Table struct {
	Title   string
	Columns []Column
	Rows    [][]Cell // of as many cells as there are columns
	Empty   string   // said when there are no rows
}

// Column is one column of a table.
type Column struct {
	// Key is its name in links and in JSON. No two columns on the page have the same.
	Key string
	// Title is its heading.
	Title string
}

// Cell is one place in a table.
type Cell struct {
	// Value is like that of a Fact, and is what is sorted by; one column holds values of one kind.
	Value any
	// Bad tells that somebody should look at it.
	Bad bool
}

// Show has the page at / show what status returns, which is called at each request, from several goroutines at once, and must neither block nor be slow.
func (d *Daemon) Show(status func() Status) {
	d.page.mu.Lock()
	defer d.page.mu.Unlock()
	d.page.status = status
}

// statusPage serves /.
type statusPage struct {
	service, sensor string
	started         time.Time
	ready           *readiness
	metrics         prometheus.Gatherer
	log             zerolog.Logger

	mu     sync.Mutex
	status func() Status // nil: the service shows nothing of its own
}

// statusView is the page before it is written, as a template or as JSON.
type statusView struct {
	Service string      `json:"service"`
	Version string      `json:"version"`
	Sensor  string      `json:"sensor"`
	Phase   phase       `json:"phase"`
	Ready   bool        `json:"ready"`
	Started time.Time   `json:"started_at"`
	Now     time.Time   `json:"now"`
	Checks  []checkView `json:"checks"`
	Facts   []factView  `json:"facts"`
	Tables  []tableView `json:"tables"`
}

type checkView struct {
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

type factView struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
	Bad   bool   `json:"bad,omitempty"`
	Text  string `json:"-"`
}

type tableView struct {
	Title   string           `json:"title"`
	Empty   string           `json:"-"`
	Columns []columnView     `json:"-"`
	Rows    [][]cellView     `json:"-"`
	Records []map[string]any `json:"rows"`
}

type columnView struct{ Title, Link, Order string }

type cellView struct {
	Label, Text string
	Number, Bad bool
}

// ServeHTTP writes the page, as JSON to who asks for that and not for HTML.
func (s *statusPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	view := s.view(time.Now(), r.URL.Query().Get("sort"))
	var page bytes.Buffer
	var err error
	header := w.Header()
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
		header.Set("Content-Type", "application/json")
		lines := json.NewEncoder(&page)
		lines.SetIndent("", "  ")
		err = lines.Encode(view)
	} else {
		header.Set("Content-Type", "text/html; charset=utf-8")
		err = statusTemplate.Execute(&page, view)
	}
	header.Set("Vary", "Accept")
	header.Set("Content-Security-Policy", statusPolicy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	if err != nil {
		s.log.Error().Err(err).Msg("the status page cannot be made")
		http.Error(w, "the status page cannot be made, the log says why", http.StatusInternalServerError)
		return
	}
	_, _ = page.WriteTo(w) // whoever asked may be gone
}

// view asks the service, and sorts its tables by the column of this key; a "-" before it turns the order round.
func (s *statusPage) view(now time.Time, sort string) *statusView {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	view := &statusView{Service: s.service, Version: Version(), Sensor: s.sensor, Phase: s.ready.current(), Started: s.started, Now: now}
	var shown Status
	if status != nil {
		shown = status()
	}
	var lines []Health
	view.Ready, lines = s.ready.lines()
	for _, line := range lines {
		if shown.Hide != nil {
			line.Text = shown.Hide(line.Text)
		}
		view.Checks = append(view.Checks, checkView(line))
	}
	sums := s.sums(shown.Facts)
	for _, f := range shown.Facts {
		if f.Value == nil {
			f.Value = sums[f.Metric]
		}
		view.Facts = append(view.Facts, factView{Name: f.Name, Value: f.Value, Bad: f.Bad, Text: valueText(f.Value, now)})
	}
	for i := range shown.Tables {
		view.Tables = append(view.Tables, shown.Tables[i].view(now, sort))
	}
	return view
}

// sums adds up the families that facts name.
func (s *statusPage) sums(facts []Fact) map[string]int64 {
	if !slices.ContainsFunc(facts, func(f Fact) bool { return f.Value == nil }) {
		return nil
	}
	families, _ := s.metrics.Gather() // what cannot be gathered is missing
	sums := make(map[string]int64)
	for _, family := range families {
		var sum float64
		for _, m := range family.GetMetric() {
			sum += valueOf(m)
		}
		sums[family.GetName()] = int64(sum)
	}
	return sums
}

func valueOf(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func (t *Table) view(now time.Time, sort string) tableView {
	key, down := strings.CutPrefix(sort, "-")
	by := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Key == key })
	rows := t.Rows
	if by >= 0 {
		rows = slices.Clone(rows)
		slices.SortStableFunc(rows, func(a, b []Cell) int {
			if down {
				a, b = b, a
			}
			return compareValues(a[by].Value, b[by].Value)
		})
	}
	view := tableView{Title: t.Title, Empty: t.Empty, Rows: make([][]cellView, len(rows)), Records: make([]map[string]any, len(rows))}
	for i, c := range t.Columns {
		head := columnView{Title: c.Title, Link: "?sort=" + url.QueryEscape(c.Key), Order: "none"}
		switch {
		case i == by && down:
			head.Order = "descending"
		case i == by:
			head.Order, head.Link = "ascending", "?sort=-"+url.QueryEscape(c.Key)
		}
		view.Columns = append(view.Columns, head)
	}
	for i, row := range rows {
		view.Rows[i], view.Records[i] = make([]cellView, len(row)), make(map[string]any, len(row))
		for j, cell := range row {
			_, number := cell.Value.(int64)
			view.Rows[i][j] = cellView{Label: t.Columns[j].Title, Text: valueText(cell.Value, now), Number: number, Bad: cell.Bad}
			view.Records[i][t.Columns[j].Key] = jsonValue(cell.Value)
		}
	}
	return view
}

func compareValues(a, b any) int {
	switch a := a.(type) {
	case int64:
		if b, ok := b.(int64); ok {
			return cmp.Compare(a, b)
		}
	case time.Time:
		if b, ok := b.(time.Time); ok {
			return a.Compare(b)
		}
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(strings.ToLower(a), strings.ToLower(b))
		}
	}
	return 0
}

func jsonValue(value any) any {
	if at, ok := value.(time.Time); ok && at.IsZero() {
		return nil
	}
	return value
}

// valueText is a value in words for people.
func valueText(value any, now time.Time) string {
	switch v := value.(type) {
	case int64:
		return Thousands(v)
	case time.Time:
		if v.IsZero() {
			return "never"
		}
		return Age(now.Sub(v)) + " ago"
	case string:
		return string(escapeUnsafe([]byte(v)))
	}
	return fmt.Sprint(value)
}

//go:embed status.css
var statusStyle string

//go:embed status.html
var statusHTML string

// The style is allowed by its hash, so that nothing that got into the page could bring one of its own.
var (
	statusTemplate = template.Must(template.New("status").Funcs(template.FuncMap{"text": valueText}).
			Parse(strings.Replace(statusHTML, "/* style */", statusStyle, 1)))
	statusPolicy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func styleHash() string {
	sum := sha256.Sum256([]byte(statusStyle))
	return base64.StdEncoding.EncodeToString(sum[:])
}
