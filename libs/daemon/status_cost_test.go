package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// pageOf returns the page of so many mailboxes, with the columns that imap-collector has.
func pageOf(n int) *statusPage {
	table := Table{Title: "Mailboxes"}
	for _, title := range []string{"mailbox", "state", "last_look", "last_mail", "found", "confirmed", "left", "reason"} {
		table.Columns = append(table.Columns, Column{Key: title, Title: title})
	}
	at := time.Now().Add(-time.Hour)
	for i := range n {
		table.Rows = append(table.Rows, []Cell{
			{Value: fmt.Sprintf("mailbox-%04d", i)},
			{Value: "idling"},
			{Value: at},
			{Value: at},
			{Value: int64(i)},
			{Value: int64(i)},
			{Value: int64(0)},
			{Value: "LOGIN: the server says NO [AUTHENTICATIONFAILED] Authentication failed."},
		})
	}
	registry := prometheus.NewRegistry()
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spamtraps_found_total", Help: "Found."}, []string{"mailbox", "kind"})
	for i := range 15 * n {
		vec.WithLabelValues(fmt.Sprintf("mailbox-%04d", i%n), fmt.Sprint(i/n)).Inc()
	}
	registry.MustRegister(vec)
	return &statusPage{
		service: "trap", started: at, ready: newReadiness(), metrics: registry, log: zerolog.Nop(),
		status: func() Status {
			return Status{Facts: []Fact{{Name: "Found", Metric: "spamtraps_found_total"}}, Tables: []Table{table}}
		},
	}
}

func (s *statusPage) ask(ctx context.Context) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/?sort=-found", http.NoBody))
	return answer
}

// A page of a thousand mailboxes is whole, and costs ten times one of a hundred, and no more: a few allocations a cell.
func TestStatusPageOfAThousand(t *testing.T) {
	thousand, hundred := pageOf(1000), pageOf(100)
	if page := thousand.ask(t.Context()).Body.String(); strings.Count(page, "<tr><td") != 1000 || !strings.Contains(page, "</html>") {
		t.Errorf("it has %d rows", strings.Count(page, "<tr><td"))
	}
	many := testing.AllocsPerRun(3, func() { thousand.ask(t.Context()) })
	few := testing.AllocsPerRun(3, func() { hundred.ask(t.Context()) })
	t.Logf("%.0f allocations for 1000, %.0f for 100", many, few)
	if many > 12*few || many/8000 > 40 {
		t.Errorf("%.0f allocations for 1000 mailboxes and %.0f for 100: %.1f a cell", many, few, many/8000)
	}
}

func BenchmarkStatusPage(b *testing.B) {
	page := pageOf(1000)
	for b.Loop() {
		page.ask(b.Context())
	}
}
