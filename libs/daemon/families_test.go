package daemon_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"spamtraps.internal/libs/daemon"
)

// Every family is listed, with its type, also those whose labels have no value yet.
func TestMetricsAreListed(t *testing.T) {
	svc := service(nil)
	svc.Metrics = func(_ trapConfig, reg prometheus.Registerer) error {
		auto := promauto.With(reg)
		auto.NewCounterVec(prometheus.CounterOpts{Name: "spamtraps_x_total", Help: `Says "why" | how.`}, []string{"reason", "kind"})
		auto.NewHistogramVec(prometheus.HistogramOpts{Name: "spamtraps_x_seconds", Help: "How long."}, []string{"reason"})
		auto.NewHistogram(prometheus.HistogramOpts{Name: "spamtraps_y_seconds", Help: "How long."})
		auto.NewGaugeVec(prometheus.GaugeOpts{Name: "spamtraps_x", Help: "How much."}, []string{"mailbox"})
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "spamtraps_y", Help: "How much."}, func() float64 { return 1 })
		auto.NewCounterFunc(prometheus.CounterOpts{Name: "spamtraps_z_total", Help: "How often."}, func() float64 { return 1 })
		return nil
	}
	var stdout console
	if code := daemon.Main(svc, daemon.Process{Args: []string{"metrics", "--markdown"}, Stdout: &stdout, Stderr: &stdout}); code != daemon.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stdout)
	}
	for _, want := range []string{
		"| `spamtraps_build_info` | gauge | go_version, service, version | ",
		"| `spamtraps_ready` | gauge |  | ",
		"| `spamtraps_x` | gauge | mailbox | How much. |\n",
		"| `spamtraps_x_seconds` | histogram | reason | ",
		"| `spamtraps_x_total` | counter | reason, kind | Says \"why\" \\| how. |\n",
		"| `spamtraps_y` | gauge |  | ",
		"| `spamtraps_y_seconds` | histogram |  | ",
		"| `spamtraps_z_total` | counter |  | ",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &stdout)
		}
	}
}
