package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"spamtraps.internal/libs/daemon"
)

// getPage returns the page at / as Accept and a query want it.
func getPage(t *testing.T, url, accept string) (http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", url, answer.Status, err, text)
	}
	return answer.Header, string(text)
}

const browser = "text/html,application/xhtml+xml,*/*;q=0.8"

// boxes is a status with some mailboxes, of hostile names.
func boxes(n int) daemon.Status {
	s := daemon.Status{
		Facts: []daemon.Fact{{Name: "Mails taken", Metric: "spamtraps_taken_total"}, {Name: "Set aside", Value: int64(1_234_567), Bad: true}},
		Tables: []daemon.Table{
			{Title: "Mailboxes", Columns: []daemon.Column{
				{Key: "mailbox", Title: "Mailbox"}, {Key: "found", Title: "Found"}, {Key: "last", Title: "Last"}, {Key: "reason", Title: "Reason"},
			}},
			{Title: "Peers", Empty: "No mail came yet.", Columns: []daemon.Column{{Key: "peer", Title: "Peer"}}},
		},
		Hide: func(text string) string { return strings.ReplaceAll(text, "trap@secret.example", "a trap") },
	}
	for i := range n {
		last := time.Time{}
		if i > 0 {
			last = time.Now().Add(-time.Duration(i) * time.Hour)
		}
		s.Tables[0].Rows = append(s.Tables[0].Rows, []daemon.Cell{
			{Value: fmt.Sprintf("<script>alert(%d)</script>", n-i)}, {Value: int64(i * 7 % 5)}, {Value: last}, {Value: "\x1b[31m", Bad: i == 0},
		})
	}
	return s
}

func startPage(t *testing.T, status func() daemon.Status) (*life, string) {
	t.Helper()
	l := start(t, service(func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
		taken := promauto.With(d.Metrics).NewCounterVec(prometheus.CounterOpts{Name: "spamtraps_taken_total", Help: "Taken."}, []string{"how"})
		taken.WithLabelValues("a").Add(40)
		taken.WithLabelValues("b").Add(1002)
		d.Watch("imap", func() daemon.Health { return daemon.Health{Text: "trap@secret.example is <stale>"} })
		d.Show(status)
		return nil
	}), nil, []string{"SENSOR=sensor-1", "ADMIN_ADDR=127.0.0.1:0"})
	url := l.url(t, "/")
	l.await(t, "started")
	return l, url
}

// The page is what a browser may show without a script and to anybody, whatever is in it.
func TestStatusPage(t *testing.T) {
	l, url := startPage(t, func() daemon.Status { return boxes(3) })
	header, page := getPage(t, url, browser)
	for _, want := range []string{
		"<h1>trap <small>sensor-1</small></h1>", "not ready", "running, started", "imap: a trap is &lt;stale&gt;",
		"<dt>Mails taken</dt><dd>1,042</dd>", `<div class="bad"><dt>Set aside</dt><dd>1,234,567</dd>`, "never", "1 h ago", "No mail came yet.",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range []string{"<script", "trap@secret.example", "\x1b", "style=", "javascript:"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
		"Cache-Control": "no-store", "Vary": "Accept", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	policy := regexp.MustCompile(`^default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$`)
	if got := header.Get("Content-Security-Policy"); !policy.MatchString(got) {
		t.Errorf("Content-Security-Policy: %q", got)
	}
	l.signals <- syscall.SIGTERM
	l.end(t, daemon.ExitOK)
}

// Each column sorts, by what it means and not by its text, in both directions; a column that is not there sorts nothing.
func TestStatusPageSorts(t *testing.T) {
	l, url := startPage(t, func() daemon.Status { return boxes(5) })
	names := regexp.MustCompile(`data-label="Mailbox">&lt;script&gt;alert\((\d)\)`)
	for sort, want := range map[string]string{
		"": "54321", "nonsense": "54321", "mailbox": "12345", "-mailbox": "54321",
		"found": "52413", "-found": "31425", // 0, 2, 4, 1, 3 were found
		"last": "51234", "-last": "43215", // the first was never looked at
	} {
		_, page := getPage(t, url+"?sort="+sort, browser)
		got := ""
		for _, name := range names.FindAllStringSubmatch(page, -1) {
			got += name[1]
		}
		if got != want {
			t.Errorf("?sort=%s: %s, want %s", sort, got, want)
		}
		key, down := strings.CutPrefix(sort, "-")
		if link := `href="?sort=-` + key + `"`; want != "54321" && strings.Contains(page, link) == down {
			t.Errorf("?sort=%s: the link %s is wrong", sort, link)
		}
	}
	l.signals <- syscall.SIGTERM
	l.end(t, daemon.ExitOK)
}

// A program gets the same as JSON.
func TestStatusAsJSON(t *testing.T) {
	l, url := startPage(t, func() daemon.Status { return boxes(2) })
	header, text := getPage(t, url+"?sort=mailbox", "application/json")
	if header.Get("Content-Type") != "application/json" {
		t.Errorf("Content-Type: %q", header.Get("Content-Type"))
	}
	var page struct {
		Service, Sensor, Phase string
		Ready                  bool
		Checks                 []struct {
			OK   bool
			Text string
		}
		Facts []struct {
			Name  string
			Value any
		}
		Tables []struct {
			Title string
			Rows  []map[string]any
		}
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if page.Service != "trap" || page.Sensor != "sensor-1" || page.Phase != "running" || page.Ready || len(page.Checks) != 2 ||
		page.Checks[1].Text != "imap: a trap is <stale>" || page.Facts[0].Value != 1042. || len(page.Tables) != 2 {
		t.Errorf("%s", text)
	}
	first := page.Tables[0].Rows[0]
	if at, _ := first["last"].(string); first["mailbox"] != "<script>alert(1)</script>" || first["found"] != 2. || !strings.Contains(at, "T") {
		t.Errorf("%v", first)
	}
	if second := page.Tables[0].Rows[1]; second["last"] != nil {
		t.Errorf("%v", second)
	}
	l.signals <- syscall.SIGTERM
	l.end(t, daemon.ExitOK)
}
